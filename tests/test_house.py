"""What holds of the whole project: light commands, documented flags, generated pages."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from softlabel.tools import docs

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("kd-label", "kd-teacher", "kd-train", "kd-eval", "kd-store", "kd-bench", "kd-doctor")
PROGRAMS = Path(sys.executable).parent

HEAVY = ("torch", "torchvision", "webdataset", "zarr", "onnxruntime", "onnx", "matplotlib")
REPORT = f"""
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit:
    pass
print("HEAVY", *[name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


def heavy_imports(*command: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", REPORT, str(PROGRAMS / command[0]), *command[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"^HEAVY(.*)$", done.stderr, re.MULTILINE)
    assert found, done.stderr
    return set(found.group(1).split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy_and_answers(command):
    assert heavy_imports(command, "--help") == set()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([PROGRAMS / command, "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    assert b"Examples:" in done.stdout
    print(f"{command} --help: {min(times):.2f} s")


@pytest.mark.parametrize(
    "arguments",
    [
        ("kd-label", "--teacher", "t.onnx"),
        ("kd-label", "--teacher", "t", "--shards", "s", "--out", "o", "--top-k", "0"),
        ("kd-train", "--shards", "s"),
        ("kd-eval", "--student", "s"),
        ("kd-store", "stats"),
        ("kd-teacher", "check"),
    ],
)
def test_a_usage_error_loads_nothing_heavy(arguments):
    assert heavy_imports(*arguments) == set()


def test_a_dry_run_and_the_store_load_no_torch(tmp_path, write_tar, encode_image):
    write_tar(tmp_path / "a.tar", [("a.png", encode_image(0))])
    (tmp_path / "store").mkdir()
    unloaded = {"torch", "torchvision", "webdataset"}
    assert not unloaded & heavy_imports("kd-store", "verify", str(tmp_path / "store"))
    label = ("kd-label", "--teacher", "none.onnx", "--shards", str(tmp_path), "--out", "o")
    assert not unloaded & heavy_imports(*label, "--dry-run")


@pytest.mark.parametrize("name", docs.pages())
def test_a_generated_page_is_the_one_that_is_committed(name):
    assert (ROOT / name).read_text(encoding="utf-8") == docs.pages()[name](), "run make docs"


def test_every_link_in_the_documents_leads_somewhere():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_files_named_in_the_documents_exist():
    text = (ROOT / "README.md").read_text() + (ROOT / "SECURITY.md").read_text()
    for name in set(
        re.findall(r"`((?:tests|docs|shards|labeler|trainer|kernels|tools)/[\w./-]+)`", text)
    ):
        assert (ROOT / name).exists(), name
