import json

import pytest

from softlabel.shards import commandline
from softlabel.tools.bench import cli, kernel, timing


def test_contestants_take_turns_and_warm_up_first():
    calls = []
    actions = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    found = timing.interleaved(actions, repeats=3, warmups=1)
    assert "".join(calls) == "ab" * 4
    assert set(found) == {"a", "b"}


def test_the_kernel_benchmark_writes_its_figures_and_its_machine(tmp_path, capsys):
    out = tmp_path / "k.json"
    argv = ["kernel", "--rows", "8", "--classes", "50", "--repeats", "2", "--json", str(out)]
    with pytest.raises(SystemExit) as stop:
        commandline.main("kd-bench", cli.DESCRIPTION, cli.Command, cli.run, argv)
    assert stop.value.code == 0
    result = json.loads(out.read_text())
    assert result["machine"]["cores"] >= 1
    assert result["times_ours"]["sparse_kl_grad"] == 1
    assert "x ours" in capsys.readouterr().out


def test_a_contestant_that_computes_something_else_is_not_timed(monkeypatch):
    monkeypatch.setattr(kernel, "_kl_div", lambda z, *rest: (z.sum(1), z))
    with pytest.raises(AssertionError, match="kl_div, dense teacher rebuilt computes something"):
        kernel.bench_kernel(kernel.KernelBench(rows=4, classes=30, repeats=1))
