"""Sources of images: by tar name, path, key and json."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from softlabel.shards.errors import IdentityError, TarError, UsageError
from softlabel.shards.members import members
from softlabel.shards.sources import (
    NAMELESS,
    SourceBy,
    parse_source_by,
    refuse_unmatched,
    source_of_name,
    tar_sources,
)
from softlabel.shards.specs import open_tar
from softlabel.shards.tars import TarStream


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("s3://bucket/a/letters-0003.tar", "letters"),
        ("letters_17.tar", "letters"),
        ("train.000017.tar", "train"),
        ("v2-clips-0.tar", "v2-clips"),
        ("0003.tar", "0003"),
        ("photos.tar", "photos"),
        ("cifar10.tar", "cifar10"),
        ("cifar100-07.tar", "cifar100"),
        ("train-00000-of-01024.tar", "train"),
        ("shard0007.tar", "shard"),
    ],
)
def test_a_tar_name_without_its_number_is_its_source(name, source):
    assert source_of_name(parse_source_by("name"), name) == source


def test_paths_give_their_first_group_or_the_whole_match():
    tar = "/data/web/cats/0001.tar"
    assert source_of_name(parse_source_by("path:/data/([a-z]+)/"), tar) == "web"
    assert source_of_name(parse_source_by("path:cats|dogs"), tar) == "cats"
    assert source_of_name(parse_source_by("path:birds"), tar) is None
    assert source_of_name(parse_source_by("path:(birds)?cats"), tar) is None
    assert source_of_name(parse_source_by("tar"), tar) == "0001.tar"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "names",
        "key:a{99999999999999999999}",
        "name:x",
        "tar:",
        "path",
        "path:",
        "key:",
        "json",
        "json:",
        "path:(",
        "k",
    ],
)
def test_what_names_no_source_is_a_usage_error_of_one_line(text):
    with pytest.raises(UsageError, match="--source-by") as raised:
        parse_source_by(text)
    assert "\n" not in str(raised.value)


def test_a_pattern_that_matches_no_tar_is_a_slip():
    by = parse_source_by("path:nowhere")
    with pytest.raises(UsageError, match=r"matches none of the 2 tars; the first is a-0\.tar"):
        refuse_unmatched(by, ["a-0.tar", "b-0.tar"])
    refuse_unmatched(parse_source_by("path:^a"), ["a-0.tar", "b-0.tar"])
    refuse_unmatched(parse_source_by("name"), ["a-0.tar"])


def test_a_tar_is_not_opened_where_its_name_says_it_all():
    found = tar_sources(parse_source_by("name"), "x-01.tar", url=None, num_members=3)
    assert found.names == ("x",)
    assert found.code.tolist() == [0, 0, 0]
    unmatched = tar_sources(parse_source_by("path:q"), "x-01.tar", url=None, num_members=2)
    assert unmatched.names == (NAMELESS,)


MIXED = [
    ("web/1.json", json.dumps({"source": {"site": "blog"}}).encode()),
    ("web/1.png", b"x"),
    ("web/2.png", b"x"),
    ("cam/3.png", b"x"),
    ("cam/3.json", json.dumps({"source": {"site": 7}}).encode()),
    ("cam/4.json", b"{broken"),
    ("cam/5.json", json.dumps({"source": {"site": "blog"}}).encode()),
    ("cam/5.json", json.dumps({"source": "flat"}).encode()),
    ("__meta__/x.json", b"{}"),
]


@pytest.fixture
def mixed(write_tar, tmp_path):
    return str(write_tar(tmp_path / "mixed.tar", MIXED))


def named(found):
    return [found.names[code] for code in found.code]


def test_a_field_of_the_json_wherever_it_stands_in_the_member(mixed):
    found = tar_sources(parse_source_by("json:source.site"), "mixed.tar", url=mixed, num_members=6)
    assert named(found) == ["blog", NAMELESS, "7", NAMELESS, "blog", NAMELESS]


def test_a_pattern_over_keys(mixed):
    found = tar_sources(parse_source_by("key:^([a-z]+)/"), "mixed.tar", url=mixed, num_members=6)
    assert named(found) == ["web", "web", "cam", "cam", "cam", "cam"]
    assert found.names == ("web", "cam")


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_grouped_as_the_labeler_groups_them(write_tar, tmp_path, format):
    rng = np.random.default_rng(5)
    files = []
    for _ in range(200):
        key = f"d{rng.integers(3)}/k{rng.integers(4)}"
        files.append((f"{key}.{rng.choice(['png', 'json', 'cls', 'seg.png'])}", b"1"))
    tar = write_tar(tmp_path / "odd.tar", files, format=format)
    with open_tar(str(tar)) as (file, size):
        keys = [m.key for m in members(TarStream(file, name="odd", size=size), image_ext=("png",))]
    found = tar_sources(
        SourceBy(kind="key", pattern=".*"), "odd.tar", url=str(tar), num_members=len(keys)
    )
    assert named(found) == keys


def test_a_tar_that_is_needed_and_not_at_hand_or_another_one_is_refused(mixed, tmp_path):
    by = parse_source_by("json:source")
    with pytest.raises(UsageError, match="give them with --shards"):
        tar_sources(by, "mixed.tar", url=None, num_members=6)
    with pytest.raises(IdentityError, match="has 6 members, the store 9"):
        tar_sources(by, "mixed.tar", url=mixed, num_members=9)
    (tmp_path / "cut.tar").write_bytes(Path(mixed).read_bytes()[:1024])
    with pytest.raises(TarError):
        tar_sources(by, "cut.tar", url=str(tmp_path / "cut.tar"), num_members=6)


def test_a_name_from_a_file_holds_nothing_that_a_terminal_obeys(write_tar, tmp_path):
    files = [("1.json", b'{"s": "\\u001b[31mred"}'), ("2.json", b'{"s": "\\ud800x"}')]
    tar = write_tar(tmp_path / "odd.tar", files)
    found = tar_sources(parse_source_by("json:s"), "odd.tar", url=str(tar), num_members=2)
    assert found.names == ("?[31mred", "?x")
