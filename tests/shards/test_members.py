import io
import tarfile
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softlabel.shards.members import LARGEST_IMAGE_BYTES, Member, count_members, members
from softlabel.shards.tars import TarStream

EXTENSIONS = ("jpg", "jpeg", "png", "webp")


def read(path: Path) -> list[Member]:
    with path.open("rb") as file:
        source = TarStream(file, name=str(path), size=path.stat().st_size)
        return list(members(source, image_ext=EXTENSIONS))


def by_webdataset(path: Path) -> list[dict[str, object]]:
    import webdataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
        return [dict(sample) for sample in dataset]


NAMES = st.text("ab/._J", min_size=1, max_size=8).filter(
    lambda n: n.strip("/") and "//" not in n and not n.startswith("/") and not n.endswith("/")
)
FILES = st.lists(
    st.tuples(
        st.one_of(
            NAMES,
            st.builds(
                lambda k, e: f"{k}.{e}",
                st.sampled_from(["x", "y", "d/x", "d.d/x", "__m"]),
                st.sampled_from(["jpg", "JPG", "cls", "json", "seg.png", "png", "txt"]),
            ),
        ),
        st.binary(max_size=30),
    ),
    max_size=8,
    unique_by=lambda pair: pair[0].lower(),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILES)
def test_keys_and_files_are_webdatasets_on_healthy_tars(tmp_path, write_tar, files):
    path = write_tar(tmp_path / "t.tar", files)
    theirs = by_webdataset(path)
    ours = read(path)
    assert [m.key for m in ours] == [sample["__key__"] for sample in theirs]
    for member, sample in zip(ours, theirs, strict=True):
        images = [sample[e] for e in sample if e in EXTENSIONS]
        assert member.image == (images[0] if images else None)


def test_a_tar_written_by_webdataset_reads_back(tmp_path, encode_image):
    import webdataset

    path = tmp_path / "t.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for i in range(5):
            writer.write({"__key__": f"sample{i:03d}", "png": encode_image(i), "cls": i})
    found = read(path)
    assert [(m.ordinal, m.key, m.target) for m in found] == [
        (i, f"sample{i:03d}", i) for i in range(5)
    ]
    assert [m.image for m in found] == [encode_image(i) for i in range(5)]
    data = path.read_bytes()
    assert all(data[m.offset : m.offset + m.size] == m.image for m in found)


def test_a_name_that_comes_twice_in_a_row_gives_two_members(tmp_path, write_tar):
    path = write_tar(tmp_path / "t.tar", [("a.jpg", b"1"), ("a.jpg", b"2"), ("a.cls", b"3")])
    assert [(m.key, m.image, m.target) for m in read(path)] == [("a", b"1", -1), ("a", b"2", 3)]


@pytest.mark.parametrize(
    ("files", "target"),
    [
        ([("a.cls", b"7")], 7),
        ([("a.json", b'{"label": 4}'), ("a.cls", b"7")], 7),
        ([("a.json", b'{"label": 4}')], 4),
        ([("a.json", b'{"label": "4"}')], -1),
        ([("a.json", b'{"label": true}')], -1),
        ([("a.json", b'{"label": 1.5}')], -1),
        ([("a.json", b"[1]")], -1),
        ([("a.json", b"{" * 50)], -1),
        ([("a.cls", b"no number")], -1),
        ([("a.cls", b"-3")], -1),
        ([("a.cls", b"99999999999")], -1),
        ([("a.cls", b"99999999999"), ("a.json", b'{"label": 4}')], 4),
    ],
)
def test_targets_come_from_cls_then_json_else_minus_one(tmp_path, write_tar, files, target):
    path = write_tar(tmp_path / "t.tar", [("a.jpg", b"x"), *files])
    assert [m.target for m in read(path)] == [target]


def test_a_member_without_an_image_is_a_member(tmp_path, write_tar):
    path = write_tar(tmp_path / "t.tar", [("a.txt", b"x"), ("b.jpg", b"y"), ("c.seg.png", b"z")])
    assert [(m.key, m.image, m.size) for m in read(path)] == [
        ("a", None, 0),
        ("b", b"y", 1),
        ("c", None, 0),
    ]


def test_an_oversized_image_is_not_read_into_memory():
    class Zeros(io.RawIOBase):
        """A header, then as many zeros as one asks for."""

        def __init__(self) -> None:
            info = tarfile.TarInfo("a.jpg")
            info.size = LARGEST_IMAGE_BYTES + 1
            self.header: bytes | None = info.tobuf()

        def read(self, count: int = -1) -> bytes:
            if self.header is not None:
                data, self.header = self.header, None
                return data
            assert count <= 1 << 20, "asked for the whole image at once"
            return bytes(count)

    source = TarStream(Zeros(), name="t", size=None)
    # Two zero blocks follow the payload, so the tar ends; what comes after is never ending zeros.
    found = next(iter(members(_ending(source), image_ext=EXTENSIONS)))
    assert (found.image, found.size) == (None, LARGEST_IMAGE_BYTES + 1)


def _ending(source: TarStream) -> TarStream:
    source.finish = lambda: None  # type: ignore[method-assign]
    return source


def test_counting_needs_no_payload(tmp_path, write_tar):
    files = [("a.jpg", b"1"), ("a.cls", b"1"), ("b.png", b"2"), ("c.txt", b"3")]
    path = write_tar(tmp_path / "t.tar", files)
    with path.open("rb") as file:
        source = TarStream(file, name="t", size=path.stat().st_size, hashed=False)
        assert count_members(source) == 3
