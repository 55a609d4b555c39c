"""kd-train interrupted, killed and begun again: the same bits, or a refusal."""

import csv
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from softlabel.shards.hashing import sha256_of_file
from softlabel.trainer.checkpoint import STEPS


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def weights(output: Path) -> str:
    return sha256_of_file(output / "model.safetensors")


def test_rows_of_metrics_stand_at_the_interval_and_at_checkpoints(unbroken):
    assert [int(row["step"]) for row in rows(unbroken)] == [2, 3, 4, 6, 8, 9, 10, 12]


@pytest.mark.parametrize("step", [2, 4, 8, 11])
def test_a_run_killed_at_any_step_ends_with_the_same_bits(
    step, unbroken, collection, kd_train, tmp_path, arguments
):
    flags = arguments(collection, tmp_path / "s")
    assert kd_train(*flags, SOFTLABEL_KILL_AT=f"step-taken:{step}").code == -signal.SIGKILL
    ended = kd_train(*flags)
    assert ended.code == 0, ended.err
    assert (f"resumed after step {step // 3 * 3}" in ended.err) == (step > 3)
    assert weights(tmp_path / "s") == weights(unbroken)
    assert [row["step"] for row in rows(tmp_path / "s")] == [row["step"] for row in rows(unbroken)]
    same = [row["loss"] for row in rows(tmp_path / "s")]
    assert same == [row["loss"] for row in rows(unbroken)]


@pytest.mark.parametrize("point", [*STEPS, f"{STEPS[1]}:2", f"{STEPS[1]}:3"])
def test_a_run_killed_while_it_saves_ends_with_the_same_bits(
    point, unbroken, collection, kd_train, tmp_path, arguments
):
    """The second save: a whole checkpoint stands before it."""
    name, _, nth = point.partition(":")
    files = 3 if name == STEPS[1] else 1
    flags = arguments(collection, tmp_path / "s")
    killed = kd_train(*flags, SOFTLABEL_KILL_AT=f"{name}:{files + int(nth or 1)}")
    assert killed.code == -signal.SIGKILL
    ended = kd_train(*flags)
    assert ended.code == 0, ended.err
    assert "resumed after step" in ended.err
    assert weights(tmp_path / "s") == weights(unbroken)
    left = sorted(path.name for path in (tmp_path / "s/checkpoints").iterdir())
    assert left == ["step-00000009", "step-00000012"]


def test_a_torn_checkpoint_costs_steps_but_no_bits(
    unbroken, collection, kd_train, tmp_path, arguments
):
    flags = arguments(collection, tmp_path / "s")
    kd_train(*flags, SOFTLABEL_KILL_AT="step-taken:7")
    (tmp_path / "s/checkpoints/step-00000006/model.safetensors").write_bytes(b"torn")
    ended = kd_train(*flags)
    assert ended.code == 0
    assert "warning: left aside" in ended.err
    assert "resumed after step 3" in ended.err
    assert weights(tmp_path / "s") == weights(unbroken)


@pytest.mark.parametrize(
    "flags",
    [
        {"opt": "adamw", "lr": 0.001, "channels_last": None},
        {"views": 3, "workers": 1, "max_grad_norm": 0.5, "sched": "onecycle"},
        {"amp": "bf16", "augment": "crop-flip", "tail": "uniform", "kd_temperature": 2.0},
        {"task_loss_weight": 0.5, "opt": "momentum", "tail": "subset", "warmup_steps": 4},
        {"num_classes": 300, "opt": "adamw", "lr": 0.001, "tail": "truncate"},
    ],
    ids=["adamw", "views", "bf16", "task", "wider-head"],
)
def test_every_kind_of_run_resumes_exactly(flags, make_collection, kd_train, tmp_path, arguments):
    flags = dict(flags)
    store = {name: flags.pop(name) for name in ("views", "num_classes") if name in flags}
    recipe = "crop-flip" if "views" in store else "center"
    made = make_collection(tmp_path, 2, 15, view_recipe=recipe, **store)
    switches = ["--channels-last"] if "channels_last" in flags else []
    one = [*arguments(made, tmp_path / "one", **flags), *switches]
    two = [*arguments(made, tmp_path / "two", **flags), *switches]
    ended = kd_train(*one)
    assert ended.code == 0, ended.err
    assert kd_train(*two, SOFTLABEL_KILL_AT="step-taken:8").code == -signal.SIGKILL
    assert kd_train(*two).code == 0
    assert weights(tmp_path / "one") == weights(tmp_path / "two")


