"""kd-store on a store that kd-label's own parts have written."""

import json

import numpy as np
import pytest

from softlabel.shards import commandline
from softlabel.shards.hashing import image_hash, key_hash
from softlabel.shards.schema import Manifest
from softlabel.shards.store import Store
from softlabel.tools import store_cli

CLASSES = ("cat", "dog", "owl", "fox")


@pytest.fixture
def store(tmp_path, write_tar, encode_image) -> Store:
    """Two members with four classes, top 2 stored; the second could not be decoded."""
    good, bad = encode_image(0), b"no image"
    tar = write_tar(tmp_path / "t0.tar", [("d/a.png", good), ("d/b.png", bad)])
    manifest = Manifest(
        teacher_sha256="ab" * 32,
        teacher_output="logits",
        teacher_output_kind="logits",
        recipe={"input_size": [3, 32, 32]},
        decoder="pillow",
        max_image_pixels=10**6,
        image_ext=("png",),
        provider="cpu",
        views=1,
        view_recipe="center",
        view_seed=0,
        top_k=2,
        temperatures=(1.0, 4.0),
        num_classes=4,
        class_names=CLASSES,
        rows_per_tar=256,
    )
    # Probabilities 0.5, 0.25, 0.15 and 0.1 of owl, cat and the two that are not stored.
    z = np.log([0.5, 0.25, 0.15, 0.1])
    d = z - z[0]
    rows = {
        "topk_logit": np.zeros((2, 1, 2), np.float16),
        "topk_class": np.zeros((2, 1, 2), np.uint16),
        "tail_lse": np.zeros((2, 1, 2), np.float32),
        "max_logit": np.zeros((2, 1), np.float32),
        "status": np.array([1, 3], np.uint8),
        "key_hash": np.array([key_hash("d/a"), key_hash("d/b")], np.uint64),
        "image_hash": np.array([image_hash(good), image_hash(bad)], np.uint64),
        "offset": np.array([512, 1536 + -(-len(good) // 512) * 512 - 512], np.uint64),
        "size": np.array([len(good), len(bad)], np.uint32),
        "target": np.array([2, -1], np.int32),
    }
    rows["topk_logit"][0, 0] = d[:2]
    rows["topk_class"][0, 0] = [2, 0]
    rows["tail_lse"][0, 0] = [np.log(np.exp(d[2:] / t).sum()) for t in (1.0, 4.0)]
    made = Store.create(tmp_path / "labels.zarr", manifest, [str(tar)])
    made.write(0, rows, tar_size=tar.stat().st_size, tar_sha256="0" * 64)
    return made


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as stop:
        commandline.main("kd-store", store_cli.DESCRIPTION, store_cli.Command, store_cli.run, argv)
    return int(stop.value.code or 0)


def test_stats_are_those_of_the_labels(store, capsys):
    assert run("stats", str(store.path), "--json") == 0
    stats = json.loads(capsys.readouterr().out)
    assert stats["status"] == {"ok": 1, "undecodable": 1}
    assert (stats["members"], stats["with_target"], stats["labelled_tars"]) == (2, 1, 1)
    labels = stats["labels"]
    assert labels["mean_p1"] == pytest.approx(0.5, abs=1e-3)
    assert labels["mean_tail"]["1"] == pytest.approx(0.25, abs=1e-3)
    q = np.array([0.5, 0.25, 0.15, 0.1]) ** 0.25
    assert labels["mean_tail"]["4"] == pytest.approx(q[2:].sum() / q.sum(), abs=1e-3)
    assert stats["classes"]["most_frequent"] == {"owl": 1.0}
    assert stats["classes"]["effective_number"] == pytest.approx(1.0)
    assert run("stats", str(store.path)) == 0
    said = capsys.readouterr().out
    for words in ("2: 1 ok, 1 undecodable", "owl 100.0%", "25.00% at 1", "raw 53"):
        assert words in said, said


def test_a_healthy_store_verifies_and_a_damaged_one_is_exit_code_6(store, capsys):
    assert run("verify", str(store.path)) == 0
    assert "1 committed tars checked, 0 pending, 0 problem(s)" in capsys.readouterr().out
    file = store.path / "topk_logit/c.0.0.0.0"
    file.write_bytes(file.read_bytes()[:-1])
    assert run("verify", str(store.path), "--json") == 6
    assert "topk_logit" in json.loads(capsys.readouterr().out)["problems"][0]


@pytest.mark.parametrize("which", [("--key", "d/a"), ("--row", "0,0")])
def test_show_gives_classes_by_name_with_their_probabilities(store, capsys, which):
    assert run("show", str(store.path), *which) == 0
    said = capsys.readouterr().out
    assert "owl 0.500, cat 0.250; tail 2.50e-01" in said
    assert "target 2" in said


def test_show_writes_the_picture_that_was_labelled(store, tmp_path, encode_image, capsys):
    picture = tmp_path / "out.png"
    assert run("show", str(store.path), "--row", "0,0", "--picture", str(picture)) == 0
    assert picture.read_bytes() == encode_image(0)
    assert str(picture) in capsys.readouterr().out


def test_show_draws_in_a_terminal(encode_image):
    from softlabel.tools.store_show import terminal_picture

    lines = terminal_picture(encode_image(0)).splitlines()
    assert len(lines) == 16
    assert all(line.count("▀") == 32 and line.endswith("\x1b[0m") for line in lines)


def test_show_of_a_tar_packed_anew_is_exit_code_4(store, tmp_path, capsys):
    tar = tmp_path / "t0.tar"
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(data)
    assert run("show", str(store.path), "--row", "0,0") == 4
    assert "packed anew" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--key", "nobody"), "no labelled member has it"),
        (("--row", "0,2"), "there are 2 rows"),
        (("--row", "7,0"), "there are 1 tars"),
        (("--row", "x"), "wanted T,R"),
        ((), "--key K and --row"),
    ],
)
def test_show_of_what_is_not_there_is_exit_code_2(store, capsys, argv, message):
    assert run("show", str(store.path), *argv) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_store_is_exit_code_2(tmp_path, capsys):
    assert run("verify", str(tmp_path)) == 2
    assert "wanted a label store" in capsys.readouterr().err
