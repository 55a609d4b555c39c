"""The whole demo on real CIFAR-10, with a fraction of its training steps."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from softlabel.shards.store import open_store
from softlabel.tools.realdata import cifar10, teachers

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def demo(real, tmp_path_factory) -> Path:
    real(cifar10.load)
    real(teachers.cifar10_resnet)
    folder = tmp_path_factory.mktemp("demo") / "demo"
    command = [sys.executable, "-m", "softlabel.tools.demo", "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--steps", "150", "--views", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder / "said.txt").write_text(done.stdout)
    return folder


def figures(demo: Path) -> dict:
    return json.loads((demo / "evaluation/evaluation.json").read_text())["figures"]


def test_the_teacher_has_its_known_accuracy_through_our_own_pipeline(demo):
    assert abs(figures(demo)["teacher"]["accuracy"]["value"] - 0.8224) <= 0.001


def test_the_unlabelled_tars_hold_no_class(demo):
    store = open_store(demo / "labels/train.zarr")
    assert not store.pending()
    rows = [store.read(tar, ["target", "status"]) for tar in range(50)]
    assert all((r["target"] == -1).all() and (r["status"] == 1).all() for r in rows)
    assert sum(len(r["status"]) for r in rows) == 50_000


def test_even_a_short_training_learns_from_the_labels_alone(demo):
    student = figures(demo)["student"]
    assert student["accuracy"]["value"] > 0.45
    assert student["agreement"]["value"] > 0.45


def test_a_student_of_foreign_images_only_beats_chance_and_has_its_line(demo):
    blind = json.loads((demo / "blind-evaluation/evaluation.json").read_text())["figures"]
    assert blind["student"]["accuracy"]["value"] > 0.13
    assert "blind: the same student" in (demo / "said.txt").read_text()


def test_the_report_stands_alone_and_the_table_is_printed(demo):
    page = (demo / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("<svg") >= 3
    said = (demo / "said.txt").read_text()
    assert "top-1 accuracy" in said
    assert "control" in said


def test_a_second_run_resumes_and_changes_no_figure(demo):
    before = (demo / "evaluation/evaluation.json").read_bytes()
    command = [sys.executable, "-m", "softlabel.tools.demo", "--folder", str(demo)]
    done = subprocess.run(
        [*command, "--steps", "150", "--views", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "going on in" in done.stdout
    assert (demo / "evaluation/evaluation.json").read_bytes() == before


def test_the_readmes_own_run_works_as_it_stands(real, tmp_path):
    real(teachers.efficientnet_lite0)
    root = Path(__file__).resolve().parents[2]
    text = (root / "README.md").read_text()
    script = text.split("```bash\n")[1].split("```")[0]
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "own/evaluation/report.html").is_file()
