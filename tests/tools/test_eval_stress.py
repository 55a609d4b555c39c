"""Degradation and attack figures from tars, against the same computed picture by picture."""

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from softlabel.shards.progress import Progress
from softlabel.tools.evaluate.stress.attacks import craft, make_attack, noisy
from softlabel.tools.evaluate.stress.chosen import choose
from softlabel.tools.evaluate.stress.degrade import SEVERITIES, degrade, resized
from softlabel.tools.evaluate.stress.run import stress

KINDS = ("gaussian_noise", "pixelate")
FEW = 13


@pytest.fixture(scope="module")
def run(asked):
    """(changes) -> the result, on all models and images unless said otherwise."""

    def stressed(**changes):
        settings = {
            "teacher": asked.teacher, "kinds": KINDS, "num_images": 1000, "batch_size": 8,
            "attacks": (make_attack("fgsm"), make_attack("pgd", steps=3)), "workers": 2,
            "progress": Progress("testing", total=1, done=0, log_format="text"),
        } | changes  # fmt: skip
        models, images = settings.pop("models", asked.models), settings.pop("images", asked.images)
        return stress(models, asked.labelled, images, **settings)

    return stressed


@pytest.fixture(scope="module")
def found(run):
    return run()


def untargeted(images):
    return replace(images, target=np.full_like(images.target, -1))


def first(model, pixels):
    with torch.no_grad():
        x = (pixels / 255 - model.described.recipe.mean) / model.described.recipe.std
        return model.module(torch.from_numpy(x).float().permute(0, 3, 1, 2)).argmax(1).numpy()


def test_degradation_figures_are_what_counting_gives(asked, found):
    student, control = asked.models
    large = asked.pixels(asked.id_tars, 16)  # the control's size is the largest
    target, keys = asked.images.target, asked.images.key_hash.tolist()
    known = target >= 0
    for kind in KINDS:
        shares = {"student": [], "control": []}
        agreed = {"student": [], "control": []}
        for severity in SEVERITIES:
            made = np.stack([degrade(p, kind, severity, key_hash=k)
                             for p, k in zip(large, keys, strict=True)])  # fmt: skip
            answers = {"student": first(student, resized(made, 8, 8)),
                       "control": first(control, made)}  # fmt: skip
            # The student is a copy of the teacher: it agrees with it on every picture.
            for role, own in answers.items():
                shares[role].append((own == target)[known].mean())
                agreed[role].append((own == answers["student"]).mean())
                figures = found.degradations.figures[role]
                for metric, wanted in (("accuracy", shares), ("agreement", agreed)):
                    value = figures[f"{metric}/{kind}/{severity}"].value
                    assert value == pytest.approx(wanted[role][-1])
        clean = {"student": first(student, resized(large, 8, 8)), "control": first(control, large)}
        for role, own in clean.items():
            figures = found.degradations.figures[role]
            accuracy, agreement = (own == target)[known].mean(), (own == clean["student"]).mean()
            assert figures["accuracy/clean"].value == pytest.approx(accuracy)
            assert figures["agreement/clean"].value == pytest.approx(agreement)
            assert figures[f"accuracy/{kind}/mean"].value == pytest.approx(np.mean(shares[role]))
            assert figures[f"agreement/{kind}/relative"].value == pytest.approx(
                np.mean(agreed[role]) / agreement
            )
            assert figures[f"accuracy/{kind}/mean"].n == known.sum()
            assert figures[f"agreement/{kind}/mean"].n == len(target)


def test_the_copy_agrees_with_its_teacher_on_every_degraded_picture(found):
    own = found.degradations.figures
    assert {own["student"][f"agreement/{k}/{s}"].value for k in KINDS for s in SEVERITIES} == {1.0}
    assert own["teacher"]["accuracy/all/mean"] == own["student"]["accuracy/all/mean"]
    assert not any(name.startswith("agreement") for name in own["teacher"])


