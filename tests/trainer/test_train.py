"""kd-train as a whole: learning, resuming, refusing."""

import csv
import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest

from softlabel.shards.errors import UsageError
from softlabel.shards.hashing import sha256_of_file
from softlabel.shards.status import Status
from softlabel.trainer import checkpoint, stream
from softlabel.trainer.checkpoint import STEPS
from softlabel.trainer.config import TrainConfig
from softlabel.trainer.run import train
from softlabel.trainer.student_files import load_student


def config(collection, output, **flags):
    options = {"student": "softlabel/small-cnn", "batch_size": 10, "steps": 6, "device": "cpu"}
    return TrainConfig(
        shards=tuple(map(str, collection.tars)),
        labels=collection.labels,
        output=output,
        **{**options, **flags},
    )


def arguments(collection, output, **flags):
    options = {
        "shards": str(collection.tars[0].parent),
        "labels": str(collection.labels),
        "student": "softlabel/small-cnn",
        "output": str(output),
        "batch_size": 10,
        "steps": 12,
        "checkpoint_every": 3,
        "log_interval": 2,
        "device": "cpu",
    }
    given = {**options, **flags}
    pairs = [(f"--{k.replace('_', '-')}", str(v)) for k, v in given.items() if v is not None]
    return [part for pair in pairs for part in pair]


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def weights(output: Path) -> str:
    return sha256_of_file(output / "model.safetensors")


@pytest.fixture(scope="module")
def unbroken(collection, kd_train, tmp_path_factory) -> Path:
    """The folder of an uninterrupted run of `arguments`."""
    output = tmp_path_factory.mktemp("unbroken") / "s"
    ended = kd_train(*arguments(collection, output))
    assert ended.code == 0, ended.err
    return output


def test_the_loss_falls_and_the_student_agrees(make_collection, tmp_path):
    made = make_collection(tmp_path, 2, 32)
    train(config(made, tmp_path / "s", batch_size=16, steps=60, log_interval=10, lr=0.1))
    found = rows(tmp_path / "s")
    losses = [float(row["kd_loss"]) for row in found]
    assert losses[-1] < 0.3 * losses[0]
    assert float(found[-1]["agreement"]) > 0.8
    assert [int(row["step"]) for row in found] == [10, 20, 30, 40, 50, 60]
    assert float(found[-1]["epoch"]) == 15
    assert int(found[-1]["images"]) == 960


def test_class_labels_alone_teach_too(make_collection, tmp_path):
    made = make_collection(tmp_path, 2, 32)
    flags = {"distill_loss_weight": 0.0, "task_loss_weight": 1.0}
    train(config(made, tmp_path / "s", batch_size=16, steps=40, log_interval=10, lr=0.1, **flags))
    losses = [float(row["task_loss"]) for row in rows(tmp_path / "s")]
    assert losses[-1] < 0.5 * losses[0]
    assert {row["kd_loss"] for row in rows(tmp_path / "s")} == {"0"}


def test_the_output_is_a_student_with_card_and_provenance(unbroken, collection):
    student, found = load_student(unbroken)
    assert found.name == "softlabel/small-cnn"
    assert found.recipe.input_size == (3, 16, 16)
    assert found.recipe.mean == (0.5, 0.4, 0.3)
    assert found.training["store_id"] == collection.store.store_id
    assert found.training["teacher_sha256"] == "ab" * 32
    assert found.training["consistent"] is True
    assert found.training["steps"] == 12
    assert {"softlabel", "torch"} <= set(found.training["versions"])
    card = (unbroken / "README.md").read_text()
    assert collection.store.store_id in card
    assert "*consistent*" in card
    assert "tail rule bucket" in card
    assert sum(p.numel() for p in student.parameters()) > 60_000


def test_rows_of_metrics_stand_at_the_interval_and_at_checkpoints(unbroken):
    assert [int(row["step"]) for row in rows(unbroken)] == [2, 3, 4, 6, 8, 9, 10, 12]


@pytest.mark.parametrize("step", [2, 4, 8, 11])
def test_a_run_killed_at_any_step_ends_with_the_same_bits(
    step, unbroken, collection, kd_train, tmp_path
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
    point, unbroken, collection, kd_train, tmp_path
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


def test_a_torn_checkpoint_costs_steps_but_no_bits(unbroken, collection, kd_train, tmp_path):
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
        {"task_loss_weight": 0.5, "opt": "momentum", "tail": "renorm", "warmup_steps": 4},
    ],
    ids=["adamw", "views", "bf16", "task"],
)
def test_every_kind_of_run_resumes_exactly(flags, make_collection, kd_train, tmp_path):
    views = flags.pop("views", 1)
    recipe = "crop-flip" if views > 1 else "center"
    made = make_collection(tmp_path, 2, 15, views=views, view_recipe=recipe)
    switches = ["--channels-last"] if "channels_last" in flags else []
    one = [*arguments(made, tmp_path / "one", **flags), *switches]
    two = [*arguments(made, tmp_path / "two", **flags), *switches]
    ended = kd_train(*one)
    assert ended.code == 0, ended.err
    assert kd_train(*two, SOFTLABEL_KILL_AT="step-taken:8").code == -signal.SIGKILL
    assert kd_train(*two).code == 0
    assert weights(tmp_path / "one") == weights(tmp_path / "two")


def test_dropout_draws_the_same_numbers_after_a_resume(collection, kd_train, tmp_path):
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
    number, code, collection, kd_train, tmp_path
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


