import io
import json
import tarfile
from contextlib import ExitStack

import numpy as np
import pytest
from PIL import Image

from softlabel.shards.errors import UsageError
from softlabel.tools.realdata.image_tars import write_tars

NUM_IMAGES = 23


@pytest.fixture
def images():
    return np.random.default_rng(7).integers(0, 256, (NUM_IMAGES, 5, 7, 3), np.uint8)


@pytest.fixture
def targets():
    return np.arange(NUM_IMAGES, dtype=np.int64) % 10


def members(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read_with_webdataset(paths):
    """webdataset's own stages; its url opener is left out because it does not close its files."""
    from webdataset.tariterators import group_by_keys, tar_file_expander

    with ExitStack() as stack:
        streams = [
            {"url": str(path), "stream": stack.enter_context(path.open("rb"))} for path in paths
        ]
        return list(group_by_keys(tar_file_expander(streams)))


def test_webdataset_reads_back_the_images_and_labels_in_order(images, targets, tmp_path):
    paths = write_tars(images, targets, tmp_path, prefix="train", num_tars=4, key_prefix="train-")
    assert [path.name for path in paths] == [f"train-{tar:04d}.tar" for tar in range(4)]
    samples = read_with_webdataset(paths)
    assert [sample["__key__"] for sample in samples] == [f"train-{row:05d}" for row in range(23)]
    assert [int(sample["cls"]) for sample in samples] == targets.tolist()
    read = np.stack([np.asarray(Image.open(io.BytesIO(sample["png"]))) for sample in samples])
    np.testing.assert_array_equal(read, images)


def test_tars_differ_by_one_image_at_most_and_none_is_compressed(images, tmp_path):
    paths = write_tars(images, None, tmp_path, prefix="train", num_tars=4)
    assert [len(members(path)) for path in paths] == [5, 6, 6, 6]
    assert all(path.read_bytes()[257:262] == b"ustar" for path in paths)


def test_tars_without_targets_hold_no_labels_but_the_same_keys_and_images(
    images, targets, tmp_path
):
    bare = write_tars(images, None, tmp_path, prefix="train", num_tars=3)
    full = write_tars(images, targets, tmp_path, prefix="train-labelled", num_tars=3)
    for without, labelled in zip(bare, full, strict=True):
        pngs = {name: data for name, data in members(labelled).items() if name.endswith(".png")}
        assert members(without) == pngs
        assert len(members(labelled)) == 2 * len(pngs)


def test_the_same_images_are_the_same_bytes_in_any_folder(images, targets, tmp_path):
    write_tars(images, targets, tmp_path / "a", prefix="train", num_tars=3)
    write_tars(images.copy(), targets.copy(), tmp_path / "b", prefix="train", num_tars=3)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_rerun_writes_only_what_is_missing(images, tmp_path):
    paths = write_tars(images, None, tmp_path, prefix="train", num_tars=3)
    before = contents(tmp_path)
    inodes = [path.stat().st_ino for path in paths]
    paths[1].unlink()
    write_tars(images, None, tmp_path, prefix="train", num_tars=3)
    assert contents(tmp_path) == before
    kept = [path.stat().st_ino for path in paths]
    assert (kept[0], kept[2]) == (inodes[0], inodes[2])


@pytest.mark.parametrize("each", [False, True])
def test_a_source_stands_in_the_json_of_every_image(images, targets, tmp_path, each):
    sources = [f"pool {row % 3}" for row in range(NUM_IMAGES)] if each else ["letters"] * NUM_IMAGES
    source = sources if each else "letters"
    paths = write_tars(images, targets, tmp_path / "a", prefix="x", num_tars=2, source=source)
    samples = read_with_webdataset(paths)
    assert [json.loads(sample["json"]) for sample in samples] == [{"source": s} for s in sources]
    assert [int(sample["cls"]) for sample in samples] == targets.tolist()
    write_tars(images, targets, tmp_path / "b", prefix="x", num_tars=2, source=source)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_sources_are_as_many_as_images(images, tmp_path):
    with pytest.raises(ValueError, match="wanted a source for each of 23 images, got 2"):
        write_tars(images, None, tmp_path, prefix="x", num_tars=2, source=["a", "b"])


@pytest.mark.parametrize("change", ["images", "targets", "num_tars", "key_prefix", "source"])
def test_tars_of_anything_else_are_replaced_not_kept(images, targets, tmp_path, change):
    other = images ^ 1 if change == "images" else images
    classes = targets[::-1] if change == "targets" else targets
    num_tars = 2 if change == "num_tars" else 3
    key_prefix = "b" if change == "key_prefix" else "a"
    source = "letters" if change == "source" else None
    mixed, fresh = tmp_path / "mixed", tmp_path / "fresh"
    write_tars(images, targets, mixed, prefix="train", num_tars=3, key_prefix="a")
    for folder in (mixed, fresh):
        write_tars(
            other,
            classes,
            folder,
            prefix="train",
            num_tars=num_tars,
            key_prefix=key_prefix,
            source=source,
        )
    assert contents(mixed) == contents(fresh)


def test_other_tars_in_the_folder_are_left_alone(images, targets, tmp_path):
    write_tars(images, targets, tmp_path, prefix="train-labelled", num_tars=2)
    before = contents(tmp_path)
    write_tars(images, None, tmp_path, prefix="train", num_tars=3)
    write_tars(images ^ 1, None, tmp_path, prefix="train", num_tars=3)
    assert before.items() <= contents(tmp_path).items()


def test_tars_that_someone_else_wrote_are_refused_and_not_deleted(images, tmp_path):
    (tmp_path / "train-0007.tar").write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"wanted an empty folder, found .*train-0007\.tar"):
        write_tars(images, None, tmp_path, prefix="train", num_tars=3)
    assert contents(tmp_path) == {"train-0007.tar": b"precious"}


@pytest.mark.parametrize("num_tars", [0, NUM_IMAGES + 1])
def test_an_empty_tar_cannot_be_asked_for(images, tmp_path, num_tars):
    with pytest.raises(ValueError, match="num_tars must be in"):
        write_tars(images, None, tmp_path, prefix="train", num_tars=num_tars)
