"""kd-eval as a user runs it, on a small labelled collection whose figures are computed anew."""

import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from softlabel.shards.decoders import open_decoder
from softlabel.shards.hashing import image_hash, key_hash, sha256_of_file
from softlabel.shards.members import members
from softlabel.shards.recipe import Recipe
from softlabel.shards.schema import Manifest
from softlabel.shards.specs import open_tar
from softlabel.shards.status import Status
from softlabel.shards.store import Store
from softlabel.shards.tars import TarStream
from softlabel.tools.evaluate.cli import main
from softlabel.tools.evaluate.config import EvalConfig
from softlabel.tools.evaluate.examples import strong_disagreements, unsure_agreements
from softlabel.tools.evaluate.page import report_page
from softlabel.tools.evaluate.rows import summary
from softlabel.tools.evaluate.run import evaluate
from softlabel.tools.evaluate.table import lines
from softlabel.tools.report.figures import class_bars
from softlabel.trainer.student_files import StudentConfig, save_student

SIDE, CLASSES, TOP_K = 16, 24, 6
TEMPERATURES = (1.0, 2.0)
EVIL = "<script>alert(1)</script>"
NAMES = (EVIL, "$x$ & y", *(f"class {c}" for c in range(2, CLASSES)))
BAD, UNTARGETED = 5, (2, 7)


def recipe(side: int = SIDE, **changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "input_size": (3, side, side),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": (0.5, 0.4, 0.3),
        "std": (0.25, 0.2, 0.3),
    }
    return Recipe(**(fields | changes))


@dataclass(frozen=True)
class Sample:
    """An image of the collection as the tests know it."""

    key: str
    data: bytes
    target: int


@dataclass(frozen=True)
class Scene:
    """Tars, their labels, a student of half the input size and a control of the whole."""

    folder: Path
    samples: list[list[Sample]]

    @property
    def tars(self) -> list[str]:
        return [str(self.folder / f"t{t}.tar") for t in range(len(self.samples))]

    @property
    def labels(self) -> Path:
        return self.folder / "labels.zarr"

    @property
    def student(self) -> Path:
        return self.folder / "student"

    @property
    def control(self) -> Path:
        return self.folder / "control"

    def config(self, output: Path, **changes: Any) -> EvalConfig:
        settings: dict[str, Any] = {
            "student": self.student,
            "control": self.control,
            "shards": tuple(self.tars),
            "labels": self.labels,
            "output": output,
            "batch_size": 7,
            "workers": 2,
            "device": "cpu",
        }
        return EvalConfig(**(settings | changes))


def make_student(folder: Path, *, seed: int, side: int, **changes: Any) -> Path:
    torch.manual_seed(seed)
    fields: dict[str, Any] = {
        "name": "softlabel/small-cnn",
        "num_classes": CLASSES,
        "recipe": recipe(side),
        "class_names": None,
        "training": {"decoder": "pillow"},
    }
    described = StudentConfig(**(fields | changes))
    module = described.build()
    with torch.no_grad():
        for parameter in module.head.parameters():
            parameter.mul_(40)
    save_student(folder, module, described, card="")
    return folder


def rows_of(manifest: Manifest, tar: str, *, seed: int) -> dict[str, np.ndarray]:
    with open_tar(tar) as (file, size):
        found = list(members(TarStream(file, name=tar, size=size), image_ext=("png",)))
    n, k = len(found), manifest.top_k
    z = np.random.default_rng(seed).normal(0, 2, (n, manifest.views, CLASSES))
    for i in range(0, n, 2):  # a teacher that is right now and then
        z[i, :, max(found[i].target, 0) % CLASSES] += 5
    order = np.argsort(-z, axis=-1)
    z = np.take_along_axis(z, order, -1) - z.max(-1, keepdims=True)
    tails = [np.log(np.exp(z[..., k:] / t).sum(-1)) for t in TEMPERATURES]
    rows = {
        "topk_logit": z[..., :k].astype(np.float16),
        "topk_class": order[..., :k].astype(np.uint16),
        "tail_lse": np.stack(tails, -1).astype(np.float32),
        "max_logit": np.zeros((n, manifest.views), np.float32),
        "status": np.full(n, Status.OK, np.uint8),
        "key_hash": np.array([key_hash(m.key) for m in found], np.uint64),
        "image_hash": np.array([image_hash(m.image or b"") for m in found], np.uint64),
        "offset": np.array([m.offset for m in found], np.uint64),
        "size": np.array([m.size for m in found], np.uint32),
        "target": np.array([m.target for m in found], np.int32),
    }
    rows["status"][BAD] = Status.UNDECODABLE
    for name in ("topk_logit", "topk_class", "tail_lse"):
        rows[name][BAD] = 0
    return rows


