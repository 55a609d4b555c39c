"""The experiments through the whole product: a few steps on digits, killed once on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from softlabel.tools.experiments.data_sets import data_set
from softlabel.tools.experiments.material import Labels
from softlabel.tools.experiments.mixed import BALANCED, arms
from softlabel.tools.experiments.scope import Scope
from softlabel.tools.experiments.tasks import finished

SCALE = 0.01
COMMAND = (
    *(sys.executable, "-m", "softlabel.tools.experiments", "--data", "digits"),
    *("--only", "fidelity", "finetune", "mixed", "--seeds", "1", "--steps-scale", str(SCALE)),
)


def start(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, "--folder", str(folder)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_campaign_ends_with_both_pages_and_repeats_nothing(tmp_path):
    folder = tmp_path / "work"
    first = start(folder)
    deadline = time.monotonic() + 300
    while len(list(folder.rglob("result.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")}
    assert kept
    second = start(folder)
    said, _ = second.communicate()
    assert second.returncode == 0, said
    assert f"{len(kept)} results are there already" in said
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in kept.items())
    text = (folder / "results.md").read_text()
    assert "TRIAL" in text
    assert ": skipped: " not in text
    assert ": failed: " not in text
    assert "<svg" in (folder / "report.html").read_text()
    assert_curves_end_at_the_evaluated_agreement(folder)
    assert_labels_are_of_all_pools(folder)


def assert_curves_end_at_the_evaluated_agreement(folder: Path) -> None:
    scope = Scope(data=data_set("digits"), seeds=1, scale=SCALE)
    for run in arms(scope)[BALANCED]:
        result = finished(run, folder)
        assert result is not None
        assert result["curve"][-1] == [
            scope.steps(scope.data.mixed_training["steps"]),
            pytest.approx(result["figures"]["student"]["agreement"], abs=1e-9),
        ]


def assert_labels_are_of_all_pools(folder: Path) -> None:
    mixture = data_set("digits").mixture
    labels = Labels(data="digits", teacher="teacher", pools=tuple(mixture.items()))
    result = finished(labels, folder)
    assert result == {"images": sum(mixture.values())}
    (summary,) = folder.glob("experiments-*.json")
    assert json.loads(summary.read_text())["data"] == "digits"
