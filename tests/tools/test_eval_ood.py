"""OOD detection from tars to figures, against the same computed with Pillow, torch and sklearn."""

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import logsumexp, softmax
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity

from softlabel.shards.decode_pillow import PillowDecoder
from softlabel.shards.errors import IdentityError, ImageError, TarError, UsageError
from softlabel.shards.progress import Progress
from softlabel.shards.status import Status
from softlabel.tools.evaluate.ood import run as module
from softlabel.tools.evaluate.ood.detection import logit_scores
from softlabel.tools.evaluate.ood.run import out_of_distribution
from softlabel.tools.evaluate.ood.scores import label_scores
from softlabel.tools.evaluate.ood.unlabelled import unlabelled_views


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def progress():
    return Progress("testing", total=1, done=0, log_format="text")


@pytest.fixture(scope="module")
def detect(asked):
    """(changes) -> the result, on all models unless said otherwise."""

    def run(**changes):
        settings = {
            "tars": asked.ood_tars, "teacher": asked.teacher, "ood_labels": None,
            "batch_size": 8, "workers": 2, "progress": progress(),
        } | changes  # fmt: skip
        models = settings.pop("models", asked.models)
        labelled = settings.pop("labelled", asked.labelled)
        return out_of_distribution(models, labelled, asked.images, **settings)

    return run


@pytest.fixture(scope="module")
def found(detect):
    return detect()


def answers(model, pixels):
    recipe = model.described.recipe
    x = (pixels / 255 - recipe.mean) / recipe.std
    caught = []
    head = [m for m in model.module.modules() if isinstance(m, torch.nn.Linear)][-1]
    hook = head.register_forward_hook(lambda layer, given, made: caught.append(given[0]))
    with torch.no_grad():
        z = model.module(torch.from_numpy(x).float().permute(0, 3, 1, 2)).double().numpy()
    hook.remove()
    return z, caught[0].double().numpy()


def reference(id_answer, ood_answer):
    """Score to metric, straight from logits and embeddings."""
    (z, e), (oz, oe) = id_answer, ood_answer
    own = cosine_similarity(e)
    np.fill_diagonal(own, -2)
    scores = {
        "max_softmax": (softmax(z, 1).max(1), softmax(oz, 1).max(1)),
        "energy": (logsumexp(z, 1), logsumexp(oz, 1)),
        "max_logit": (z.max(1), oz.max(1)),
        "knn": (own.max(1), cosine_similarity(oe, e).max(1)),
    }
    metrics = {}
    for name, (inside, outside) in scores.items():
        label = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
        score = np.r_[inside, outside]
        metrics[f"{name}/auroc"] = roc_auc_score(label, score)
        metrics[f"{name}/aupr"] = average_precision_score(label, score)
        threshold = np.sort(inside)[int(0.05 * len(inside))]
        metrics[f"{name}/fpr95"] = (outside >= threshold).mean()
    return metrics


@pytest.mark.parametrize("role", ["student", "control", "teacher"])
def test_every_figure_is_what_scikit_learn_gives(asked, found, role):
    # The teacher is the student's twin; a label's float16 moves its scores by less than a rank.
    model = asked.models[role == "control"]
    side = model.described.recipe.height
    inside, outside = (answers(model, asked.pixels(t, side))
                       for t in (asked.id_tars, asked.ood_tars))  # fmt: skip
    wanted = reference(inside, outside)
    own = found.figures[role]
    assert set(own) == set(wanted)
    tolerance = 3e-3 if role == "teacher" else 1e-6
    for name, value in wanted.items():
        assert own[name].value == pytest.approx(value, abs=tolerance), name
        assert own[name].n == 75
        assert 0 <= own[name].low <= own[name].high <= 1


def test_the_difference_is_students_minus_controls(found):
    assert set(found.differences) == set(found.figures["student"])
    for name, figure in found.differences.items():
        ours, theirs = found.figures["student"][name], found.figures["control"][name]
        assert figure.value == pytest.approx(ours.value - theirs.value)
        assert figure.low <= figure.value <= figure.high or "aupr" in name


def test_images_are_counted_and_what_is_no_image_is_left_out(asked, found):
    content = found.to_dict()
    assert content["images"] == {
        role: {"id": 45, "ood": 30} for role in ("student", "teacher", "control")
    }
    assert found.notes == ["OOD: left out 2 members that are no image or can't be decoded"]
    assert content["figures"]["student"]["knn/auroc"]["n"] == 75
    assert content["tars"] == [str(tar) for tar in asked.ood_tars]
    assert content["labels_store_id"] is None


def test_neither_batches_nor_threads_change_a_score(detect, found):
    again = detect(batch_size=3, workers=1)
    for role, own in found.scores.items():
        for name, both in own.items():
            for before, after in zip(both, again.scores[role][name], strict=True):
                np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    for role, own in found.figures.items():
        for name, figure in own.items():
            assert again.figures[role][name].value == pytest.approx(figure.value, abs=1e-6)