def test_the_mean_of_all_kinds_and_the_difference_to_the_control_add_up(found):
    own = found.degradations
    for role in ("student", "control"):
        kinds = [own.figures[role][f"accuracy/{kind}/mean"].value for kind in KINDS]
        assert own.figures[role]["accuracy/all/mean"].value == pytest.approx(np.mean(kinds))
    for name, figure in own.differences.items():
        ours, theirs = own.figures["student"][name], own.figures["control"][name]
        assert figure.value == pytest.approx(ours.value - theirs.value)
    assert "agreement/all/relative" in own.differences
    assert len(own.curve("student", "accuracy", "pixelate")) == 6
    assert own.curve("teacher", "agreement", "pixelate") == []


def test_attack_figures_are_what_counting_gives(asked, found):
    target, label = asked.images.target, first(asked.models[0], asked.pixels(asked.id_tars))
    known, keys = target >= 0, asked.images.key_hash
    for model in asked.models:
        own = asked.pixels(asked.id_tars, model.described.recipe.height)
        for attack in found.adversarial.attacks:
            wanted = np.where(known, target, label)
            pictures = (
                own,
                craft(model, own, wanted, attack, key_hash=keys),
                noisy(own, attack, key_hash=keys),
            )
            student = np.stack([first(model, p) for p in pictures])
            # What the teacher says, by its copy.
            teacher = np.stack([first(asked.models[0], resized(p, 8, 8)) for p in pictures])
            figures = found.adversarial.figures[model.role]

            def value(name, figures=figures, attack=attack):
                return figures[f"{attack.kind}/{name}"].value

            for i, name in enumerate(("{}_clean", "{}", "{}_noise")):
                assert value(name.format("accuracy")) == pytest.approx(
                    (student[i] == target)[known].mean()
                )
                assert value(name.format("agreement")) == pytest.approx(
                    (student[i] == teacher[i]).mean()
                )
            for who, name in ((student, "fooled"), (teacher, "transfer")):
                before = who[0] == wanted
                assert value(name) == pytest.approx((who[1] != wanted)[before].mean())
                assert value(f"{name}_noise") == pytest.approx((who[2] != wanted)[before].mean())
                assert figures[f"{attack.kind}/{name}"].n == before.sum()
            assert value("transfer_excess") == pytest.approx(
                value("transfer") - value("transfer_noise")
            )


def test_what_fools_the_copy_fools_the_teacher(found):
    own = found.adversarial.figures["student"]
    for kind in ("fgsm", "pgd"):
        assert own[f"{kind}/transfer"] == own[f"{kind}/fooled"]
        assert own[f"{kind}/fooled"].value > own[f"{kind}/fooled_noise"].value


def test_differences_of_attacked_models_are_those_of_their_figures(found):
    own, differences = found.adversarial.figures, found.adversarial.differences
    assert set(differences) == {n for n in own["student"] if not n.endswith("transfer_excess")}
    for name, figure in differences.items():
        assert figure.value == pytest.approx(
            own["student"][name].value - own["control"][name].value
        )
        assert figure.low <= figure.value <= figure.high
    content = found.to_dict()["adversarial"]
    assert content["student_minus_control"]["fgsm/fooled"] == differences["fgsm/fooled"].to_dict()


def test_other_views_than_the_degraded_and_the_teachers_are_named(asked, found, run):
    degraded, attacked = sorted(found.notes)
    assert degraded.startswith("pictures are degraded as the control takes them, 16 x 16")
    assert "clean answers of the student and the teacher there" in degraded
    assert "decoder of the control differ from the teacher's" in attacked
    student = asked.models[0]

    def notes(**changes):
        described = student.described
        other = replace(described, recipe=replace(described.recipe, **changes))
        models = [student, replace(student, role="control", described=other)]
        few = {"kinds": ("pixelate",), "attacks": (make_attack("fgsm"),), "num_images": 45}
        return run(models=models, **few).notes

    assert notes(mean=(0.4, 0.4, 0.4)) == []
    degraded, attacked = sorted(notes(crop_pct=0.75))
    assert degraded.startswith("pictures are degraded as the student takes them, 8 x 8")
    assert "clean answers of the control there" in degraded
    assert "decoder of the control differ from the teacher's" in attacked
    assert len(notes(interpolation="bicubic")) == 2


