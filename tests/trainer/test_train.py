"""kd-train as a whole: what a run learns, and what it leaves behind."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest

from softlabel.shards.errors import UsageError
from softlabel.shards.hashing import sha256_of_file
from softlabel.shards.status import Status
from softlabel.trainer import checkpoint, stream
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


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def weights(output: Path) -> str:
    return sha256_of_file(output / "model.safetensors")


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
