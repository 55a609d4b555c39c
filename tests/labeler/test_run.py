"""kd-label as a user runs it: on tars of images, with a teacher that costs next to nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from PIL import Image

from softlabel.labeler.cli import main
from softlabel.labeler.config import LabelConfig
from softlabel.labeler.run import label
from softlabel.shards.hashing import image_hash, key_hash
from softlabel.shards.invariants import problems, tree
from softlabel.shards.status import Status
from softlabel.shards.store import Store, open_store
from softlabel.shards.views import view

SIZE, CLASSES = 16, 40
RECIPE = {
    "input_size": [3, SIZE, SIZE],
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "center",
    "mean": [0.5, 0.4, 0.3],
    "std": [0.25, 0.2, 0.3],
    "channels": "rgb",
}


@pytest.fixture
def teacher(write_model: Callable[..., Path]) -> Callable[..., Path]:
    """(seed, ...) -> a small convolutional classifier with its recipe in its metadata."""

    def make(seed: int = 0, *, name: str = "teacher.onnx", **changes: Any) -> Path:
        rng = np.random.default_rng(seed)
        settings: dict[str, Any] = {
            "inputs": [("x", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
            "outputs": [("logits", TensorProto.FLOAT, ["N", CLASSES])],
            "weights": {
                "w": rng.normal(0, 0.5, (16, 3, 3, 3)).astype("f4"),
                "g": rng.normal(0, 2, (16 * (SIZE // 4) ** 2, CLASSES)).astype("f4"),
                "b": rng.normal(0, 1, CLASSES).astype("f4"),
            },
            "metadata": {"softlabel.recipe": RECIPE},
        }
        nodes = [
            ("Conv", ["x", "w"], ["c"], {"strides": [4, 4], "pads": [1, 1, 1, 1]}),
            ("Relu", ["c"], ["r"]),
            ("Flatten", ["r"], ["f"]),
            ("Gemm", ["f", "g", "b"], ["logits"]),
        ]
        return write_model(nodes, name=name, **{**settings, **changes})

    return make


@pytest.fixture
def tars(tmp_path, write_tar, encode_image) -> Callable[..., list[Path]]:
    """(num_tars, num_images) -> tars of 16-pixel images with targets."""

    def make(num_tars: int = 3, num_images: int = 11) -> list[Path]:
        paths = []
        for t in range(num_tars):
            files = []
            for i in range(num_images + t):
                image = encode_image(1000 * t + i, height=SIZE, width=SIZE)
                files += [(f"d{t}/im{i:03d}.png", image), (f"d{t}/im{i:03d}.cls", b"%d" % (i % 5))]
            paths.append(write_tar(tmp_path / f"t{t}.tar", files))
        return paths

    return make


@pytest.fixture
def config(tmp_path, teacher, monkeypatch) -> Callable[..., LabelConfig]:
    """A run on t*.tar, with Pillow: loading torchvision takes longer than all of these tests."""
    monkeypatch.setenv("SOFTLABEL_CACHE", str(tmp_path / "cache"))

    def make(**changes: Any) -> LabelConfig:
        settings: dict[str, Any] = {
            "teacher": tmp_path / "teacher.onnx",
            "shards": (str(tmp_path),),
            "out": tmp_path / "labels.zarr",
            "decoder": "pillow",
            "workers": 2,
            "batch_size": "8",
        }
        if not settings["teacher"].exists():
            teacher()
        return LabelConfig(**{**settings, **changes})

    return make


def pixels(data: bytes, size: int = SIZE) -> NDArray[np.uint8]:
    import io

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def logits_of(teacher: Path, images: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """The unmodified teacher on float64-normalised pixels, one image at a time."""
    session = ort.InferenceSession(str(teacher), providers=["CPUExecutionProvider"])
    mean, std = np.array(RECIPE["mean"]), np.array(RECIPE["std"])
    found = []
    for image in images:
        x = ((image / 255 - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
        found.append(session.run(["logits"], {"x": x})[0][0])
    return np.array(found, np.float64)


def check_labels(
    rows: dict[str, NDArray[Any]], z: NDArray[np.float64], temperatures: tuple[float, ...], k: int
) -> None:
    """Stored labels [n, K] against logits [n, C], re-derived in float64."""
    top = -np.sort(-z, axis=-1)
    d = top - top[:, :1]
    np.testing.assert_allclose(rows["max_logit"], top[:, 0], rtol=1e-5, atol=1e-4)
    stored = rows["topk_logit"].astype(np.float64)
    assert (np.abs(stored - d[:, :k]) <= 2.0**-11 * np.abs(d[:, :k]) + 0.002).all()
    chosen = np.take_along_axis(z, rows["topk_class"].astype(np.int64), -1)
    np.testing.assert_allclose(chosen, top[:, :k], rtol=1e-5, atol=1e-3)
    with np.errstate(divide="ignore"):
        for i, t in enumerate(temperatures):
            rest = np.log(np.exp(d[:, k:] / t).sum(-1))
            np.testing.assert_allclose(rows["tail_lse"][:, i], rest, atol=1e-3)


@pytest.mark.parametrize(("top_k", "k"), [(5, 5), (CLASSES, CLASSES), (100, CLASSES), (1, 1)])
def test_labels_are_the_teachers_to_the_precision_of_the_format(config, tars, top_k, k):
    paths = tars(2)
    store = label(config(top_k=top_k, temperatures=(1.0, 0.5, 4.0))).store
    assert store.manifest.temperatures == (0.5, 1.0, 4.0)
    assert store.manifest.top_k == k
    for t, path in enumerate(paths):
        rows = store.read(t)
        data = path.read_bytes()
        images = [
            data[int(o) : int(o) + int(s)]
            for o, s in zip(rows["offset"], rows["size"], strict=True)
        ]
        assert [image_hash(image) for image in images] == rows["image_hash"].tolist()
        assert rows["key_hash"].tolist() == [key_hash(f"d{t}/im{i:03d}") for i in range(11 + t)]
        assert rows["target"].tolist() == [i % 5 for i in range(11 + t)]
        z = logits_of(config().teacher, [pixels(image) for image in images])
        one_view = {name: value[:, 0] for name, value in rows.items() if value.ndim > 1}
        check_labels(one_view, z, store.manifest.temperatures, k)
    assert not list(problems(store))


def test_every_view_is_labelled_on_its_own_crop(config, tars):
    paths = tars(1)
    store = label(config(views=3, view_recipe="crop-flip", seed=7)).store
    rows = store.read(0)
    data = paths[0].read_bytes()
    for i in range(11):
        image = pixels(data[int(rows["offset"][i]) :][: int(rows["size"][i])])
        crops = []
        for number in range(3):
            box = view(
                "crop-flip",
                seed=7,
                key_hash=int(rows["key_hash"][i]),
                number=number,
                height=SIZE,
                width=SIZE,
                crop_pct=1.0,
                crop_mode="center",
                target_height=SIZE,
                target_width=SIZE,
            )
            ys = np.clip(np.arange(box.top, box.top + box.height), 0, SIZE - 1)
            xs = np.clip(np.arange(box.left, box.left + box.width), 0, SIZE - 1)
            crop = image[ys][:, xs]
            crops.append(crop[:, ::-1] if box.flip else crop)
        z = logits_of(config().teacher, crops)
        labels = {n: rows[n][i] for n in ("topk_logit", "topk_class", "tail_lse", "max_logit")}
        check_labels(labels, z, store.manifest.temperatures, 16)


@pytest.mark.parametrize(
    "changes", [{"workers": 1}, {"workers": 3}, {"batch_size": "auto"}, {"batch_size": "3"}]
)
def test_the_bytes_do_not_depend_on_threads_or_batch_size(config, tars, tmp_path, changes):
    tars(3)
    wanted = tree(label(config()).store.path)
    found = tree(label(config(out=tmp_path / "again.zarr", **changes)).store.path)
    assert found == wanted


def test_parts_make_together_the_same_store(config, tars, tmp_path):
    tars(3)
    wanted = tree(label(config()).store.path)
    for part in ("2/2", "1/2"):
        outcome = label(config(out=tmp_path / "parts.zarr", part=part))
        assert outcome.exit_code == 0
    assert tree(tmp_path / "parts.zarr") == wanted


def test_a_rerun_of_a_complete_store_does_nothing(config, tars):
    tars(2)
    before = tree(label(config()).store.path)
    outcome = label(config())
    assert (outcome.committed, outcome.exit_code) == (0, 0)
    assert tree(config().out) == before


def test_the_embedding_and_the_head_that_reads_it_are_stored(config, tars):
    tars(1)
    store = label(config(embedding="f")).store
    rows = store.read(0)
    assert rows["embedding"].shape == (11, 1, 16 * (SIZE // 4) ** 2)
    weight, bias = store.head()
    z = rows["embedding"][:, 0].astype(np.float64) @ weight.T.astype(np.float64) + bias
    top = z.max(-1)
    np.testing.assert_allclose(top, rows["max_logit"][:, 0], rtol=2e-3, atol=2e-2)
    assert (z.argmax(-1) == rows["topk_class"][:, 0, 0]).mean() > 0.9
    assert not list(problems(store))


BAD = {
    "no image": ("a.txt", b"text", Status.NO_IMAGE),
    "zero bytes": ("a.jpg", b"", Status.UNDECODABLE),
    "text": ("a.jpg", b"not an image at all", Status.UNDECODABLE),
    "truncated": ("a.png", None, Status.UNDECODABLE),
    "bomb": ("a.png", None, Status.TOO_LARGE),
}


def bad_file(kind: str, encode_image: Callable[..., bytes]) -> tuple[str, bytes]:
    name, data, _ = BAD[kind]
    if kind == "truncated":
        data = encode_image(1)[:-40]
    if kind == "bomb":
        whole = bytearray(encode_image(1))
        whole[16:24] = (60_000).to_bytes(4, "big") * 2  # IHDR's width and height
        import zlib

        whole[29:33] = zlib.crc32(whole[12:29]).to_bytes(4, "big")
        data = bytes(whole)
    assert data is not None
    return name, data


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_image_becomes_a_status_and_the_run_goes_on(
    config, tmp_path, write_tar, encode_image, capsys, kind
):
    good = [(f"g{i}.png", encode_image(i, height=SIZE, width=SIZE)) for i in range(6)]
    files = [*good[:3], bad_file(kind, encode_image), *good[3:]]
    write_tar(tmp_path / "t0.tar", files)
    outcome = label(config(max_bad_rate=0.5))
    assert (outcome.exit_code, outcome.bad, outcome.members) == (0, 1, 7)
    rows = outcome.store.read(0)
    assert rows["status"].tolist() == [1, 1, 1, BAD[kind][2], 1, 1, 1]
    assert not rows["topk_logit"][3].any()
    said = capsys.readouterr().err
    assert "member a: " in said
    assert "t0.tar" in said
    assert not list(problems(outcome.store))
    # The good ones are labelled as if the bad one had not been there.
    write_tar(tmp_path / "clean/t0.tar", good)
    clean = label(config(shards=(str(tmp_path / "clean"),), out=tmp_path / "clean.zarr"))
    wanted = clean.store.read(0)
    for name in ("topk_logit", "topk_class", "tail_lse", "max_logit"):
        np.testing.assert_array_equal(np.delete(rows[name], 3, 0), wanted[name])


def test_too_many_bad_images_are_exit_code_3_and_all_others_are_labelled(
    config, tmp_path, write_tar, encode_image, capsys
):
    files = [("a.jpg", b"x"), ("b.png", encode_image(0)), ("c.png", encode_image(1))]
    write_tar(tmp_path / "t0.tar", files)
    outcome = label(config())
    assert outcome.exit_code == 3
    assert outcome.store.read(0)["status"].tolist() == [3, 1, 1]
    assert "too many bad images: 1 of 3" in capsys.readouterr().err


def test_a_teacher_that_says_nan_marks_its_rows(config, teacher, tars):
    tars(1)
    teacher(
        weights={
            "w": np.full((16, 3, 3, 3), np.inf, np.float32),
            "g": np.zeros((16 * (SIZE // 4) ** 2, CLASSES), np.float32),
            "b": np.zeros(CLASSES, np.float32),
        }
    )
    outcome = label(config(max_bad_rate=1.0))
    assert set(outcome.store.read(0)["status"].tolist()) == {Status.NON_FINITE}
    assert outcome.exit_code == 3  # nothing at all was labelled
    assert not list(problems(outcome.store))


def test_a_damaged_tar_is_left_out_and_named_and_labelled_once_mended(config, tars, capsys):
    paths = tars(3)
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:2000])
    outcome = label(config())
    assert outcome.exit_code == 3
    assert outcome.store.pending() == [1]
    assert "t1.tar" in capsys.readouterr().err
    paths[1].write_bytes(whole)
    outcome = label(config())
    assert (outcome.exit_code, outcome.store.pending()) == (0, [])


def test_a_memberless_tar_is_committed_and_said_so(config, tars, tmp_path, write_tar, capsys):
    tars(1)
    write_tar(tmp_path / "t9.tar", [])
    outcome = label(config())
    assert (outcome.exit_code, outcome.store.commit(1).members) == (0, 0)
    assert "no member at all" in capsys.readouterr().err


def test_only_memberless_tars_are_exit_code_3(config, tmp_path, write_tar):
    write_tar(tmp_path / "t0.tar", [])
    assert label(config()).exit_code == 3


def test_an_empty_file_is_a_damaged_tar(config, tars, tmp_path):
    tars(1)
    (tmp_path / "t9.tar").write_bytes(b"")
    outcome = label(config())
    assert (outcome.exit_code, outcome.store.pending()) == (3, [1])


def test_a_tar_with_more_members_than_rows_fails_by_name_with_the_flag(
    config, tars, tmp_path, write_tar, capsys
):
    tars(1)
    write_tar(tmp_path / "t9.tar", [(f"{i}.txt", b"") for i in range(257)])
    outcome = label(config(rows_per_tar=256))
    assert (outcome.exit_code, outcome.store.pending()) == (3, [1])
    said = capsys.readouterr().err
    assert "t9.tar" in said
    assert "--rows-per-tar" in said
    assert label(config(overwrite=True, max_bad_rate=1.0)).exit_code == 0


def exit_code(*argv: str) -> int:
    import sys

    from softlabel.labeler import cli
    from softlabel.shards import commandline

    assert main is cli.main
    with pytest.raises(SystemExit) as stop:
        commandline.main("kd-label", cli.DESCRIPTION, LabelConfig, cli.run, argv)
    sys.stdout.flush()
    return int(stop.value.code or 0)


def flags(config: LabelConfig, *more: str) -> list[str]:
    return [
        *("--teacher", str(config.teacher), "--shards", *config.shards),
        *("--out", str(config.out), "--decoder", "pillow", "--batch-size", "8", *more),
    ]


def test_a_rerun_told_otherwise_is_exit_code_4_naming_the_fields(config, teacher, tars, capsys):
    paths = tars(3)
    first = config()
    assert exit_code(*flags(first)) == 0
    before = tree(first.out)
    capsys.readouterr()
    other = teacher(1, name="other.onnx")
    recipe = first.out.parent / "r.json"
    recipe.write_text(json.dumps({**RECIPE, "mean": [0.5, 0.5, 0.5]}))
    for more, field in (
        (["--teacher", str(other)], "teacher_sha256"),
        (["--recipe", str(recipe)], "recipe"),
        (["--top-k", "3"], "top_k"),
        (["--seed", "3"], "view_seed"),
        (["--shards", str(paths[0]), str(paths[1])], "shard list"),
        (["--shards", str(paths[1]), str(paths[0]), str(paths[2])], "shard list"),
    ):
        assert exit_code(*flags(first, *more)) == 4
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert field in said
    assert tree(first.out) == before


def test_a_tar_that_changed_since_it_was_labelled_is_exit_code_4(config, tars, capsys):
    paths = tars(2)
    label(config())
    paths[0].write_bytes(paths[0].read_bytes() + bytes(512))
    assert exit_code(*flags(config())) == 4
    assert "t0.tar" in capsys.readouterr().err


def test_overwrite_starts_over(config, tars):
    tars(1)
    label(config())
    outcome = label(config(top_k=3, overwrite=True))
    assert (outcome.exit_code, outcome.store.manifest.top_k) == (0, 3)


def test_tars_that_moved_are_still_the_same_tars(config, tars, tmp_path):
    paths = tars(2)
    label(config(shards=(str(paths[0]), str(paths[1]))))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in paths:
        shutil.move(path, moved)
    assert label(config(shards=(str(moved),))).exit_code == 0


def test_no_recipe_is_exit_code_2_and_says_what_to_give(config, teacher, tars, capsys):
    tars(1)
    teacher(metadata={})
    assert exit_code(*flags(config())) == 2
    assert "--recipe" in capsys.readouterr().err
    assert not config().out.exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shards", "none-{0..2}.tar"], "3 of 3 tars not found"),
        (["--teacher", "none.onnx"], "none.onnx"),
        (["--views", "2"], "--view-recipe"),
        (["--part", "3/2"], "--part"),
        (["--batch-size", "many"], "--batch-size"),
    ],
)
def test_what_cannot_be_right_is_exit_code_2_and_one_line(config, tars, capsys, more, message):
    tars(1)
    assert exit_code(*flags(config(), *more)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not config().out.exists()


def test_a_compressed_tar_is_refused_by_name_before_anything_is_written(config, tars, capsys):
    import gzip

    (path,) = tars(1)
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert exit_code(*flags(config())) == 2
    assert "decompress" in capsys.readouterr().err
    assert not config().out.exists()


def test_a_place_that_cannot_be_written_is_exit_code_5(config, tars, tmp_path, capsys):
    tars(1)
    (tmp_path / "file").write_text("")
    assert exit_code(*flags(config(), "--out", str(tmp_path / "file/store"))) == 5
    assert "can't be written" in capsys.readouterr().err


def test_a_provider_that_cannot_run_is_exit_code_5_never_another(config, tars, capsys):
    tars(1)
    assert exit_code(*flags(config(), "--providers", "cuda")) == 5
    assert "CUDAExecutionProvider" in capsys.readouterr().err


def test_a_full_disk_is_seen_before_the_first_image(config, tars, capsys, monkeypatch):
    tars(1)
    monkeypatch.setattr("softlabel.shards.disk.free_bytes", lambda path: 10)
    assert exit_code(*flags(config())) == 5
    assert "fewer --views" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(config, tars, tmp_path, capsys):
    tars(2)
    config()
    before = sorted(tmp_path.rglob("*"))
    assert exit_code(*flags(config(), "--dry-run")) == 0
    assert sorted(tmp_path.rglob("*")) == before
    said = capsys.readouterr().out
    assert "2 tars" in said
    assert "nothing was written" in said


def test_the_closing_lines_say_what_became_of_it(config, tars, capsys):
    tars(2)
    label(config())
    said = capsys.readouterr().err
    for words in (
        "members: 23 in 2",
        "mean tail mass",
        "p1 > 0.999",
        "mean tail under 5%",
        "complete",
    ):
        assert words in said


def test_json_lines_are_json(config, tars, capsys):
    tars(1)
    label(config(log_format="json"))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[-1] == {"event": "complete"}


def test_the_runs_log_keeps_the_times_and_the_machine(config, tars):
    tars(1)
    store: Store = open_store(label(config()).store.path)
    (log,) = (store.path / "runs").glob("*.log")
    start, end = [json.loads(line) for line in log.read_text().splitlines()]
    assert start["machine"]["onnxruntime"] == ort.__version__
    assert end["images"] == 11
    assert set(end["seconds"]) >= {"decode", "teacher", "wait_images", "write", "total"}