def test_a_finished_run_has_nothing_left_to_do(unbroken, collection, kd_train, tmp_path):
    shutil.copytree(unbroken, tmp_path / "s")
    before = {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}
    ended = kd_train(*arguments(collection, tmp_path / "s"), SOFTLABEL_KILL_AT="step-taken:1")
    assert ended.code == 0
    assert {p: p.read_bytes() for p in (tmp_path / "s").rglob("*") if p.is_file()} == before


def test_another_config_is_refused_naming_the_fields(unbroken, collection, kd_train, tmp_path):
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


def test_what_changes_no_weight_may_change_between_runs(unbroken, collection, kd_train, tmp_path):
    flags = {"steps": None, "epochs": 2}
    first = arguments(collection, tmp_path / "s", **flags)
    kd_train(*first, SOFTLABEL_KILL_AT="step-taken:7")
    other = {"workers": 1, "checkpoint_every": 4, "log_interval": 5, "log_format": "json"}
    ended = kd_train(*arguments(collection, tmp_path / "s", **{**flags, **other}))
    assert ended.code == 0, ended.err
    assert weights(tmp_path / "s") == weights(unbroken)


def test_resume_never_starts_over_and_a_path_starts_there(unbroken, collection, kd_train, tmp_path):
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


def test_a_run_begun_anew_and_killed_goes_on_by_itself(unbroken, collection, kd_train, tmp_path):
    shutil.copytree(unbroken, tmp_path / "s")
    flags = arguments(collection, tmp_path / "s")
    assert kd_train(*flags, "--resume", "never", SOFTLABEL_KILL_AT="step-taken:1").code == -9
    assert kd_train(*flags).code == 0
    assert weights(tmp_path / "s") == weights(unbroken)


def test_a_mirror_in_the_cloud_gives_the_same_bits(collection, tmp_path):
    system = fsspec.filesystem("memory")
    for tar in collection.tars:
        system.pipe(f"/mirror/{tar.name}", tar.read_bytes())
    urls = tuple(f"memory://mirror/{tar.name}" for tar in collection.tars[::-1])
    train(config(collection, tmp_path / "local"))
    settings = config(collection, tmp_path / "remote", cache_dir=tmp_path / "cache")
    train(replace(settings, shards=urls, cache_gb=1e-6))
    assert weights(tmp_path / "local") == weights(tmp_path / "remote")
    assert len(list((tmp_path / "cache").iterdir())) == 3
    system.rm("/mirror", recursive=True)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_learns_too(amp, make_collection, tmp_path):
    made = make_collection(tmp_path, 2, 16)
    train(config(made, tmp_path / "s", amp=amp, batch_size=16, steps=40, log_interval=10))
    losses = [float(row["kd_loss"]) for row in rows(tmp_path / "s")]
    assert losses[-1] < 0.7 * losses[0]


def test_a_student_without_checkpoints_is_not_written_over(collection, unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path / "s")
    shutil.rmtree(tmp_path / "s/checkpoints")
    with pytest.raises(UsageError, match="holds a student, but no whole checkpoint"):
        train(config(collection, tmp_path / "s"))


def test_a_students_folder_can_be_trained_on(collection, unbroken, tmp_path):
    train(config(collection, tmp_path / "s", student=str(unbroken), steps=1, lr=1e-9))
    before, _ = load_student(unbroken)
    after, found = load_student(tmp_path / "s")
    assert found.name == "softlabel/small-cnn"
    for one, other in zip(before.parameters(), after.parameters(), strict=True):
        assert np.allclose(one.detach(), other.detach(), atol=1e-6)


def test_own_augmentation_is_recorded_as_inconsistent(collection, tmp_path):
    train(config(collection, tmp_path / "s", augment="rrc-flip", steps=1))
    data = json.loads((tmp_path / "s/config.json").read_text())["softlabel"]["training"]
    assert (data["consistent"], data["augment"]) == (False, "rrc-flip")
    assert "*inconsistent*" in (tmp_path / "s/README.md").read_text()


def test_padding_of_the_last_batch_teaches_nothing(collection, tmp_path, monkeypatch):
    """60 images in batches of 50: of the second batch 40 images only fill it up."""
    flags = {"steps": None, "epochs": 1, "batch_size": 50, "task_loss_weight": 0.5}
    train(config(collection, tmp_path / "a", **flags))
    real, calls = stream.joined_rows, []

    def spoilt(pieces):
        rows = real(pieces)
        calls.append(len(rows))
        if len(calls) == 2:
            logits, targets = rows.topk_logit.copy(), rows.target.copy()
            logits[10:] = np.nan
            targets[10:] = (targets[10:] + 1) % 10
            rows = replace(rows, topk_logit=logits, target=targets)
        return rows

    monkeypatch.setattr(stream, "joined_rows", spoilt)
    train(config(collection, tmp_path / "b", **flags))
    assert calls == [50, 50]
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert [row["images"] for row in rows(tmp_path / "b")] == ["60"]


def test_images_that_could_not_be_labelled_are_left_out_and_said_so(
    make_collection, tmp_path, capsys
):
    made = make_collection(tmp_path, 2, 20, bad={3: Status.UNDECODABLE})
    train(config(made, tmp_path / "s", steps=None, epochs=1))
    assert "left out: 2 image(s) that could not be labelled" in capsys.readouterr().err
    assert rows(tmp_path / "s")[-1]["images"] == "38"


def test_divergence_ends_the_run_before_it_spoils_a_checkpoint(collection, tmp_path):
    with pytest.raises(UsageError, match="training diverged; use a smaller --lr"):
        train(config(collection, tmp_path / "s", lr=1e12, steps=30, checkpoint_every=5))
    for place in (tmp_path / "s/checkpoints").glob("*"):
        assert all(t.isfinite().all() for t in checkpoint.load(place).model.values())
