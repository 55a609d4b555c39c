"""kd-train on a weighted stream, and on with a student: what it says, reads, and ends with."""

import json
import re
import signal

import numpy as np
import pytest

from softlabel.shards.errors import IdentityError, UsageError
from softlabel.shards.hashing import sha256_of_file
from softlabel.trainer.config import TrainConfig
from softlabel.trainer.plan import make_plan
from softlabel.trainer.run import train_plan
from softlabel.trainer.tar_files import TarFiles


def config(collection, output, **changes):
    fields = {
        "shards": tuple(map(str, collection.tars)),
        "labels": collection.labels,
        "student": "softlabel/small-cnn",
        "output": output,
        "batch_size": 10,
        "steps": 12,
        "device": "cpu",
        "log_format": "json",
    }
    return TrainConfig(**{**fields, **changes})


def weights(output):
    return sha256_of_file(output / "model.safetensors")


@pytest.mark.parametrize(
    "flags",
    [
        {"sample": "balanced", "workers": 1},
        {"sample": "balanced", "importance_correct": None, "source_by": "tar"},
        {"source_weight": "t=2", "confidence_beta": 2, "confidence_score": "entropy"},
    ],
    ids=["balanced", "corrected", "confidence"],
)
def test_a_weighted_run_killed_and_begun_again_ends_with_the_same_bits(
    flags, collection, kd_train, tmp_path, arguments
):
    switches = ["--importance-correct"] if "importance_correct" in flags else []
    one = [*arguments(collection, tmp_path / "one", **flags), *switches]
    two = [*arguments(collection, tmp_path / "two", **{**flags, "workers": 2}), *switches]
    ended = kd_train(*one)
    assert ended.code == 0, ended.err
    assert kd_train(*two, SOFTLABEL_KILL_AT="step-taken:8").code == -signal.SIGKILL
    assert kd_train(*two).code == 0
    assert weights(tmp_path / "one") == weights(tmp_path / "two")


def test_tars_of_a_source_without_weight_are_not_read(collection, tmp_path, monkeypatch):
    seen = set()
    real = TarFiles.read

    def read(self, tar, offset, size):
        seen.add(tar)
        return real(self, tar, offset, size)

    monkeypatch.setattr(TarFiles, "read", read)
    wanted = config(collection, tmp_path / "s", source_by="tar", source_weight=("t01.tar=0",))
    plan = make_plan(wanted)
    (note,) = [line for line in plan.notes if "not read" in line]
    size = collection.tars[1].stat().st_size / 1e6
    assert f"1 of 3 tars ({size:,.1f} MB of " in note
    assert plan.num_images == 40
    train_plan(plan)
    assert seen == {0, 2}


def test_repeats_show_the_next_views_and_rows_carry_their_factors(make_collection, tmp_path):
    from softlabel.trainer.assembly import make_loader

    made = make_collection(tmp_path, 2, 30, view_recipe="crop-flip", views=3)
    plan = make_plan(config(made, tmp_path / "s", sample="balanced", importance_correct=True))
    times, factor = plan.sampler.repeats(0, 0)
    assert times.max() > 1
    rows = make_loader(plan).labels.rows(0, epoch=0)
    assert len(rows) == times.sum()
    assert np.array_equal(rows.member, np.repeat(np.arange(30), times))
    assert np.array_equal(rows.weight, np.repeat(factor, times))
    most = int(times.argmax())
    views = rows.view[rows.member == most]
    assert len(set(views.tolist())) == min(3, times[most])


def test_repeats_under_own_augmentation_differ_and_agreement_stays_a_share(
    make_collection, tmp_path
):
    from softlabel.trainer.assembly import make_loader
    from softlabel.trainer.loading import Loaded, Piece, joined_numbers
    from softlabel.trainer.metrics import last_row

    made = make_collection(tmp_path, 2, 30)
    wanted = config(
        made, tmp_path / "s", sample="balanced", augment="crop-flip", importance_correct=True
    )
    plan = make_plan(wanted)
    rows = make_loader(plan).labels.rows(0, epoch=0)
    piece = Piece(Loaded(0, 0, rows, [b""] * len(rows)), 0, len(rows))
    numbers = joined_numbers([piece], replay=False)
    shown = list(zip(rows.member.tolist(), numbers.tolist(), strict=True))
    assert len(set(shown)) == len(shown) > len(set(rows.member.tolist()))
    train_plan(plan)
    assert 0 <= float(last_row(tmp_path / "s/metrics.csv")["agreement"]) <= 1


def test_the_plan_is_said_before_training_and_by_dry_run(collection, kd_train, tmp_path, arguments):
    flags = arguments(collection, tmp_path / "s", sample="balanced", source_by="tar")
    said = kd_train(*flags, "--dry-run")
    assert said.code == 0, said.err
    assert said.out.startswith("would train softlabel/small-cnn into ")
    assert "class balance, gamma 1 falling to 0 over the first 50% of 12 steps" in said.out
    assert re.search(r"t01\.tar: 20 images, 33\.3% of the pool, \d", said.out)
    assert not (tmp_path / "s").exists()
    assert "class balance, gamma 1" in kd_train(*flags).err


