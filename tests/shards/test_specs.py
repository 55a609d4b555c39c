import io
from pathlib import Path

import pytest

from softlabel.shards.errors import TarError, UsageError
from softlabel.shards.specs import expand, open_tar, redacted


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    for name in ("a-0.tar", "a-1.tar", "b.tar", "notes.md"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("a-{0..1}.tar", ["a-0.tar", "a-1.tar"]),
        ("{b,a-0}.tar", ["b.tar", "a-0.tar"]),
        ("b.tar::a-{0..1}.tar", ["b.tar", "a-0.tar", "a-1.tar"]),
        (["b.tar", "a-0.tar"], ["b.tar", "a-0.tar"]),
        (".", ["a-0.tar", "a-1.tar", "b.tar"]),
        ("list.txt", ["b.tar", "a-0.tar"]),
        ("./b.tar", ["b.tar"]),
    ],
)
def test_every_form_of_spec_names_its_tars_in_order(folder, spec, names):
    (folder / "list.txt").write_text("# two tars\nb.tar\n\na-0.tar\n")
    assert [Path(tar).name for tar in expand(spec)] == names


def test_a_dash_reads_standard_input(folder, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("b.tar\n"))
    assert expand("-") == ["b.tar"]


def test_a_file_url_is_a_local_path(folder):
    assert expand(f"file://{folder}/b.tar") == [f"{folder}/b.tar"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("c-{0..2}.tar", "3 of 3 tars not found: c-0.tar, c-1.tar, c-2.tar"),
        ("b.tar::b.tar", "found twice: b.tar"),
        ("a-{0..1.tar", "braces that do not match"),
        ("empty", "has none"),
        ("x.tar.gz", "decompress"),
        ("pipe:cat b.tar", "--allow-pipe"),
        ([], "names none"),
    ],
)
def test_a_spec_that_cannot_be_right_is_one_line(folder, spec, message):
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match=message) as error:
        expand(spec)
    assert "\n" not in str(error.value)


def test_a_list_may_not_hold_pipes_whatever_was_allowed(folder):
    (folder / "list.txt").write_text("pipe:touch owned\n")
    with pytest.raises(UsageError, match="lists may not hold pipes"):
        expand("list.txt", allow_pipe=True)
    assert not (folder / "owned").exists()


def test_a_pipe_is_read_when_allowed_and_its_failure_is_told(folder):
    assert expand("pipe:cat b.tar", allow_pipe=True) == ["pipe:cat b.tar"]
    with open_tar("pipe:cat b.tar") as (file, size):
        assert (file.read(), size) == (b"x", None)
    with pytest.raises(TarError, match="exit code 3"), open_tar("pipe:exit 3") as (file, _):
        file.read()


def test_a_remote_tar_opens_through_fsspec_with_its_length():
    import fsspec

    with fsspec.open("memory://bucket/t.tar", "wb") as file:
        file.write(b"12345")
    assert expand("memory://bucket/t.tar") == ["memory://bucket/t.tar"]
    with open_tar("memory://bucket/t.tar") as (file, size):
        assert (file.read(), size) == (b"12345", 5)
    with pytest.raises(TarError, match="can't be opened"), open_tar("memory://bucket/none.tar"):
        pass
    with pytest.raises(UsageError, match="nosuch"), open_tar("nosuch://bucket/t.tar"):
        pass


def test_secrets_in_a_url_are_not_shown():
    shown = redacted("https://user:secret@host:8080/a/t.tar?X-Amz-Signature=secret#secret")
    assert shown == "https://host:8080/a/t.tar"
