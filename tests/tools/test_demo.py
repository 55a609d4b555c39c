"""The demo's parts without its data; tests/e2e/test_demo.py runs the whole on real images."""

import json
import sys

import pytest

from softlabel.labeler.config import LabelConfig
from softlabel.shards import commandline
from softlabel.shards.errors import UsageError
from softlabel.tools.demo import commands, story
from softlabel.tools.demo.settings import DemoConfig
from softlabel.tools.demo.stages import StageTimes
from softlabel.tools.evaluate.config import EvalConfig
from softlabel.trainer.config import TrainConfig


def parsed(command: list[str], config: type):
    return commandline.parse(command[0], "", config, command[1:])


def test_every_command_of_the_demo_parses_and_says_what_the_story_says(tmp_path):
    demo = DemoConfig(folder=tmp_path, views=3, steps=7, seed=5)
    teacher = tmp_path / "t.onnx"
    train = parsed(commands.label_train(demo, teacher), LabelConfig)
    assert (train.views, train.view_recipe, train.seed) == (3, "crop-flip", 5)
    assert train.shards == (str(demo.train_tars),)
    assert parsed(commands.label_test(demo, teacher), LabelConfig).views == 1
    parsed(commands.label_labelled(demo, teacher), LabelConfig)
    student = parsed(commands.train_student(demo), TrainConfig)
    baseline = parsed(commands.train_baseline(demo), TrainConfig)
    # The student never sees a true class; the baseline sees nothing of the teacher.
    assert (student.task_loss_weight, student.distill_loss_weight) == (0, 1)
    assert (baseline.task_loss_weight, baseline.distill_loss_weight) == (1, 0)
    assert student.shards == (str(demo.train_tars),)
    assert baseline.shards == (str(demo.labelled_tars),)
    blind = parsed(commands.train_blind(demo), TrainConfig)
    assert blind.shards == (str(demo.foreign_tars),) != student.shards
    assert blind.labels == demo.foreign_labels
    assert parsed(commands.label_foreign(demo, teacher), LabelConfig).shards == blind.shards
    assert blind.task_loss_weight == 0
    for field in ("steps", "batch_size", "lr", "kd_temperature", "student", "seed"):
        assert getattr(blind, field) == getattr(student, field), field
    assert parsed(commands.evaluate_blind(demo), EvalConfig).student == demo.blind
    for field in ("steps", "batch_size", "lr", "sched", "opt", "student", "seed", "weight_decay"):
        assert getattr(student, field) == getattr(baseline, field), field
    assert parsed(commands.evaluate(demo), EvalConfig).control == demo.baseline


def test_a_second_run_goes_on_and_fresh_starts_over(tmp_path, capsys):
    demo = DemoConfig(folder=tmp_path / "d")
    story._settle(demo)
    (demo.folder / "kept").write_text("")
    story._settle(demo)
    assert "going on" in capsys.readouterr().out
    assert (demo.folder / "kept").exists()
    with pytest.raises(UsageError, match="--fresh"):
        story._settle(DemoConfig(folder=demo.folder, steps=3))
    story._settle(DemoConfig(folder=demo.folder, steps=3, fresh=True))
    assert not (demo.folder / "kept").exists()


def test_a_folder_of_someone_elses_is_left_alone_even_by_fresh(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    for fresh in (False, True):
        with pytest.raises(UsageError, match="found files"):
            story._settle(DemoConfig(folder=tmp_path, fresh=fresh))
    assert (tmp_path / "thesis.tex").exists()


def test_an_interrupted_stage_is_not_done_and_its_seconds_add_up(tmp_path):
    path = tmp_path / "stages.json"
    with pytest.raises(KeyboardInterrupt), StageTimes(path).stage("label"):
        raise KeyboardInterrupt
    assert json.loads(path.read_text())["label"]["done"] is False
    for done_before in (False, True):
        with StageTimes(path).stage("label") as done:
            assert done is done_before
    assert list(StageTimes(path).seconds()) == ["label"]


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """kd-a ends with the exit code it is given; kd-b waits long."""
    scripts = {"kd-a": "import sys; print('hello'); sys.exit(int(sys.argv[2]))"}
    scripts["kd-b"] = "import time; time.sleep(60)"
    for name, text in scripts.items():
        path = tmp_path / name
        path.write_text(f"#!{sys.executable}\n{text}\n")
        path.chmod(0o755)
    monkeypatch.setattr(commands.sys, "executable", str(tmp_path / "python"))


def test_a_failed_command_stops_the_others_and_gives_its_exit_code(programs, capsys):
    with pytest.raises(commands.StageFailedError) as error:
        commands.run(["kd-b", "--output", "b"], ["kd-a", "--output", "5"])
    assert error.value.exit_code == 5
    said = capsys.readouterr().out
    assert "$ kd-a --output 5" in said
    assert "5        | hello" in said