def test_confidence_says_that_it_was_measured_to_hurt(collection, tmp_path):
    plan = make_plan(config(collection, tmp_path / "s", confidence_beta=3.0))
    assert any("warning: --confidence-beta" in line for line in plan.notes)
    quiet = make_plan(config(collection, tmp_path / "s", sample="balanced"))
    assert not any("warning" in line for line in quiet.notes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source_weight": ("nowhere=1",)}, "--source-weight nowhere=1: wanted classes or NAME=W"),
        ({"source_weight": ("t=x",)}, "wanted a number from 0"),
        ({"source_weight": ("t=-1",)}, "wanted a number from 0"),
        ({"source_weight": ("t=0",)}, "leaves no source with an image"),
        ({"source_weight": ("classes", "t=1")}, "found both"),
        ({"source_weight": ("t=1e308",)}, "wanted a number from 0 to 1,000,000"),
        ({"source_weight": ("t=2", "t=3")}, "found twice: t"),
        ({"sample": "balanced", "source_by": "key:nomatch"}, "matches no image of 3 tar(s)"),
        ({"sample": "balanced", "source_by": "path:xyz"}, "matches none of the 3 tars"),
        ({"sample": "balanced", "source_by": "path:"}, "the pattern is empty"),
    ],
)
def test_weights_that_mean_nothing_are_usage_errors(changes, said, collection, tmp_path):
    with pytest.raises(UsageError, match=re.escape(said)):
        make_plan(config(collection, tmp_path / "s", **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"importance_correct": True},
        {"balance_gamma": -1.0},
        {"sample": "balanced", "balance_gamma": 300.0},
        {"sample": "balanced", "balance_gamma": 0.0},
        {"balance_gamma": 2.0},
        {"confidence_beta": 1e5},
        {"confidence_score": "energy"},
        {"source_by": "tar"},
        {"balance_anneal": 0.0},
        {"balance_anneal": 1.5},
        {"confidence_beta": float("nan")},
        {"student": None},
    ],
)
def test_flags_that_cannot_be_right_are_refused(changes, collection, tmp_path):
    with pytest.raises(ValueError, match="--"):
        config(collection, tmp_path / "s", **changes)


def test_weights_by_classes_are_the_share_of_classes_a_source_covers(collection, tmp_path):
    wanted = config(collection, tmp_path / "s", source_by="tar", source_weight=("classes",))
    sampler = make_plan(wanted).sampler
    for number, count in enumerate(sampler.pool.count):
        share = count[count > 0] / count.sum()
        effective = np.exp(-(share * np.log(share)).sum())
        assert sampler.weighting.source_weight[number] == pytest.approx(effective / 10)


def test_a_student_goes_on_with_other_images_and_says_where_it_comes_from(
    collection, unbroken, make_collection, kd_train, tmp_path, arguments
):
    few = make_collection(tmp_path / "few", 1, 10)
    flags = arguments(few, tmp_path / "s", student=None, init=unbroken, steps=4, lr=0.001)
    ended = kd_train(*flags)
    assert ended.code == 0, ended.err
    training = json.loads((tmp_path / "s/config.json").read_text())["softlabel"]["training"]
    assert training["init"]["weights_sha256"] == weights(unbroken)
    assert training["init"]["steps"] == 12
    assert training["lr"] == 0.001
    assert weights(tmp_path / "s") != weights(unbroken)
    again = kd_train(*arguments(few, tmp_path / "t", student=str(unbroken), steps=4, lr=0.001))
    assert again.code == 0, again.err
    assert weights(tmp_path / "t") == weights(tmp_path / "s")


def test_init_begins_from_the_very_weights(collection, unbroken, tmp_path):
    from safetensors.torch import load_file

    from softlabel.trainer.first_weights import make_student

    plan = make_plan(config(collection, tmp_path / "s", student=None, init=unbroken))
    first = make_student(plan).module.state_dict()
    for name, tensor in load_file(unbroken / "model.safetensors").items():
        assert (first[name] == tensor).all()


def test_init_and_student_must_be_of_one_kind(collection, unbroken, tmp_path):
    from softlabel.trainer.first_weights import make_student

    plan = make_plan(config(collection, tmp_path / "s", init=unbroken))
    assert make_student(plan).name == "softlabel/small-cnn"
    other = config(collection, tmp_path / "s", init=unbroken, student="torchvision/resnet18")
    with pytest.raises(IdentityError, match="is a softlabel/small-cnn, --student asks for"):
        make_student(make_plan(other))
    both = config(collection, tmp_path / "s", init=unbroken, student=str(unbroken))
    with pytest.raises(UsageError, match="give one of the two"):
        make_plan(both)
    with pytest.raises(UsageError, match="wanted the folder of a student, found none"):
        make_plan(config(collection, tmp_path / "s", init=tmp_path))