def test_dropout_draws_the_same_numbers_after_a_resume(collection, kd_train, tmp_path, arguments):
    (tmp_path / "dropping.py").write_text(
        "from torch import nn\n"
        "def make(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(768, num_classes))\n"
    )
    one, two = (
        arguments(collection, tmp_path / name, student="dropping:make") for name in ("one", "two")
    )
    environment = {"PYTHONPATH": str(tmp_path)}
    ended = kd_train(*one, **environment)
    assert ended.code == 0, ended.err
    assert kd_train(*two, SOFTLABEL_KILL_AT="step-taken:5", **environment).code == -signal.SIGKILL
    assert kd_train(*two, **environment).code == 0
    assert weights(tmp_path / "one") == weights(tmp_path / "two")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_checkpoint_and_the_rerun_completes(
    number, code, collection, kd_train, tmp_path, arguments
):
    output = tmp_path / "s"
    flags = arguments(collection, output, steps=150, checkpoint_every=1000, log_interval=1)

    def interrupt(pid: int) -> None:
        while not (output / "metrics.csv").is_file() or len(rows(output)) < 3:
            time.sleep(0.01)
        os.kill(pid, number)

    ended = kd_train(*flags, during=interrupt)
    assert ended.code == code
    step = len(rows(output))
    assert 3 <= step < 150
    assert f"interrupted after step {step} of 150" in ended.err
    ended = kd_train(*flags)
    assert ended.code == 0
    assert f"resumed after step {step}" in ended.err
    assert [int(row["step"]) for row in rows(output)] == list(range(1, 151))


def test_a_finished_run_has_nothing_left_to_do(unbroken, collection, kd_train, tmp_path, arguments):
    shutil.copytree(unbroken, tmp_path / "s")
    before = {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}
    ended = kd_train(*arguments(collection, tmp_path / "s"), SOFTLABEL_KILL_AT="step-taken:1")
    assert ended.code == 0
    assert {p: p.read_bytes() for p in (tmp_path / "s").rglob("*") if p.is_file()} == before


def test_another_config_is_refused_naming_the_fields(
    unbroken, collection, kd_train, tmp_path, arguments
):
    shutil.copytree(unbroken, tmp_path / "s")
    ended = kd_train(*arguments(collection, tmp_path / "s", lr=0.2, opt="adam", steps=20))
    assert ended.code == 4
    assert ended.err.count("\n") == 1
    for said in (
        "lr: wanted 0.2, the checkpoint has 0.1",
        "opt: wanted 'adam'",
        "steps: wanted 20",
    ):
        assert said in ended.err
    assert "batch_size" not in ended.err


def test_what_changes_no_weight_may_change_between_runs(
    unbroken, collection, kd_train, tmp_path, arguments
):
    flags = {"steps": None, "epochs": 2}
    first = arguments(collection, tmp_path / "s", **flags)
    kd_train(*first, SOFTLABEL_KILL_AT="step-taken:7")
    other = {"workers": 1, "checkpoint_every": 4, "log_interval": 5, "log_format": "json"}
    ended = kd_train(*arguments(collection, tmp_path / "s", **{**flags, **other}))
    assert ended.code == 0, ended.err
    assert weights(tmp_path / "s") == weights(unbroken)


def test_resume_never_starts_over_and_a_path_starts_there(
    unbroken, collection, kd_train, tmp_path, arguments
):
    shutil.copytree(unbroken, tmp_path / "s")
    flags = arguments(collection, tmp_path / "s")
    ended = kd_train(*flags, "--resume", str(tmp_path / "s/checkpoints/step-00000009"))
    assert ended.code == 0
    assert "resumed after step 9" in ended.err
    assert weights(tmp_path / "s") == weights(unbroken)
    ended = kd_train(*arguments(collection, tmp_path / "s", lr=0.2), "--resume", "never")
    assert ended.code == 0
    assert weights(tmp_path / "s") != weights(unbroken)
    assert [int(row["step"]) for row in rows(tmp_path / "s")] == [2, 3, 4, 6, 8, 9, 10, 12]


def test_a_run_begun_anew_and_killed_goes_on_by_itself(
    unbroken, collection, kd_train, tmp_path, arguments
):
    shutil.copytree(unbroken, tmp_path / "s")
    flags = arguments(collection, tmp_path / "s")
    assert kd_train(*flags, "--resume", "never", SOFTLABEL_KILL_AT="step-taken:1").code == -9
    assert kd_train(*flags).code == 0
    assert weights(tmp_path / "s") == weights(unbroken)