def test_settings_stand_in_the_result(found):
    content = found.to_dict()
    assert content["adversarial"]["attacks"]["pgd"] == {
        "kind": "pgd", "eps": 8 / 255, "step_size": pytest.approx(2.5 * 8 / 255 / 3), "steps": 3,
        "restarts": 1, "seed": 0,
    }  # fmt: skip
    assert content["degradations"]["size"] == [16, 16]
    assert content["degradations"]["images"] == content["adversarial"]["images"] == 45
    assert content["degradations"]["seed"] == 0
    assert content["degradations"]["strengths"] == {
        "gaussian_noise": [0.04, 0.08, 0.12, 0.18, 0.26], "pixelate": [0.7, 0.5, 0.37, 0.28, 0.2],
    }  # fmt: skip
    assert content["degradations"]["least_blur"] == 0.35


def test_neither_batches_nor_threads_change_a_figure(run, found):
    again = run(batch_size=5, workers=1, attacks=(make_attack("fgsm"),)).to_dict()
    before = found.to_dict()
    assert again["degradations"] == before["degradations"]
    for role, figures in again["adversarial"]["figures"].items():
        for name, figure in figures.items():
            value = before["adversarial"]["figures"][role][name]["value"]
            assert math.isclose(figure["value"], value, abs_tol=1e-9)


def test_few_images_are_those_with_the_smallest_hashes(asked, run):
    few = run(num_images=FEW, attacks=(), models=asked.models[:1])
    assert few.adversarial is None
    assert few.degradations.n == FEW
    chosen = sorted(np.argsort(asked.images.key_hash)[:FEW].tolist())
    assert choose(asked.images.key_hash, FEW).tolist() == chosen
    own, target = first(asked.models[0], asked.pixels(asked.id_tars)), asked.images.target
    hits = [own[i] == target[i] for i in chosen if target[i] >= 0]
    assert few.degradations.figures["student"]["accuracy/clean"].value == pytest.approx(
        np.mean(hits)
    )
    assert few.degradations.figures["student"]["accuracy/clean"].n == len(hits)


def test_without_the_teacher_there_is_accuracy_and_a_note(run):
    alone = run(teacher=None)
    assert set(alone.degradations.figures) == {"student", "control"}
    names = {*alone.degradations.figures["student"], *alone.adversarial.figures["student"]}
    assert not any("agreement" in name or "transfer" in name for name in names)
    assert "fgsm/fooled" in names
    assert any("--teacher" in note for note in alone.notes)


def test_without_targets_and_teacher_no_picture_is_read(asked, run, monkeypatch):
    def read(*_, **__):
        raise AssertionError("nothing is to be measured")

    monkeypatch.setattr("softlabel.tools.evaluate.stress.run.PictureReader", read)
    found = run(images=untargeted(asked.images), teacher=None, attacks=())
    assert found.to_dict() == {}
    assert any("not degraded: no targets and no teacher" in note for note in found.notes)


def test_without_targets_there_is_agreement(asked, run):
    images = untargeted(asked.images)
    found = run(images=images, attacks=(make_attack("fgsm"),), num_images=FEW)
    names = {*found.degradations.figures["student"], *found.adversarial.figures["student"]}
    assert not any("accuracy" in name for name in names)
    assert {"agreement/all/mean", "fgsm/fooled", "fgsm/transfer"} <= names
    figures = found.adversarial.figures
    assert figures["student"]["fgsm/fooled"].n == FEW
    # The control is led away from the label: only where it gave that before can it be fooled.
    chosen = choose(images.key_hash, FEW)
    label = first(asked.models[0], asked.pixels(asked.id_tars))[chosen]
    own = first(asked.models[1], asked.pixels(asked.id_tars, 16))[chosen]
    same = int((own == label).sum())
    assert same < FEW
    assert ("fgsm/fooled" in figures["control"]) == (same > 0)
    if same:
        assert figures["control"]["fgsm/fooled"].n == same


def test_a_model_that_errs_on_every_picture_cannot_be_fooled_and_that_is_said(asked, run):
    student = asked.models[0]
    opposite = deepcopy(student.module)
    opposite[-1].weight.data.neg_()  # its first class is the teacher's last
    few = {"kinds": (), "attacks": (make_attack("fgsm"),), "num_images": FEW, "teacher": None}
    found = run(images=untargeted(asked.images), models=[replace(student, module=opposite)], **few)
    assert found.adversarial.figures == {"student": {}}
    assert any("the student answered none of the 13" in note for note in found.notes)
