"""Flags, and everything that is refused before the first step."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from softlabel.shards.errors import IdentityError, SoftLabelError, UsageError
from softlabel.trainer.config import TrainConfig
from softlabel.trainer.plan import make_plan

PRELUDE = """
import sys
from softlabel.trainer import cli
sys.argv = ["kd-train", *sys.argv[1:]]
try:
    cli.main()
except SystemExit as stop:
    heavy = {"torch", "torchvision", "webdataset", "zarr", "onnxruntime"} & set(sys.modules)
    print("loaded:", *sorted(heavy))
    raise
"""


def kd_train(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE, *args], capture_output=True, text=True, check=False
    )


def flags(collection, tmp_path, **changes):
    fields = {
        "shards": tuple(map(str, collection.tars)),
        "labels": collection.labels,
        "student": "softlabel/small-cnn",
        "output": tmp_path / "out",
    }
    return {**fields, **changes}


def plan(collection, tmp_path, **changes):
    return make_plan(TrainConfig(**flags(collection, tmp_path, **changes)))


def refusal(collection, tmp_path, **changes) -> SoftLabelError:
    with pytest.raises(SoftLabelError) as error:
        plan(collection, tmp_path, **changes)
    assert "\n" not in str(error.value)
    return error.value


def test_help_needs_no_torch_and_is_fast():
    seconds = []
    for _ in range(3):
        start = time.process_time(), time.perf_counter()
        ended = kd_train("--help")
        seconds.append(time.perf_counter() - start[1])
    assert ended.returncode == 0
    assert "loaded:\n" in ended.stdout.replace("loaded: \n", "loaded:\n")
    assert "--kd-temperature" in ended.stdout
    # Half a second on an idle machine; other work here must not turn the test red.
    assert min(seconds) < 1.5


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--epochs", "2", "--steps", "3"), "--epochs or --steps, found both"),
        (("--batch-size", "0"), "--batch-size: wanted at least 1, found 0"),
        (("--lr", "-1"), "--lr: wanted a positive number"),
        (("--distill-loss-weight", "0"), "--task-loss-weight are both 0"),
        (("--tail", "nonsense"), "--tail"),
        (("--pad-head", "0"), "--pad-head: wanted at least 1, found 0"),
        (("--smoothing", "0.1"), "--smoothing is for class labels"),
    ],
)
def test_flags_that_cannot_be_right_are_one_line_and_exit_2(args, said):
    ended = kd_train("--shards", "x", "--labels", "y", "--student", "z", "--output", "o", *args)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert ended.stdout.strip() == "loaded:"


def test_shards_that_are_not_there_are_usage_errors_without_torch(collection):
    args = ("--labels", str(collection.labels), "--student", "softlabel/small-cnn", "--output", "o")
    ended = kd_train("--shards", "nowhere-{00..02}.tar", *args)
    assert ended.returncode == 2
    assert "3 of 3 tars not found" in ended.stderr
    assert "torch" not in ended.stdout


def test_numbers_that_are_not_positive_are_refused(collection, tmp_path):
    for changes in (
        {"kd_temperature": 0.0},
        {"kd_temperature": float("nan")},
        {"momentum": 1.0},
        {"weight_decay": -1.0},
        {"warmup_steps": -1},
        {"checkpoint_every": 0},
        {"smoothing": 1.0, "task_loss_weight": 1.0},
        {"seed": -1},
        {"opt": "sgd", "momentum": 0.0},
    ):
        with pytest.raises(ValueError, match=next(iter(changes)).replace("_", "-")):
            TrainConfig(**flags(collection, tmp_path, **changes))


def test_epochs_are_rounded_up_to_whole_steps(collection, tmp_path):
    config = TrainConfig(**flags(collection, tmp_path, epochs=3, batch_size=50))
    assert (config.num_steps(60), config.num_rows(60)) == (4, 180)
    config = TrainConfig(**flags(collection, tmp_path, steps=7, batch_size=50))
    assert (config.num_steps(60), config.num_rows(60)) == (7, 350)
    assert TrainConfig(**flags(collection, tmp_path)).num_rows(60) == 600


def test_a_folder_that_is_no_store_is_a_usage_error(collection, tmp_path):
    error = refusal(collection, tmp_path, labels=tmp_path)
    assert error.exit_code == 2
    assert "wanted a label store" in str(error)


@pytest.mark.parametrize("name", ["resnet18", "keras/thing", "no-such-folder"])
def test_a_kind_of_student_that_does_not_exist_is_refused(name, collection, tmp_path):
    error = refusal(collection, tmp_path, student=name)
    assert error.exit_code == 2
    assert f"--student {name}" in str(error)


def test_tars_that_the_store_has_never_heard_of_do_not_belong(
    collection, make_collection, tmp_path
):
    other = make_collection(tmp_path / "other", 1, 5)
    other.tars[0].rename(tmp_path / "other/u77.tar")
    error = refusal(collection, tmp_path, shards=(str(tmp_path / "other/u77.tar"),))
    assert error.exit_code == 4
    assert "u77.tar: the store has no labels for it" in str(error)


def test_a_tar_of_another_size_does_not_belong(make_collection, tmp_path):
    made = make_collection(tmp_path, 2, 5)
    with made.tars[1].open("ab") as file:
        file.write(bytes(10240))
    error = refusal(made, tmp_path)
    assert isinstance(error, IdentityError)
    assert "t01.tar: had 20,480 bytes when it was labelled, now it has 30,720" in str(error)


def test_an_incomplete_store_says_how_much_is_missing(make_collection, tmp_path):
    made = make_collection(tmp_path, 4, 6, pending=(1, 3))
    error = refusal(made, tmp_path)
    assert error.exit_code == 2
    assert "2 of 4 tars (about 12 rows) are not labelled yet" in str(error)
    assert "--allow-partial" in str(error)
    for consent in ({"allow_partial": True}, {"on_missing": "skip"}):
        settled = plan(made, tmp_path, **consent)
        assert settled.tars == (0, 2)
        assert settled.num_images == 12
        assert "left out: 2 tar(s) that are not labelled yet" in settled.notes


def test_what_is_not_asked_for_may_be_unlabelled(make_collection, tmp_path):
    made = make_collection(tmp_path, 3, 6, pending=(1,))
    assert plan(made, tmp_path, shards=(str(made.tars[0]), str(made.tars[2]))).tars == (0, 2)


def test_on_missing_skip_leaves_out_unknown_tars_but_never_all(make_collection, tmp_path):
    made = make_collection(tmp_path, 2, 6)
    stranger = shutil.copy(made.tars[0], tmp_path / "stranger.tar")
    shards = (*map(str, made.tars), str(stranger))
    assert refusal(made, tmp_path, shards=shards, allow_partial=True).exit_code == 4
    settled = plan(made, tmp_path, shards=shards, on_missing="skip")
    assert settled.tars == (0, 1)
    assert any("1 tar(s) unknown to the store" in note for note in settled.notes)
    error = refusal(made, tmp_path, shards=(str(stranger),), on_missing="skip")
    assert error.exit_code == 4
    assert "labels for none of the 1 tars" in str(error)


def test_a_store_without_a_single_usable_image_is_refused(make_collection, tmp_path):
    made = make_collection(tmp_path, 1, 3, bad={0: 3, 1: 3, 2: 3})
    assert "none of the 1 tars has a labelled image" in str(refusal(made, tmp_path))
    empty = make_collection(tmp_path / "b", 2, 3, pending=(0, 1))
    assert "2 of 2 tars are not labelled yet" in str(refusal(empty, tmp_path))


def test_a_temperature_below_the_smallest_stored_one_is_refused(collection, tmp_path):
    error = refusal(collection, tmp_path, kd_temperature=0.5)
    assert error.exit_code == 2
    assert "temperature 0.5 is below the smallest stored one, 1" in str(error)
    assert refusal(collection, tmp_path, kd_temperature=0.5, tail="truncate").exit_code == 2
    for tail in ("renorm", "subset"):
        plan(collection, tmp_path, kd_temperature=0.5, tail=tail)


def test_an_interpolated_temperature_says_its_error(collection, tmp_path):
    assert plan(collection, tmp_path, kd_temperature=2.0).notes == ()
    (note,) = plan(collection, tmp_path, kd_temperature=3.0).notes
    assert "interpolated from those stored (1, 2, 4)" in note
    assert "nats" in note


def test_several_processes_are_refused_in_one_line(collection, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "WORLD_SIZE is 2" in str(refusal(collection, tmp_path))
    monkeypatch.setenv("WORLD_SIZE", "1")
    plan(collection, tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shards": ("pipe:cat x.tar",)}, "can't be trained from"),
        ({"output": Path("s3://bucket/out")}, "wanted a local folder"),
        ({"resume": "no/such/checkpoint"}, "wanted auto, never or the folder of a checkpoint"),
    ],
)
def test_paths_that_cannot_be_right_are_usage_errors(changes, said, collection, tmp_path):
    error = refusal(collection, tmp_path, **changes)
    assert isinstance(error, UsageError)
    assert said in str(error)


def test_an_output_that_is_a_file_or_the_student_itself_is_refused(collection, tmp_path):
    (tmp_path / "file").write_text("x")
    assert "found a file" in str(refusal(collection, tmp_path, output=tmp_path / "file"))
    (tmp_path / "s").mkdir()
    (tmp_path / "s/config.json").write_text("{}")
    error = refusal(collection, tmp_path, output=tmp_path / "s", student=str(tmp_path / "s"))
    assert "is the student to begin from" in str(error)


def test_the_order_of_shards_does_not_matter_to_the_run(collection, tmp_path):
    one = plan(collection, tmp_path)
    two = plan(collection, tmp_path, shards=tuple(map(str, collection.tars[::-1])))
    assert one.tars == two.tars
    assert one.identity(student="x") == two.identity(student="x")
