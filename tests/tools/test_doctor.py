import json

from softlabel.tools import doctor
from softlabel.tools.doctor import DoctorConfig, Finding, findings


def by_name(config: DoctorConfig) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings(config)}


def test_this_machine_can_label_on_the_cpu(tmp_path, capsys):
    assert doctor.run(DoctorConfig(path=tmp_path, json=True)) == 0
    found = {line["what"]: line for line in json.loads(capsys.readouterr().out)}
    assert found["provider cpu"]["state"] == "ok"
    assert found["decoder pillow"]["state"] == "ok"
    assert "a second" in found["disk flushes"]["found"]


def test_a_provider_that_was_asked_for_and_does_not_run_is_exit_code_5(
    tmp_path, monkeypatch, capsys
):
    def fail(provider: str) -> None:
        if provider == "cuda":
            raise RuntimeError("no\nlibcurand")

    monkeypatch.setattr(doctor, "_run_on", fail)
    assert doctor.run(DoctorConfig(path=tmp_path, providers="cuda")) == 5
    said = capsys.readouterr().out
    assert "bad   provider cuda" in said
    assert "no libcurand" in said
    assert doctor.run(DoctorConfig(path=tmp_path)) == 0


def test_two_onnxruntimes_are_named_with_the_line_that_mends_it(tmp_path, monkeypatch):
    class Distribution:
        def __init__(self, name: str) -> None:
            self.metadata = {"Name": name}

    both = [Distribution("onnxruntime"), Distribution("onnxruntime-gpu")]
    monkeypatch.setattr(doctor, "distributions", lambda: both)
    found = by_name(DoctorConfig(path=tmp_path))["onnxruntime"]
    assert found.state == "bad"
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in found.found


def test_a_disk_that_cannot_be_written_is_bad(tmp_path, monkeypatch):
    def refuse(**kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    flushes = [f for f in doctor._disk(tmp_path) if f.what == "disk flushes"]
    assert [f.state for f in flushes] == ["bad"]
