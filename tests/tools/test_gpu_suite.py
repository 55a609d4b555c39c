"""The suite for GPU machines, without one: its shell, its imports, its order, and a dry run."""

import json
import math
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from softlabel.tools.gpu.step import in_processes, parsed

ROOT = Path(__file__).resolve().parents[2]
SUITE = ROOT / "tools" / "gpu_suite.sh"
STEPS = ("environment", "warm", "correctness", "spills", "benchmark", "linear", "sweep", "summary")


def suite(*arguments, **environment):
    return subprocess.run(
        ["bash", SUITE, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_shell_script_parses():
    subprocess.run(["bash", "-n", SUITE], check=True)


@pytest.mark.parametrize("arguments", [(), ("--dry-run",), ("out", "--wet-run"), ("a", "", "b")])
def test_a_wrong_call_prints_the_usage(arguments, tmp_path):
    done = suite(*arguments)
    assert done.returncode != 0
    assert "usage:" in done.stderr


def test_steps_import_nothing_that_a_gpu_machine_may_lack_and_have_help():
    """tyro, zarr, webdataset and pytest are not there; matplotlib and Liger may not be."""
    program = f"""
import contextlib, importlib, io, runpy, sys
for name in ("tyro", "zarr", "webdataset", "pytest", "onnx", "onnxruntime", "timm", "torchvision",
             "matplotlib", "liger_kernel", "yaml", "rich", "PIL"):
    sys.modules[name] = None
for step in {STEPS}:
    module = "softlabel.tools.gpu." + step
    sys.argv = [module, "--help"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as stop:
            assert not stop.code, step
    assert "usage: python -m " + module in said.getvalue(), step
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def fake_python(tmp_path):
    """A Python whose steps do nothing but be there; the one named fails."""

    def make(failing):
        path = tmp_path / "python"
        path.write_text(f'#!/bin/bash\n[[ $2 == *.{failing} ]] && exit 1\necho ran "$2"\nexit 0\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return {"PYTHON": str(path)}

    return make


@pytest.mark.parametrize("mode", [(), ("--dry-run",)])
def test_nothing_is_timed_where_correctness_is_red(mode, tmp_path, fake_python):
    done = suite(tmp_path / "out", *mode, **fake_python("correctness"))
    assert done.returncode == 1
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "== correctness" in log
    assert "benchmark" not in log
    assert "sweep" not in log


@pytest.mark.parametrize("failing", ["environment", "warm", "spills", "benchmark", "sweep"])
def test_another_step_that_fails_costs_its_own_figures_only(failing, tmp_path, fake_python):
    done = suite(tmp_path / "out", **fake_python(failing))
    assert done.returncode == 2
    assert f"failed: {failing}" in done.stdout
    log = (tmp_path / "out" / "log.txt").read_text()
    for name in set(STEPS) - {failing}:
        assert f"ran softlabel.tools.gpu.{name}" in log


def test_steps_that_all_pass_leave_exit_code_0(tmp_path, fake_python):
    assert suite(tmp_path / "out", **fake_python("none")).returncode == 0


def test_no_step_starts_after_the_time_is_up(tmp_path, fake_python):
    done = suite(tmp_path / "out", "--dry-run", SUITE_SECONDS="5", **fake_python("none"))
    assert done.returncode != 0
    assert "ran softlabel.tools.gpu.sweep" not in (tmp_path / "out" / "log.txt").read_text()


def test_jobs_that_fail_hang_or_die_cost_themselves_only():
    jobs = {"right": (4.0,), "wrong": (-1.0,)}
    deadline = time.monotonic() + 60
    found = dict(in_processes(math.sqrt, jobs, processes=2, deadline=deadline))
    assert found["right"] == 2.0
    assert isinstance(found["wrong"], ValueError)
    start = time.monotonic()
    jobs = {"hangs": (60,), "done": (0,)}
    found = dict(in_processes(time.sleep, jobs, processes=2, deadline=time.monotonic() + 5))
    assert isinstance(found["hangs"], TimeoutError)
    assert found["done"] is None
    assert isinstance(
        dict(in_processes(os._exit, {"dies": (3,)}, processes=1, deadline=start + 6))["dies"],
        TimeoutError,
    )
    assert time.monotonic() - start < 30


def test_a_step_without_a_gpu_says_so(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        parsed("softlabel.tools.gpu.sweep", None, ["--out", "x.json"])
    assert stop.value.code == 2
    assert "torch finds no GPU; --dry-run works without" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_does_every_step(tmp_path):
    done = suite(tmp_path / "out", "--dry-run")
    assert done.returncode == 0, done.stdout + (tmp_path / "out" / "log.txt").read_text()
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    names = ("correctness", "environment", "kernel", "linear", "spills", "sweep")
    assert files == sorted(["log.txt", *(f"{name}.json" for name in names)])
    found = {name: json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in names}
    assert found["correctness"]["green"] >= 28
    assert not found["correctness"]["red"]
    assert found["spills"]["variants"]
    assert not found["spills"]["failed"]
    for name in ("sweep", "kernel", "linear"):
        assert found[name]["results"], name
        assert not found[name]["unmeasured"], name
    assert "correctness: " in done.stdout
    assert "sweep 16x20" in done.stdout
