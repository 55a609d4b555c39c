"""kill -9 at any moment, then the same command again: the store is that of a run left alone."""

import json
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from softlabel.labeler.config import LabelConfig
from softlabel.shards.failpoints import STEPS
from softlabel.shards.invariants import problems, tree
from softlabel.shards.store import is_store, open_store

NUM_TARS, NUM_IMAGES = 8, 40
KILLS = 10
MUST_COUNT = 5
RECIPE = {
    "input_size": [3, 32, 32],
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "center",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "channels": "rgb",
}


# Run by `exec` in a child process, which could not import this module: tests are no package.
CHILD = """
import os
from softlabel.labeler.run import label

if kill_at is not None:
    os.environ["SOFTLABEL_KILL_AT"] = kill_at
raise SystemExit(label(config).exit_code)
"""


@pytest.fixture(scope="module")
def collection(tmp_path_factory, write_tar, encode_image) -> Path:
    folder = tmp_path_factory.mktemp("tars")
    for t in range(NUM_TARS):
        files = [(f"{t}/{i:03d}.png", encode_image(t * 100 + i)) for i in range(NUM_IMAGES)]
        write_tar(folder / f"t{t}.tar", files)
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """It takes some milliseconds a batch, so that kills can hit."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(0, 0.5, (64, 3, 3, 3)), "v": rng.normal(0, 0.5, (50, 64, 3, 3))}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("Conv", ["r", "v"], ["d"], pads=[1, 1, 1, 1]),
            helper.make_node("GlobalAveragePool", ["d"], ["p"]),
            helper.make_node("Flatten", ["p"], ["logits"]),
        ],
        "teacher",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 50])],
        [numpy_helper.from_array(value.astype("f4"), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.metadata_props.add(key="softlabel.recipe", value=json.dumps(RECIPE))
    path = tmp_path_factory.mktemp("teacher") / "teacher.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def config(collection, teacher, tmp_path_factory):
    """Name of the store -> the run that makes it."""
    folder = tmp_path_factory.mktemp("stores")
    cache = os.environ.get("SOFTLABEL_CACHE")
    os.environ["SOFTLABEL_CACHE"] = str(folder / "cache")

    def make(name: str) -> LabelConfig:
        return LabelConfig(
            teacher=teacher,
            shards=(str(collection),),
            out=folder / name,
            decoder="pillow",
            workers=1,
            batch_size="8",
        )

    yield make
    if cache is None:
        del os.environ["SOFTLABEL_CACHE"]
    else:
        os.environ["SOFTLABEL_CACHE"] = cache


@pytest.fixture(scope="module")
def start():
    """(config, kill_at) -> a child that labels; imports are paid once, in a server that forks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["softlabel.labeler.run", "PIL.PngImagePlugin"])

    def go(config: LabelConfig, kill_at: str | None = None) -> BaseProcess:
        process = context.Process(target=exec, args=(CHILD, {"config": config, "kill_at": kill_at}))
        process.start()
        return process

    return go


def num_commits(path: Path) -> int:
    return len(list((path / "commits").glob("*.json"))) if is_store(path) else 0


def wait_for_commits(path: Path, count: int, process: BaseProcess) -> None:
    while process.is_alive() and num_commits(path) < count:
        time.sleep(0.001)


def finish(start, config: LabelConfig) -> dict[str, bytes]:
    process = start(config)
    process.join(60)
    assert process.exitcode == 0
    return tree(config.out)


@pytest.fixture(scope="module")
def whole(config, start) -> dict[str, bytes]:
    """The store of a run left alone."""
    return finish(start, config("whole"))


def seconds_between_commits(start, config: LabelConfig) -> float:
    """From the first commit of a run left alone to its last."""
    process = start(config)
    wait_for_commits(config.out, 1, process)
    first = time.monotonic()
    wait_for_commits(config.out, NUM_TARS, process)
    seconds = time.monotonic() - first
    process.join(60)
    return seconds


def test_random_kills_lose_nothing_and_double_nothing(config, start, whole):
    chance = random.Random(11)
    between_s = seconds_between_commits(start, config("timed"))
    counted = 0
    for attempt in range(KILLS):
        killed = config(f"killed{attempt}")
        process = start(killed)
        wait_for_commits(killed.out, 1, process)
        time.sleep(chance.uniform(0, 0.8 * between_s))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        # A kill counts only between the first and the last commit.
        counted += 0 < num_commits(killed.out) < NUM_TARS
        assert not [p for p in problems(open_store(killed.out)) if ".tmp" not in p]
        assert finish(start, killed) == whole
        assert not list(problems(open_store(killed.out)))
    assert counted >= MUST_COUNT, f"only {counted} of {KILLS} kills hit between two commits"


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_each_step_of_a_commit_leaves_the_store_resumable(config, start, whole, step):
    killed = config(f"killed-{step}")
    nth = {"array-written": 40, "data-synced": 4, "temporary-synced": 4, "linked": 4}.get(step, 3)
    process = start(killed, f"{step}:{nth}")
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert 0 < num_commits(killed.out) < NUM_TARS
    assert finish(start, killed) == whole


def test_a_kill_while_the_store_is_being_made_leaves_it_to_be_made(config, start, whole):
    for step in ("data-synced:1", "array-written:5", "temporary-synced:1", "linked:1"):
        killed = config(f"making-{step}")
        process = start(killed, step)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert finish(start, killed) == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_finishes_the_tar_and_says_that_a_rerun_goes_on(
    config, start, whole, number
):
    stopped = config(f"stopped-{number}")
    process = start(stopped)
    wait_for_commits(stopped.out, 2, process)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 128 + number
    assert 2 <= num_commits(stopped.out) < NUM_TARS
    assert not list(problems(open_store(stopped.out)))
    assert finish(start, stopped) == whole


def test_two_processes_on_one_store_commit_each_tar_once(config, start, whole):
    shared = config("shared")
    both = [start(shared), start(shared)]
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert tree(shared.out) == whole