def make_store(path: Path, tars: list[str], *, seed: int = 0, **changes: Any) -> Store:
    fields: dict[str, Any] = {
        "teacher_sha256": "ab" * 32,
        "teacher_output": "logits",
        "teacher_output_kind": "logits",
        "recipe": recipe().to_dict(),
        "decoder": "pillow",
        "max_image_pixels": 10**6,
        "image_ext": ("png",),
        "provider": "cpu",
        "views": 1,
        "view_recipe": "center",
        "view_seed": 0,
        "top_k": TOP_K,
        "temperatures": TEMPERATURES,
        "num_classes": CLASSES,
        "class_names": NAMES,
        "rows_per_tar": 256,
    }
    store = Store.create(path, Manifest(**(fields | changes)), tars)
    for number, tar in enumerate(tars):
        rows = rows_of(store.manifest, tar, seed=seed + number)
        size = Path(tar).stat().st_size
        store.write(number, rows, tar_size=size, tar_sha256=sha256_of_file(Path(tar)))
    return store


@pytest.fixture(scope="module")
def scene(tmp_path_factory, encode_image, write_tar) -> Scene:
    """Two tars of 20 and 21 images, one of each not labelled, some without a target."""
    folder = tmp_path_factory.mktemp("evaluate")
    student = make_student(folder / "student", seed=0, side=SIDE // 2)
    control = make_student(folder / "control", seed=1, side=SIDE, training={})
    rng = np.random.default_rng(5)
    samples = []
    for t in range(2):
        own = []
        for i in range(20 + t):
            data = encode_image(100 * t + i, height=SIDE, width=SIDE)
            target = [
                int(np.argmax(student_probabilities(student, data, SIDE // 2))),
                int(np.argmax(student_probabilities(control, data, SIDE))),
                int(rng.integers(CLASSES)),
            ][i % 3]
            target = -1 if i in UNTARGETED else target
            key = f"{EVIL}/im{i:03d}" if i == 0 else f"d{t}/im{i:03d}"
            own.append(Sample(key, data, target))
        files = []
        for sample in own:
            files.append((f"{sample.key}.png", sample.data))
            if sample.target >= 0:
                files.append((f"{sample.key}.cls", b"%d" % sample.target))
        write_tar(folder / f"t{t}.tar", files)
        samples.append(own)
    made = Scene(folder, samples)
    make_store(made.labels, made.tars)
    return made


@pytest.fixture(scope="module")
def result(scene, tmp_path_factory) -> Path:
    """The output of one run."""
    output = tmp_path_factory.mktemp("result")
    assert run(scene, output, "--control", scene.control) == 0
    return output


def run(scene: Scene, output: Path, *flags: Any, **instead: Any) -> int:
    """kd-eval's exit code; `instead` replaces one of the four flags that every run has."""
    settings = {
        "student": scene.student,
        "shards": " ".join(scene.tars),
        "labels": scene.labels,
        "output": output,
    } | instead
    argv = [
        part
        for name, value in settings.items()
        if value is not None
        for part in (f"--{name}", *str(value).split())
    ]
    with pytest.raises(SystemExit) as stop:
        commandline_main([*argv, "--device", "cpu", "--workers", "2", *map(str, flags)])
    return int(stop.value.code or 0)


def commandline_main(argv: list[str]) -> None:
    before = sys.argv
    sys.argv = ["kd-eval", *argv]
    try:
        main()
    finally:
        sys.argv = before


def ok_samples(scene: Scene) -> list[tuple[int, int, Sample]]:
    return [
        (t, i, sample)
        for t, own in enumerate(scene.samples)
        for i, sample in enumerate(own)
        if i != BAD
    ]


def student_probabilities(folder: Path, data: bytes, side: int) -> list[float]:
    """By Pillow, torch and the definition, without any of the code under test but the loader."""
    from softlabel.trainer.student_files import load_student

    module, _ = load_student(folder)
    image = Image.open(io.BytesIO(data)).convert("RGB")
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    x = (np.asarray(image, np.float64) / 255 - recipe().mean) / recipe().std
    with torch.no_grad():
        logits = module(torch.from_numpy(x).float().permute(2, 0, 1)[None])[0].double().tolist()
    weights = [math.exp(z - max(logits)) for z in logits]
    return [w / sum(weights) for w in weights]


@pytest.fixture(scope="module")
def truth(scene) -> list[dict[str, Any]]:
    """For each labelled image: target, stored labels, student's and control's probabilities."""
    store_rows = [rows_of(Manifest(**manifest_fields(scene)), tar, seed=t)
                  for t, tar in enumerate(scene.tars)]  # fmt: skip
    found = []
    for t, i, sample in ok_samples(scene):
        logit = store_rows[t]["topk_logit"][i, 0].astype(float).tolist()
        tail = math.exp(float(store_rows[t]["tail_lse"][i, 0, 0]))
        total = sum(map(math.exp, logit)) + tail
        found.append(
            {
                "target": sample.target,
                "classes": store_rows[t]["topk_class"][i, 0].tolist(),
                "head": [math.exp(z) / total for z in logit],
                "tail": tail / total,
                "student": student_probabilities(scene.student, sample.data, SIDE // 2),
                "control": student_probabilities(scene.control, sample.data, SIDE),
            }
        )
    return found


def manifest_fields(scene: Scene) -> dict[str, Any]:
    from softlabel.shards.store import open_store

    manifest = open_store(scene.labels).manifest
    return {name: getattr(manifest, name) for name in manifest.to_dict()}


def mean(values: Any) -> float:
    found = list(values)
    return sum(found) / len(found)


def ece(pairs: list[tuple[float, bool]]) -> float:
    bins: dict[int, float] = {}
    for confidence, correct in pairs:
        number = max(math.ceil(confidence * 15) - 1, 0)
        bins[number] = bins.get(number, 0.0) + confidence - correct
    return sum(map(abs, bins.values())) / len(pairs)


def top(row: dict[str, Any], role: str, count: int) -> list[int]:
    if role == "teacher":
        return row["classes"][:count]
    return sorted(range(CLASSES), key=lambda c: (-row[role][c], c))[:count]


@pytest.mark.parametrize("role", ["student", "teacher", "control"])
def test_every_figure_is_what_a_direct_computation_gives(result, truth, role):
    figures = json.loads((result / "evaluation.json").read_text())["figures"][role]
    known = [row for row in truth if row["target"] >= 0]

    def sure(row):
        return row["head"][0] if role == "teacher" else max(row[role])

    def right(row):
        return top(row, role, 1)[0] == row["target"]

    worst = sorted(by_class_accuracy([(row["target"], right(row)) for row in known]))
    expected = {
        "accuracy": mean(right(row) for row in known),
        "accuracy_top5": mean(row["target"] in top(row, role, 5) for row in known),
        "ece": ece([(sure(row), right(row)) for row in known]),
        "ece_adaptive": adaptive_ece([(sure(row), right(row)) for row in known]),
        "worst_class_accuracy": worst[0],
        "worst_decile_accuracy": mean(worst[: math.ceil(len(worst) / 10)]),
        "confidence": mean(map(sure, truth)),
    }
    if role != "teacher":
        q = [row[role] for row in truth]
        expected |= {
            "agreement": mean(top(r, role, 1) == top(r, "teacher", 1) for r in truth),
            "top5_overlap": mean(
                len({*top(r, role, 5)} & {*top(r, "teacher", 5)}) / 5 for r in truth
            ),
            "kl": mean(bucket_kl(row, role) for row in truth),
            "tv": mean(sum(abs(p - q) for p, q in buckets(row, role)) / 2 for row in truth),
            "conf_slope": np.polyfit(
                [log_odds(row["head"][0]) for row in truth],
                [log_odds(p[row["classes"][0]]) for p, row in zip(q, truth, strict=True)],
                1,
            )[0],
            "nll": mean(-math.log(row[role][row["target"]]) for row in known),
            "brier": mean(
                sum((p - (c == row["target"])) ** 2 for c, p in enumerate(row[role]))
                for row in known
            ),
        }
    assert {name: figure["value"] for name, figure in figures.items()} == {
        name: pytest.approx(value, rel=1e-4, abs=1e-7) for name, value in expected.items()
    }
    of_targets = {"accuracy", "accuracy_top5", "ece", "ece_adaptive", "nll", "brier"}
    for name, figure in figures.items():
        assert figure["low"] <= figure["value"] <= figure["high"]
        has_target = name in of_targets or name.startswith("worst")
        assert figure["n"] == len(known if has_target else truth)


def by_class_accuracy(pairs: list[tuple[int, bool]]) -> list[float]:
    return [mean(right for c, right in pairs if c == wanted) for wanted in {c for c, _ in pairs}]


def adaptive_ece(pairs: list[tuple[float, bool]]) -> float:
    """No two confidences are equal here."""
    pairs = sorted(pairs)
    ends = [math.ceil(len(pairs) * b / 15) for b in range(16)]
    parts = [pairs[low:high] for low, high in pairwise(ends)]
    return sum(abs(sum(p - right for p, right in part)) for part in parts) / len(pairs)


def log_odds(p: float) -> float:
    return math.log(p / (1 - p))


def buckets(row: dict[str, Any], role: str) -> list[tuple[float, float]]:
    q = row[role]
    pairs = [(p, q[c]) for c, p in zip(row["classes"], row["head"], strict=True)]
    return [*pairs, (row["tail"], sum(q[c] for c in range(CLASSES) if c not in row["classes"]))]


def bucket_kl(row: dict[str, Any], role: str) -> float:
    return sum(p * math.log(p / q) for p, q in buckets(row, role))


def test_differences_are_those_of_the_values_and_narrower_than_two_intervals_together(result):
    content = json.loads((result / "evaluation.json").read_text())
    figures, differences = content["figures"], content["student_minus_control"]
    assert set(differences) == set(figures["student"])
    for name, found in differences.items():
        student, control = figures["student"][name], figures["control"][name]
        assert found["value"] == pytest.approx(student["value"] - control["value"])
        assert found["low"] <= found["value"] <= found["high"]
    for name in ("agreement", "kl", "confidence"):
        wide = sum(figures[role][name]["high"] - figures[role][name]["low"]
                   for role in ("student", "control"))  # fmt: skip
        assert differences[name]["high"] - differences[name]["low"] < wide


def test_kl_and_total_variation_of_merged_classes_are_called_lower_bounds(result):
    content = json.loads((result / "evaluation.json").read_text())
    assert content["lower_bounds"] == ["kl", "tv"]
    assert "nats (lower bound)" in (result / "evaluation.md").read_text()


def test_images_without_labels_are_counted_and_left_out(result, scene, truth):
    images = json.loads((result / "evaluation.json").read_text())["images"]
    assert images == {
        "evaluated": len(truth),
        "with_target": sum(row["target"] >= 0 for row in truth),
        "left_out": {"undecodable": 2},
    }


@pytest.mark.parametrize("role", ["student", "control"])
def test_agreement_by_class_is_by_the_teachers_class_and_accuracy_by_target(result, truth, role):
    content = json.loads((result / "evaluation.json").read_text())
    agreement, accuracy = (content[f"{n}_by_class"][role] for n in ("agreement", "accuracy"))
    for c in range(CLASSES):
        of_teacher = [row for row in truth if row["classes"][0] == c]
        of_target = [row for row in truth if row["target"] == c]
        assert agreement["count"][c] == len(of_teacher)
        assert accuracy["count"][c] == len(of_target)
        if of_teacher:
            expected = mean(top(row, role, 1) == [c] for row in of_teacher)
            assert agreement["mean"][c] == pytest.approx(expected)
        if of_target:
            expected = mean(top(row, role, 1) == [c] for row in of_target)
            assert accuracy["mean"][c] == pytest.approx(expected)


def test_per_image_answers_stand_beside_their_place_in_the_tars(scene, truth, tmp_path):
    found = evaluate(scene.config(tmp_path))
    places = list(zip(found.images.tar.tolist(), found.images.member.tolist(), strict=True))
    assert places == [(t, i) for t, i, _ in ok_samples(scene)]
    assert found.images.target.tolist() == [row["target"] for row in truth]
    for i, row in enumerate(truth):
        assert found.answers["student"].classes[i].tolist() == top(row, "student", 5)
        assert found.answers["teacher"].classes[i].tolist() == row["classes"][:5]
        assert found.answers["teacher"].probability[i] == pytest.approx(row["head"][:5])


def test_batch_size_and_workers_change_no_figure(scene, result, tmp_path):
    first = json.loads((result / "evaluation.json").read_text())["figures"]
    second = evaluate(scene.config(tmp_path, batch_size=3, workers=1)).to_dict()["figures"]
    for role, figures in first.items():
        for name, figure in figures.items():
            assert second[role][name] == pytest.approx(figure, rel=1e-5)


def test_the_table_has_a_row_for_each_figure_and_a_column_for_each_model(scene, tmp_path, capsys):
    assert run(scene, tmp_path, "--control", scene.control) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["student", "teacher", "control", "student", "-", "control", "n"]
    assert [line for line in said if line in {"Fidelity", "Generalisation"}] == [
        "Fidelity", "Generalisation",
    ]  # fmt: skip
    content = json.loads((tmp_path / "evaluation.json").read_text())["figures"]
    rows = {line.strip().partition("  ")[0]: line for line in said}
    for title, name in (
        ("top-1 accuracy", "accuracy"),
        ("agreement with the teacher", "agreement"),
    ):
        assert f"{content['student'][name]['value']:.1%}" in rows[title]
        assert rows[title].split()[-1] == str(content["student"][name]["n"])
    assert rows["agreement with the teacher"].split()[7] == "-"
    assert "note: left out: 2 undecodable" in said


def test_the_table_says_where_a_role_has_another_number_of_images(scene, tmp_path):
    found = evaluate(scene.config(tmp_path))
    own = dict(found.figures["control"])
    own["agreement"] = replace(own["agreement"], n=17)
    said = list(lines(replace(found, figures={**found.figures, "control": own})))
    place = [n for n, line in enumerate(said) if line.startswith("  agreement with the")]
    assert said[place[0] + 1] == "    n of others: control 17"
    assert sum("n of others" in line for line in said) == 1


def test_a_class_without_an_image_has_no_bar_and_each_figure_has_its_own_classes(
    scene, tmp_path, monkeypatch
):
    drawn = {}

    def note(names, series, *, label):
        drawn[label] = (list(names), series)
        return class_bars(names, series, label=label)

    monkeypatch.setattr("softlabel.tools.evaluate.page.class_bars", note)
    found = evaluate(scene.config(tmp_path))
    empty = replace(found.accuracy_by_class["teacher"], count=np.zeros(CLASSES, np.int64))
    accuracies = {**found.accuracy_by_class, "teacher": empty}
    report_page(replace(found, accuracy_by_class=accuracies))
    of_target, of_teacher = (
        [NAMES[c] for c in np.flatnonzero(by_role["student"].count)]
        for by_role in (found.accuracy_by_class, found.agreement_by_class)
    )
    assert of_target != of_teacher
    for label, wanted in (("accuracy", of_target), ("agreement with the teacher", of_teacher)):
        assert set(drawn[label][0]) <= set(wanted)
        assert len(drawn[label][0]) == min(len(wanted), 20)
        assert not np.isnan(drawn[label][1]["student"]).any()
    assert np.isnan(drawn["accuracy"][1]["teacher"]).all()


def test_the_page_tells_of_the_labels_of_the_evaluated_tars_only(scene, tmp_path):
    page = report_page(evaluate(scene.config(tmp_path, shards=(scene.tars[0],))))
    assert "19 ok, 1 undecodable" in page


def test_one_image_is_said_to_be_one_and_too_few_for_cka(
    scene, teacher, tmp_path, write_tar, monkeypatch
):
    monkeypatch.setenv("SOFTLABEL_CACHE", str(tmp_path / "cache"))
    tar = str(write_tar(tmp_path / "one.tar", [("a.png", scene.samples[0][0].data)]))
    found = evaluate(
        scene.config(tmp_path / "o", teacher=teacher(), labels=None, shards=(tar,), embedding="f")
    )
    assert summary(found).startswith("1 image of 1 tar,")
    assert "no CKA of the student: one image is too few" in found.notes


def test_the_main_results_stay_when_a_later_part_fails(scene, tmp_path, monkeypatch):
    def fail(*args, **settings):
        raise RuntimeError("later")

    monkeypatch.setattr("softlabel.tools.evaluate.further.stress", fail)
    with pytest.raises(RuntimeError, match="later"):
        run(scene, tmp_path, "--attacks", "fgsm")
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content["figures"]["student"]["agreement"]["n"] == 39
    assert [note for note in content["notes"] if note.startswith("unfinished")]
    assert (tmp_path / "evaluation.md").exists()


def test_the_figures_stay_when_the_page_fails_and_no_page_of_others_does(
    scene, tmp_path, monkeypatch
):
    def fail(evaluation):
        raise RuntimeError("page")

    (tmp_path / "report.html").write_text("of an earlier run")
    monkeypatch.setattr("softlabel.tools.evaluate.run.report_page", fail)
    with pytest.raises(RuntimeError, match="page"):
        run(scene, tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text())["figures"]
    assert not (tmp_path / "report.html").exists()


def test_foreign_tars_that_cannot_be_are_refused_before_the_main_pass(
    scene, tmp_path, write_tar, monkeypatch, capsys
):
    def never(*args, **settings):
        raise AssertionError("the main pass was begun")

    monkeypatch.setattr("softlabel.tools.evaluate.run.ask", never)
    bad = write_tar(tmp_path / "bad.tar", [("a.png", b"no")])
    (tmp_path / "cut.tar").write_bytes(Path(scene.tars[0]).read_bytes()[:700])
    for tar, said in (
        (bad, "--ood-shards: wanted images, found none that can be decoded"),
        (tmp_path / "cut.tar", "cut.tar"),
        (tmp_path / "none.tar", "--ood-shards: 1 of 1 tars not found"),
        (scene.tars[1], "--ood-shards: wanted tars of other images, found 1"),
    ):
        assert run(scene, tmp_path / "out", "--ood-shards", tar) > 1
        error = capsys.readouterr().err
        assert said in error
        assert "--shards:" not in error.replace("--ood-shards:", "")


def test_tars_named_on_standard_input_are_labelled_by_a_teacher(
    scene, teacher, tmp_path, monkeypatch
):
    monkeypatch.setenv("SOFTLABEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.stdin", io.StringIO(scene.tars[0] + "\n"))
    assert run(scene, tmp_path / "o", "--teacher", teacher(), labels=None, shards="-") == 0


def test_without_control_and_targets_their_figures_are_missing(scene, tmp_path, write_tar):
    files = [(f"a{i}.png", s.data) for i, s in enumerate(scene.samples[0])]
    tar = str(write_tar(tmp_path / "plain.tar", files))
    make_store(tmp_path / "l.zarr", [tar])
    config = scene.config(
        tmp_path,
        shards=(tar,),
        labels=tmp_path / "l.zarr",
        control=None,
        degradations=("contrast",),
        attacks=("fgsm",),
        stress_images=3,
    )
    found = evaluate(config)
    content = found.to_dict()
    assert "degradations" not in content
    # Made-up labels, none of which the student gives.
    assert content["adversarial"]["figures"] == {"student": {}}
    assert any("the student answered none of the 3" in note for note in content["notes"])
    assert not [line for line in lines(found) if line.startswith(("Generalisation", "Degradation"))]
    assert set(content["figures"]) == {"student", "teacher"}
    assert set(content["figures"]["student"]) == {
        "agreement", "top5_overlap", "kl", "tv", "conf_slope", "confidence",
    }  # fmt: skip
    assert any(note.startswith("no targets") for note in content["notes"])
    assert content["student_minus_control"] == {}
    assert content["reliability"] == {}
    assert "whether that confidence is earned" in report_page(found)


def test_targets_of_another_list_of_classes_are_not_used_and_that_is_said(
    scene, tmp_path, write_tar
):
    files = [(f"a{i}.png", s.data) for i, s in enumerate(scene.samples[0])]
    tar = str(write_tar(tmp_path / "other.tar", [*files, ("z.png", files[0][1]), ("z.cls", b"99")]))
    make_store(tmp_path / "l.zarr", [tar])
    found = evaluate(scene.config(tmp_path, shards=(tar,), labels=tmp_path / "l.zarr"))
    assert "accuracy" not in found.figures["student"]
    assert any("count differently" in note for note in found.notes)


def test_another_view_recipe_uses_view_0_and_says_so(scene, tmp_path):
    labels = tmp_path / "l.zarr"
    store = make_store(labels, scene.tars, views=3, view_recipe="rrc")
    found = evaluate(scene.config(tmp_path, labels=labels))
    rows = {name: value[0, 0] for name, value in store.read(0).items() if value.ndim > 1}
    total = np.exp(rows["topk_logit"].astype(float)).sum() + np.exp(rows["tail_lse"][0])
    assert found.answers["teacher"].classes[0].tolist() == rows["topk_class"][:5].tolist()
    assert found.answers["teacher"].confidence[0] == pytest.approx(1 / total)
    assert any("view 0 of recipe rrc" in note for note in found.notes)


def test_each_model_gets_the_decoder_that_it_was_trained_with_or_else_the_labels(
    scene, tmp_path, monkeypatch
):
    other = make_student(tmp_path / "s", seed=0, side=8, training={"decoder": "torchvision"})
    opened = []

    def open_and_note(name: str, **settings: Any) -> Any:
        opened.append(name)
        return open_decoder(name, **settings)

    monkeypatch.setattr("softlabel.tools.evaluate.reading.open_decoder", open_and_note)
    evaluate(scene.config(tmp_path, student=other))
    assert opened == ["torchvision", "pillow"]


def test_a_student_of_this_very_store_or_of_another_teacher_is_noted(scene, tmp_path):
    store_id = make_store(tmp_path / "l.zarr", scene.tars).store_id
    seen = make_student(tmp_path / "s", seed=0, side=8, training={"store_id": store_id})
    other = make_student(tmp_path / "o", seed=0, side=8, training={"teacher_sha256": "cd" * 32})
    config = scene.config(tmp_path, labels=tmp_path / "l.zarr", student=seen, control=other)
    notes = evaluate(config).notes
    assert any(note.startswith("the student was trained on labels of this very") for note in notes)
    assert any(note.startswith("the control was trained on labels of another") for note in notes)


def test_examples_are_sure_disagreements_and_unsure_agreements_in_order(scene, truth, tmp_path):
    found = evaluate(scene.config(tmp_path))
    sure = [max(row["student"]) for row in truth]
    agree = [top(row, "student", 1) == top(row, "teacher", 1) for row in truth]
    both = [max(row["student"]) * row["head"][0] for row in truth]
    expected = sorted((i for i, same in enumerate(agree) if same), key=lambda i: sure[i])
    assert unsure_agreements(found).tolist() == expected[:12]
    expected = sorted((i for i, same in enumerate(agree) if not same), key=lambda i: -both[i])
    assert strong_disagreements(found).tolist() == expected[:12]


def test_the_markdown_has_every_group_as_a_table_with_the_number_of_images(result):
    said = (result / "evaluation.md").read_text()
    for title in ("## Fidelity", "## Generalisation", "## Models", "## Notes"):
        assert title in said
    rows = [line for line in said.splitlines() if line.startswith("| agreement")]
    figures = json.loads((result / "evaluation.json").read_text())["figures"]["student"]
    assert f"| 39 | {figures['agreement']['value']:.1%} " in rows[0]
    assert {line.count(" | ") for line in said.splitlines() if "[" in line and "|" in line} == {5}


def test_the_report_is_one_file_that_escapes_names_and_keys(result):
    page = (result / "report.html").read_text()
    assert EVIL not in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.search(r"https?://", page)
    assert page.count("data:image/png;base64,") >= 12
    for said in ("Strongest disagreements", "accuracy over confidence", "d0/im", "mean entropy"):
        assert said in page


@pytest.mark.parametrize("both", [True, False])
def test_both_or_neither_of_teacher_and_labels_is_exit_2(scene, tmp_path, capsys, both):
    flags = ("--teacher", "t.onnx") if both else ()
    assert run(scene, tmp_path, *flags, **({} if both else {"labels": None})) == 2
    assert "one of --teacher T.onnx and --labels STORE" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["student", "control"])
def test_a_missing_student_is_exit_2(scene, tmp_path, capsys, flag):
    missing = tmp_path / "none"
    code = (
        run(scene, tmp_path, student=missing)
        if flag == "student"
        else run(scene, tmp_path, "--control", missing)
    )
    assert code == 2
    assert f"--{flag} {missing}: wanted the folder of a student" in capsys.readouterr().err


@pytest.mark.parametrize("role", ["student", "control"])
def test_a_student_with_another_number_of_classes_is_exit_4(scene, tmp_path, capsys, role):
    other = make_student(tmp_path / "other", seed=0, side=8, num_classes=7)
    flags = ("--control", other) if role == "control" else ()
    instead = {"student": other} if role == "student" else {}
    assert run(scene, tmp_path / "out", *flags, **instead) == 4
    assert "has 7 classes" in capsys.readouterr().err


def test_a_store_without_the_tars_is_exit_4(scene, tmp_path, write_tar):
    tar = write_tar(tmp_path / "unknown.tar", [("a.png", scene.samples[0][0].data)])
    assert run(scene, tmp_path / "out", shards=tar) == 4


def test_a_tar_whose_images_were_exchanged_is_exit_4(scene, tmp_path, capsys):
    changed = tmp_path / "t0.tar"
    data = Path(scene.tars[0]).read_bytes()
    first = scene.samples[0][1].data
    assert data.count(first) == 1
    changed.write_bytes(data.replace(first, first[:-20] + bytes(20)))
    assert run(scene, tmp_path / "out", shards=changed) == 4
    assert "not the image that was labelled" in capsys.readouterr().err


def test_a_tar_of_another_size_is_exit_4(scene, tmp_path, capsys):
    longer = tmp_path / "t0.tar"
    longer.write_bytes(Path(scene.tars[0]).read_bytes() + bytes(512))
    assert run(scene, tmp_path / "out", shards=longer) == 4
    assert "when it was labelled" in capsys.readouterr().err


def test_a_tar_that_is_not_labelled_yet_is_exit_2(scene, tmp_path, capsys):
    store = make_store(tmp_path / "l.zarr", scene.tars)
    (store.path / "commits/000001.json").unlink()
    assert run(scene, tmp_path / "out", labels=store.path) == 2
    assert "1 of 2 tars are not labelled yet" in capsys.readouterr().err


def test_a_student_whose_logits_are_not_finite_is_exit_2(scene, tmp_path, capsys):
    from softlabel.trainer.student_files import load_student

    module, described = load_student(scene.student)
    with torch.no_grad():
        module.head.bias.fill_(float("nan"))
    save_student(tmp_path / "nan", module, described, card="")
    assert run(scene, tmp_path / "out", student=tmp_path / "nan") == 2
    assert "not finite" in capsys.readouterr().err


def test_a_students_factory_runs_only_if_it_is_named(scene, tmp_path, capsys):
    name = "softlabel.trainer.small_cnn:SmallCNN"
    built = make_student(tmp_path / "built", seed=0, side=8, name=name)
    assert run(scene, tmp_path / "out", student=built) == 2
    assert f"add --factory {name}" in capsys.readouterr().err
    assert run(scene, tmp_path / "out", "--factory", name, student=built) == 0


@pytest.fixture
def teacher(tmp_path) -> Callable[..., Path]:
    """(num_classes) -> a linear ONNX teacher with its recipe in its metadata."""

    def make(num_classes: int = CLASSES, *, seed: int = 0) -> Path:
        weight = np.random.default_rng(seed).normal(0, 0.2, (3 * SIDE * SIDE, num_classes))
        graph = helper.make_graph(
            [
                helper.make_node("Flatten", ["x"], ["f"]),
                helper.make_node("MatMul", ["f", "w"], ["logits"]),
            ],
            "teacher",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", num_classes])],
            [numpy_helper.from_array(weight.astype(np.float32), "w")],
        )
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8)
        model.metadata_props.add(key="softlabel.recipe", value=json.dumps(recipe().to_dict()))
        path = tmp_path / f"teacher{num_classes}-{seed}.onnx"
        onnx.save(model, path)
        return path

    return make


def test_a_teacher_labels_the_tars_once_and_then_counts_as_its_labels_do(
    scene, teacher, tmp_path, monkeypatch
):
    monkeypatch.setenv("SOFTLABEL_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    assert run(scene, out, "--teacher", teacher(), labels=None) == 0
    labels = out / "teacher-labels.zarr"
    manifest = json.loads((labels / "manifest.json").read_text())
    assert (manifest["top_k"], manifest["decoder"]) == (CLASSES, "pillow")
    before = {p: p.stat().st_mtime_ns for p in labels.glob("commits/*.json")}
    config = scene.config(out, teacher=teacher(), labels=None, control=None)
    assert evaluate(config).to_dict() == json.loads((out / "evaluation.json").read_text())
    assert before == {p: p.stat().st_mtime_ns for p in labels.glob("commits/*.json")}
    same = evaluate(scene.config(tmp_path / "again", labels=labels, control=None)).to_dict()
    assert same == evaluate(config).to_dict()


def test_every_part_that_is_asked_for_is_in_every_form_of_the_result(
    scene, teacher, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("SOFTLABEL_CACHE", str(tmp_path / "cache"))
    flags = ("--control", scene.control, "--teacher", teacher(), "--ood-shards", scene.tars[1])
    flags += ("--degradations", "jpeg", "contrast", "--attacks", "all", "--attack-steps", 2)
    out = tmp_path / "out"
    shards = scene.tars[0]
    assert run(scene, out, *flags, "--stress-images", 9, shards=shards, labels=None) == 0
    said = capsys.readouterr().out
    content = json.loads((out / "evaluation.json").read_text())
    page, text = ((out / name).read_text() for name in ("report.html", "evaluation.md"))
    assert content["ood"]["images"]["teacher"] == {"id": 20, "ood": 21}
    assert content["ood"]["student_minus_control"]["energy/auroc"]["n"] == 41
    assert content["degradations"]["kinds"] == ["contrast", "jpeg"]
    assert content["degradations"]["figures"]["teacher"]["accuracy/jpeg/3"]["n"] <= 9
    assert content["adversarial"]["attacks"]["pgd"]["steps"] == 2
    energy = content["ood"]["figures"]["student"]["energy/auroc"]["value"]
    for form in (said, text, page):
        for line in (
            "20 images of the collection, 21 others",
            "9 images at 16 x 16, means over severities 1-5",
            "fgsm eps 8/255; pgd eps 8/255, step 10/255, 2 steps, 1 start",
            "energy: AUROC",
            f"{energy:.4f} [",
            "agreement, mean of all",
            "pgd: teacher fooled (transfer)",
        ):
            assert line in form
    assert "true over false positive rate" in page
    assert "accuracy, agreement over severity" in page
    assert [line for line in said.splitlines() if re.match("(OOD|Degradation|Adversarial) ", line)]


def test_with_labels_only_the_parts_are_the_students_and_that_is_said(scene, tmp_path, write_tar):
    foreign = write_tar(tmp_path / "f.tar", [("x.png", scene.samples[1][0].data)])
    changes = {"shards": (scene.tars[0],), "attacks": ("fgsm",), "degradations": ("contrast",)}
    found = evaluate(
        scene.config(tmp_path / "o", ood_shards=(str(foreign),), stress_images=5, **changes)
    )
    content = found.to_dict()
    assert set(content["ood"]["figures"]) == {"student", "control"}
    assert set(content["degradations"]["figures"]) == {"student", "control"}
    assert not [n for n in content["degradations"]["figures"]["student"] if "agreement" in n]
    assert not [n for n in content["adversarial"]["figures"]["student"] if "transfer" in n]
    assert sum("--teacher" in note for note in content["notes"]) == 2
    assert report_page(found)


def test_labels_of_foreign_images_give_the_teachers_scores(scene, tmp_path):
    config = scene.config(
        tmp_path / "o",
        shards=(scene.tars[0],),
        ood_shards=(scene.tars[1],),
        ood_labels=scene.labels,
    )
    figures = evaluate(config).to_dict()["ood"]["figures"]
    assert {name.partition("/")[0] for name in figures["teacher"]} == {
        "max_softmax", "energy", "max_logit",
    }  # fmt: skip


def test_the_names_of_degradations_and_attacks_are_those_that_there_are():
    from softlabel.tools.evaluate.stress import attacks, degrade

    settings = {"student": Path(), "shards": ("a",), "output": Path(), "labels": Path()}
    everything = EvalConfig(**settings, degradations=("all",), attacks=("all",))
    assert everything.degradation_kinds == degrade.KINDS
    assert everything.attack_kinds == attacks.KINDS
    nothing = EvalConfig(**settings)
    assert nothing.degradation_kinds == nothing.attack_kinds == ()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--degradations", "all", "jpeg"), "--degradations: wanted none, all or names"),
        (("--attacks", "none", "pgd"), "--attacks: wanted none, all or names"),
        (("--attack-eps", "8"), "--attack-eps: wanted 1/255 to 1"),
        (("--attack-step-size", "0"), "--attack-step-size: wanted above 0"),
        (("--workers", "0"), "--workers: wanted at least 1, found 0"),
        (("--attack-eps", "0.1"), "--attack-eps: only beside --attacks"),
        (("--attack-restarts", "2"), "--attack-restarts: only beside --attacks"),
        (("--attack-steps", "3", "--degradations", "jpeg"), "--attack-steps: only beside"),
        (("--stress-images", "9"), "--stress-images: only beside --attacks or --degradations"),
        (("--attack-steps", "0"), "--attack-steps: wanted at least 1"),
        (("--stress-images", "0"), "--stress-images: wanted at least 1"),
        (("--ood-labels", "x"), "--ood-labels: only beside --labels and --ood-shards"),
    ],
)
def test_settings_that_cannot_be_are_exit_2(scene, tmp_path, capsys, flags, said):
    assert run(scene, tmp_path, *flags) == 2
    assert said in capsys.readouterr().err


def test_another_teacher_over_the_labels_of_the_first_is_exit_4(
    scene, teacher, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("SOFTLABEL_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    first = scene.config(out, teacher=teacher(), shards=(scene.tars[0],), labels=None)
    evaluate(first)
    flags = ("--teacher", teacher(seed=1))
    assert run(scene, out, *flags, shards=scene.tars[0], labels=None) == 4
    assert "another --output" in capsys.readouterr().err


def test_a_teacher_with_other_classes_than_the_student_is_exit_4_before_it_labels(
    scene, teacher, tmp_path
):
    assert run(scene, tmp_path / "out", "--teacher", teacher(9), labels=None) == 4
    assert not (tmp_path / "out").exists()


def test_help_and_usage_errors_load_neither_torch_nor_zarr(tmp_path):
    code = (
        "import sys\n"
        "from softlabel.tools.evaluate.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'zarr', 'onnxruntime', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    missing = ["--student", str(tmp_path), "--shards", "x", "--labels", "y", "--output", "z"]
    for argv in (["--help"], ["--no-such-flag"], missing):
        done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
