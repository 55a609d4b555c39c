"""Checkpoints by themselves: whole or not there."""

import json

import pytest
import torch

from softlabel.shards.errors import IdentityError, MachineError, StoreError, UsageError
from softlabel.trainer import checkpoint
from softlabel.trainer.checkpoint import Checkpoint


def made(step, **changes):
    generator = torch.Generator().manual_seed(step)
    fields = {
        "step": step,
        "identity": {"lr": 0.1, "shards": 3},
        "threads": 1,
        "model": {"weight": torch.randn(3, 4, generator=generator), "count": torch.tensor(step)},
        "optimiser_tensors": {"0.momentum_buffer": torch.randn(3, 4, generator=generator)},
        "optimiser_numbers": {"1.momentum_buffer": None, "1.step": 3},
        "scaler": {"scale": 65536.0},
    }
    return Checkpoint(**{**fields, **changes})


def assert_equal(a, b):
    assert (a.step, a.identity, a.threads) == (b.step, b.identity, b.threads)
    assert (a.optimiser_numbers, a.scaler) == (b.optimiser_numbers, b.scaler)
    for one, other in ((a.model, b.model), (a.optimiser_tensors, b.optimiser_tensors)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    checkpoint.save(tmp_path, made(7))
    found, problems = checkpoint.newest(tmp_path)
    assert_equal(found, made(7))
    assert problems == []


def test_the_last_two_are_kept(tmp_path):
    for step in (5, 900, 10_000, 20_000_000_0):
        checkpoint.save(tmp_path, made(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00010000", "step-200000000"]
    assert checkpoint.newest(tmp_path)[0].step == 200_000_000


def test_without_checkpoints_there_is_none(tmp_path):
    assert checkpoint.newest(tmp_path / "missing") == (None, [])
    with pytest.raises(UsageError, match="wanted a checkpoint"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("how", ["cut", "flipped", "missing", "empty"])
def test_a_torn_checkpoint_is_left_aside_for_the_one_before(name, how, tmp_path):
    checkpoint.save(tmp_path, made(1))
    checkpoint.save(tmp_path, made(2))
    path = tmp_path / "step-00000002" / name
    data = path.read_bytes()
    path.unlink()
    if how != "missing":
        flipped = data[:-9] + bytes([data[-9] ^ 4]) + data[-8:]
        path.write_bytes({"cut": data[: len(data) // 2], "flipped": flipped, "empty": b""}[how])
    found, problems = checkpoint.newest(tmp_path)
    assert_equal(found, made(1))
    assert len(problems) == 1
    assert "step-00000002" in problems[0]
    checkpoint.save(tmp_path, made(2))
    assert checkpoint.newest(tmp_path)[0].step == 2


def test_a_record_of_another_release_is_said_to_be_that(tmp_path):
    checkpoint.save(tmp_path, made(1))
    from softlabel.shards.sealed import seal, unseal

    path = tmp_path / "step-00000001/checkpoint.json"
    content = unseal(path.read_bytes(), name="x")
    path.write_bytes(seal({**content, "news": 1}))
    with pytest.raises(StoreError, match="another release"):
        checkpoint.load(path.parent)


def test_leftovers_of_killed_writers_go_with_the_next_save(tmp_path):
    (tmp_path / "step-00000001.99.tmp").mkdir()
    (tmp_path / "step-00000001.99.tmp/model.safetensors").write_bytes(b"x")
    checkpoint.save(tmp_path, made(1))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_another_run_is_refused_with_each_field_that_differs():
    with pytest.raises(IdentityError) as error:
        checkpoint.refuse_other_run(
            {"lr": 0.1, "opt": "sgd", "old": 1}, {"lr": 0.2, "opt": "sgd"}, place="p"
        )
    assert "lr: wanted 0.2, the checkpoint has 0.1" in str(error.value)
    assert "old: wanted None, the checkpoint has 1" in str(error.value)
    assert "opt" not in str(error.value)


def test_a_full_disk_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(
        checkpoint, "_write", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(MachineError, match="can't write a checkpoint: No space left"):
        checkpoint.save(tmp_path, made(1))


def test_the_record_holds_nothing_but_plain_json(tmp_path):
    checkpoint.save(tmp_path, made(1))
    record = json.loads((tmp_path / "step-00000001/checkpoint.json").read_text())
    assert record["step"] == 1
    assert set(record["files"]) == {"model.safetensors", "optimiser.safetensors"}
