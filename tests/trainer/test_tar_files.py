"""Images by byte range, from local and remote tars."""

import os

import fsspec
import numpy as np
import pytest

from softlabel.shards.errors import IdentityError, MachineError, TarError, UsageError
from softlabel.trainer import tar_cache
from softlabel.trainer.tar_files import LARGEST_GAP, TarFiles


@pytest.fixture
def remote():
    """Names of in-memory tars: {ordinal: url}, sizes, and their bytes."""
    rng = np.random.default_rng(0)
    system = fsspec.filesystem("memory")
    urls, data = {}, {}
    for tar in range(5):
        data[tar] = rng.bytes(1000)
        urls[tar] = f"memory://bucket/{tar}.tar"
        system.pipe(f"/bucket/{tar}.tar", data[tar])
    yield urls, data
    system.rm("/bucket", recursive=True)


def files(urls, sizes, *, cache_dir=None, cache_bytes=10**9):
    return TarFiles(urls, sizes, cache_dir=cache_dir, cache_bytes=cache_bytes)


def ints(*values):
    return np.array(values, np.int64)


def test_neighbours_come_in_one_read_and_distant_images_in_two(tmp_path, monkeypatch):
    data = np.random.default_rng(0).bytes(LARGEST_GAP + 5000)
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    reads = []
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda h, n, at: reads.append((at, n)) or real(h, n, at))
    far = LARGEST_GAP + 1200
    found = files({3: str(path)}, {3: len(data)}).read(
        3, ints(10, 600, 1100, far), ints(5, 9, 1, 7)
    )
    assert found == [data[10:15], data[600:609], data[1100:1101], data[far : far + 7]]
    # The gap to the last is 99 bytes over what is rather read.
    assert reads == [(10, 1091), (far, 7)]


def test_a_tar_that_ends_too_early_is_not_the_labelled_one(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(100))
    with pytest.raises(IdentityError, match=r"a\.tar: ends at byte 100, an image at 110"):
        files({0: str(path)}, {0: 200}).read(0, ints(90), ints(20))


def test_a_tar_that_has_gone_is_named(tmp_path):
    with pytest.raises(TarError, match=r"a\.tar: can't be read: No such file"):
        files({0: str(tmp_path / "a.tar")}, {0: 200}).read(0, ints(90), ints(20))


def test_remote_tars_are_fetched_whole_and_read_by_offset(remote):
    urls, data = remote
    tars = files(urls, dict.fromkeys(urls, 1000))
    try:
        tars.expect([2, 4])
        for tar in (4, 2):
            assert tars.read(tar, ints(3, 700), ints(4, 9)) == [data[tar][3:7], data[tar][700:709]]
    finally:
        tars.close()


def test_the_cache_keeps_its_limit_and_what_is_at_work(remote, tmp_path):
    urls, data = remote
    tars = files(urls, dict.fromkeys(urls, 1000), cache_dir=tmp_path, cache_bytes=2000)
    try:
        for expected, most in (([0, 1], 2), ([1, 2], 2), ([2, 3, 4], 3), ([4, 0], 2)):
            tars.expect(expected)
            for tar in expected:
                assert tars.read(tar, ints(0), ints(9)) == [data[tar][:9]]
            assert len(list(tmp_path.iterdir())) == most
    finally:
        tars.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_kept_folder_is_used_by_the_next_run(remote, tmp_path):
    urls, data = remote
    for _ in range(2):
        tars = files(urls, dict.fromkeys(urls, 1000), cache_dir=tmp_path)
        tars.expect([1])
        assert tars.read(1, ints(5), ints(9)) == [data[1][5:14]]
        tars.close()
        urls = {**urls, 1: urls[1]}
        fsspec.filesystem("memory").pipe("/bucket/1.tar", bytes(7))


def test_a_remote_tar_of_another_size_does_not_belong(remote):
    urls, _ = remote
    tars = files(urls, {**dict.fromkeys(urls, 1000), 3: 999})
    tars.expect([3])
    with pytest.raises(IdentityError, match="had 999 bytes when it was labelled, now it has 1,000"):
        tars.read(3, ints(0), ints(1))
    tars.close()


def test_a_failing_server_is_asked_again(remote, monkeypatch):
    urls, data = remote
    monkeypatch.setattr(tar_cache, "_FIRST_PAUSE_S", 0.0)
    real, calls = tar_cache.open_tar, []

    def flaky(url):
        calls.append(url)
        if len(calls) < 3:
            raise TarError("503")
        return real(url)

    monkeypatch.setattr(tar_cache, "open_tar", flaky)
    tars = files(urls, dict.fromkeys(urls, 1000))
    tars.expect([0])
    assert tars.read(0, ints(1), ints(2)) == [data[0][1:3]]
    calls.clear()
    monkeypatch.setattr(tar_cache, "open_tar", lambda url: (_ for _ in ()).throw(TarError("503")))
    tars.expect([1])
    with pytest.raises(TarError, match=r"1\.tar: can't be fetched: 503"):
        tars.read(1, ints(1), ints(2))
    tars.close()


def test_a_full_disk_names_the_flags_that_help(remote, tmp_path, monkeypatch):
    urls, _ = remote

    tars = files(urls, dict.fromkeys(urls, 1000), cache_dir=tmp_path)
    monkeypatch.setattr(tar_cache.Path, "open", _full_disk(tar_cache.Path.open))
    tars.expect([0])
    with pytest.raises(MachineError, match="--cache-dir on a larger disk"):
        tars.read(0, ints(0), ints(1))
    tars.close()


def _full_disk(real):
    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            raise OSError(28, "No space left on device")

    return lambda self, *args: Full(real(self, *args))


def test_a_closed_cache_leaves_no_temporary_folder(remote, tmp_path, monkeypatch):
    urls, _ = remote
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    tars = files(urls, dict.fromkeys(urls, 1000))
    tars.expect([0, 1])
    tars.read(0, ints(0), ints(1))
    assert len(list(tmp_path.iterdir())) == 1
    tars.close()
    assert not list(tmp_path.iterdir())


def test_an_unknown_scheme_is_a_usage_error():
    tars = files({0: "nonsense://x/0.tar"}, {0: 10})
    tars.expect([0])
    with pytest.raises(UsageError, match="nonsense"):
        tars.read(0, ints(0), ints(1))
    tars.close()