def test_the_teacher_known_by_labels_gives_the_same_figures(asked, detect, found):
    """Labels of the ID images stand in for labels of the OOD images: AUROC is then a half."""
    by_labels = detect(teacher=None, ood_labels=asked.labelled)
    assert by_labels.to_dict()["labels_store_id"] == asked.labelled.store.store_id
    assert by_labels.figures["student"] == found.figures["student"]
    for name in ("max_softmax", "energy", "max_logit"):
        inside, outside = by_labels.scores["teacher"][name]
        np.testing.assert_array_equal(inside, outside)
        assert by_labels.figures["teacher"][f"{name}/auroc"].value == pytest.approx(0.5)
        np.testing.assert_array_equal(inside, found.scores["teacher"][name][0])
    # Each image finds itself in the bank when it is not known to be of it.
    assert by_labels.scores["teacher"]["knn"][1] == pytest.approx(np.ones(45), abs=1e-3)


def test_the_teacher_scores_the_same_pictures_as_its_labels_do_to_the_bit(asked, detect):
    same = detect(tars=asked.id_tars).scores["teacher"]
    for name in ("max_softmax", "energy", "max_logit"):
        inside, outside = same[name]
        np.testing.assert_array_equal(inside, outside)
    z = np.array([[40.0, -5.0, 0.0], [1.0, 3.0, 2.0]], np.float32)
    for name, wanted in logit_scores(z).items():
        assert label_scores(z)[name] == pytest.approx(wanted, rel=1e-12)


def test_an_image_that_one_decoder_refuses_is_left_out_for_all(
    asked, write_tar, tmp_path, monkeypatch
):
    files = [(f"{i}.png", png(np.full((8, 8, 3), 10 * i, np.uint8))) for i in range(5)]
    tar = str(write_tar(tmp_path / "a.tar", files))

    class Refusing(PillowDecoder):
        def decode(self, data):
            picture = super().decode(data)
            if np.asarray(picture.pixels).max() == 20:
                raise ImageError(Status.UNDECODABLE, "refused")
            return picture

    def opened(name, *, max_pixels):
        return (Refusing if name == "torchvision" else PillowDecoder)(max_pixels=max_pixels)

    monkeypatch.setattr("softlabel.tools.evaluate.ood.unlabelled.open_decoder", opened)
    recipe = asked.models[0].described.recipe
    (views,) = unlabelled_views(
        [tar], [(recipe, "pillow"), (recipe, "torchvision")],
        manifest=asked.labelled.store.manifest, batch_size=9, workers=1,
    )  # fmt: skip
    assert views.refused == 1
    for pixels in views.pixels:
        assert pixels[:, 0, 0, 0].tolist() == [0, 10, 30, 40]


def test_without_the_teacher_its_column_is_missing_and_a_note_says_why(detect, found):
    alone = detect(teacher=None)
    assert set(alone.figures) == {"student", "control"}
    assert alone.figures["student"] == found.figures["student"]
    assert any("--teacher" in note for note in alone.notes)


def test_labels_of_another_teacher_are_refused(asked, detect):
    manifest = replace(asked.labelled.store.manifest, teacher_sha256="0" * 64)
    other = SimpleNamespace(store=SimpleNamespace(manifest=manifest, path="other.zarr"))
    with pytest.raises(IdentityError, match="another teacher_sha256"):
        detect(teacher=None, ood_labels=other)


def test_a_teacher_of_probabilities_has_no_energy(asked, detect, monkeypatch):
    manifest = asked.labelled.store.manifest  # its id is known already and stays
    monkeypatch.setitem(vars(manifest), "teacher_output_kind", "probabilities")
    found = detect(models=asked.models[:1])
    assert "energy/auroc" not in found.figures["teacher"]
    assert {"max_softmax/auroc", "max_logit/auroc"} <= set(found.figures["teacher"])
    assert "energy/auroc" in found.figures["student"]
    assert any("energy is 0" in note for note in found.notes)


def test_few_id_images_are_chosen_by_key_whatever_the_batches(detect, monkeypatch):
    monkeypatch.setattr(module, "MOST_ID_IMAGES", 11)
    first, second = detect(batch_size=4), detect(batch_size=16)
    assert len(first.scores["student"]["energy"][0]) == 11
    np.testing.assert_allclose(
        first.scores["student"]["energy"][0], second.scores["student"]["energy"][0], rtol=1e-5
    )


def test_tars_without_an_image_or_damaged_end_the_run(detect, write_tar, tmp_path):
    bad = str(write_tar(tmp_path / "bad.tar", [("a.png", b"no")]))
    with pytest.raises(UsageError, match="--ood-shards"):
        detect(tars=[bad])
    whole = (tmp_path / "bad.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:700])
    with pytest.raises(TarError):
        detect(tars=[str(tmp_path / "cut.tar")])
