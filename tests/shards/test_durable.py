import os
import threading

import pytest

from softlabel.shards import durable


def test_only_one_of_many_puts_wins_and_the_file_is_whole(tmp_path):
    path = tmp_path / "x"
    barrier = threading.Barrier(8)
    won = []

    def put(i: int) -> None:
        barrier.wait()
        if durable.put_if_absent(path, bytes([i]) * 10_000):
            won.append(i)

    threads = [threading.Thread(target=put, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert path.read_bytes() == bytes(won) * 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_data_is_flushed_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    fsync, link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "link", lambda *a: (calls.append("link"), link(*a)))
    durable.put_if_absent(tmp_path / "x", b"1")
    assert calls == ["fsync", "link", "fsync"]


def test_files_replaced_together_are_flushed_before_any_gets_its_name(tmp_path, monkeypatch):
    from pathlib import Path

    calls = []
    fsync, rename = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda *a: (calls.append("rename"), rename(*a)))
    (tmp_path / "d").mkdir()
    durable.replace_all({tmp_path / "x": b"1", tmp_path / "d/y": b"2", tmp_path / "d/z": b"3"})
    assert calls == ["fsync"] * 3 + ["rename"] * 3 + ["fsync"] * 2
    assert (tmp_path / "d/z").read_bytes() == b"3"


def test_a_failed_replace_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x"
    (path / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match="x"):
        durable.replace_all({path: b"1"})
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
