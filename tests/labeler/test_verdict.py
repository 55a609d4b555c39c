"""Which images are looked at, what is measured on them, and what is said of it."""

import numpy as np
import pytest

from softlabel.labeler.candidates import candidates
from softlabel.labeler.evidence import Evidence, gather_evidence, softmax
from softlabel.labeler.samples import take_samples
from softlabel.labeler.verdict import better, findings
from softlabel.shards.decoders import open_decoder
from softlabel.shards.errors import UsageError


def test_samples_are_spread_over_the_tars_and_within_them(tmp_path, write_tar, encode_image):
    image = encode_image(0)
    tars = []
    for tar in range(9):
        files = [(f"{tar}-{i:02}.png", image) for i in range(40)]
        tars.append(str(write_tar(tmp_path / f"{tar}.tar", files)))
    decoder = open_decoder("pillow", max_pixels=10**6)
    samples = take_samples(tars, count=16, decoder=decoder, image_ext=("png",))
    places = [tuple(map(int, sample.key.split("/")[-1].split("-"))) for sample in samples]
    assert [tar for tar, _ in places] == [0] * 4 + [3] * 4 + [5] * 4 + [8] * 4
    assert [i for tar, i in places if tar == 0] == [0, 10, 20, 30]


def test_images_that_do_not_decode_are_passed_over(tmp_path, write_tar, encode_image):
    files = [("a.png", b"no image"), ("b.txt", b"x"), ("c.png", encode_image(0))]
    tar = str(write_tar(tmp_path / "t.tar", files))
    decoder = open_decoder("pillow", max_pixels=10**6)
    samples = take_samples([tar], count=16, decoder=decoder, image_ext=("png",))
    assert [sample.key for sample in samples] == ["c"]
    bad = str(write_tar(tmp_path / "bad.tar", files[:2]))
    with pytest.raises(UsageError, match="none that decodes"):
        take_samples([bad], count=16, decoder=decoder, image_ext=("png",))


# Evidence


def test_the_given_recipe_comes_first_and_is_not_tried_twice(make_recipe):
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    found = candidates(make_recipe(8, 8, **imagenet), scalings=True)
    assert found[0].name == "as given"
    assert "ImageNet mean and std" not in {candidate.name for candidate in found}
    assert "crop_pct 1" not in {candidate.name for candidate in found}
    assert len({(c.recipe, c.antialias) for c in found}) == len(found)
    raw = candidates(make_recipe(8, 8), scalings=False)
    assert {(c.recipe.mean, c.recipe.std) for c in raw} == {(raw[0].recipe.mean, raw[0].recipe.std)}


def test_sure_and_empty_answers_are_not_consistent():
    N, C = 16, 40
    targets = np.full(N, -1)
    same = np.zeros((N, C), np.float32)
    same[:, 3] = 50
    collapsed = gather_evidence(same, same, targets)
    assert collapsed.confidence.mean() > 0.999
    assert abs(collapsed.consistency.mean()) < 1e-6
    assert collapsed.num_predicted == 1
    diverse = np.float32(50 * np.eye(N, C))
    assert gather_evidence(diverse, diverse, targets).consistency.mean() > 0.999
    shuffled = np.roll(diverse, 1, axis=0)
    assert gather_evidence(diverse, shuffled, targets).consistency.mean() < 0.01


def test_evidence_is_what_its_definitions_say():
    rng = np.random.default_rng(0)
    z, mirrored = rng.normal(size=(2, 5, 7)).astype(np.float32)
    p, q = softmax(z), softmax(mirrored)
    found = gather_evidence(z, mirrored, np.array([0, 1, -1, 3, 99]))
    np.testing.assert_allclose(found.entropy, [-(row * np.log(row)).sum() for row in p])
    for i in range(5):
        others = np.mean([p[i] @ q[j] for j in range(5) if j != i])
        np.testing.assert_allclose(found.consistency[i], p[i] @ q[i] - others)
    assert found.hits.tolist() == [
        float(z[i].argmax() == t) for i, t in ((0, 0), (1, 1), (3, 3), (4, 99))
    ]


def evidence(consistency, hits=(), confidence=0.5):
    """Evidence made up of these figures."""
    N = len(consistency)
    return Evidence(
        confidence=np.full(N, confidence),
        entropy=np.ones(N),
        consistency=np.asarray(consistency, float),
        hits=np.asarray(hits, float),
        num_predicted=1,
    )


def test_differences_that_few_images_cannot_tell_do_not_speak_against_the_given_recipe():
    rng = np.random.default_rng(0)
    given = 0.5 + rng.normal(0, 0.2, 16)
    noisy = given + 0.02 + rng.normal(0, 0.2, 16)
    assert noisy.mean() > given.mean()
    results = [("as given", evidence(given)), ("noisy", evidence(noisy))]
    results += [("steady but small", evidence(given + 0.04))]
    results += [("few", evidence(given + 3.0 * np.eye(16)[0]))]
    assert better(results) == []
    assert "as given looks best" in findings(results)[0]
    results.append(("clear", evidence(given + 0.2 + rng.normal(0, 0.1, 16))))
    assert [name for name, _ in better(results)] == ["clear"]


def test_accuracy_outweighs_consistency_where_enough_targets_are_known():
    sure, right = evidence([0.9] * 16, [0, 1] * 8), evidence([0.5] * 16, [1] * 16)
    assert [name for name, _ in better([("as given", sure), ("right", right)])] == ["right"]
    assert better([("as given", right), ("sure", sure)]) == []
    few = [("as given", evidence([0.9] * 16, [0] * 4)), ("x", evidence([0.5] * 16, [1] * 4))]
    assert better(few) == []


def test_a_recipe_that_is_steadier_and_no_less_accurate_is_better():
    hits = [1, 0] * 8
    given, other = evidence([0.3] * 16, hits), evidence([0.5] * 16, hits)
    assert [name for name, _ in better([("as given", given), ("other", other)])] == ["other"]


def test_recipes_that_can_not_be_told_from_the_best_are_named_with_it():
    results = [("as given", evidence([0.1] * 16))]
    results += [(name, evidence([x] * 16)) for name, x in (("a", 0.6), ("b", 0.58), ("c", 0.3))]
    assert "`a` looks better" in findings(results)[0]
    assert "so does `b`." in findings(results)[0]


@pytest.mark.parametrize(
    ("consistency", "confidence", "words"),
    [(0.2, 0.9, "sure and wrong"), (0.8, 0.9, "look at both"), (0.8, 0.51, "too little")],
)
def test_a_surer_recipe_is_reported_with_what_that_means(consistency, confidence, words):
    results = [
        ("as given", evidence([0.8] * 16)),
        ("surer", evidence([consistency] * 16, confidence=confidence)),
    ]
    _, said = findings(results)
    assert "has not the highest mean confidence: `surer`" in said
    assert words in said
    assert said.startswith("WARNING") == (words == "look at both")
