import inspect

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.datasets import load_digits

from softlabel.labeler.teacher import open_teacher
from softlabel.tools.realdata import digits, digits_cnn


@pytest.fixture(scope="module")
def all_digits():
    return digits.load()


def run(path, images):
    """Logits and features by onnxruntime, preprocessed by the recipe that the file carries."""
    recipe = open_teacher(path).recipe
    x = (images / 255 - np.array(recipe.mean)) / np.array(recipe.std)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(
        ["logits", "features"], {"input": x.transpose(0, 3, 1, 2).astype(np.float32)}
    )


def test_every_digit_is_in_one_split_once(all_digits):
    pixels, targets = load_digits(return_X_y=True)
    parts = (all_digits.train, all_digits.test)
    assert [part.images.shape for part in parts] == [(1000, 8, 8, 3), (797, 8, 8, 3)]
    images = np.concatenate([part.images for part in parts])
    assert (images[..., :1] == images).all()
    back = np.rint(images[..., 0].reshape(-1, 64) / 255 * 16)
    given = sorted(zip(pixels.tolist(), targets.tolist(), strict=True))
    read = np.concatenate([part.targets for part in parts])
    assert sorted(zip(back.tolist(), read.tolist(), strict=True)) == given


def test_classes_have_the_same_share_in_both_splits_and_none_lacks_in_a_hundred(all_digits):
    counts = [np.bincount(part.targets) for part in (all_digits.train, all_digits.test)]
    np.testing.assert_allclose(counts[0] / 1000, counts[1] / 797, atol=2e-3)
    for start in range(0, 901, 10):
        assert len(set(all_digits.train.targets[start : start + 100])) == 10


def test_the_teacher_reads_the_test_digits(all_digits, cache):
    said = digits.digits_teacher()
    logits, features = run(said, all_digits.test.images)
    assert (logits.argmax(1) == all_digits.test.targets).mean() >= 0.985
    assert features.shape == (797, 128)
    teacher = open_teacher(said, embedding="features")
    assert (teacher.num_classes, teacher.embedding_dim) == (10, 128)
    assert teacher.class_names == tuple("0123456789")
    assert digits.digits_teacher() == said
    assert [path.name for path in (cache / "teachers").iterdir()] == [said.name]


@pytest.fixture
def short(monkeypatch, cache):
    monkeypatch.setattr(digits_cnn, "_STEPS", 30)
    return cache


def test_the_same_teacher_is_the_same_file_and_another_seed_or_half_is_not(short):
    torch.manual_seed(99)  # what was drawn before must not matter
    files = []
    for seed, half in ((0, 0), (0, 0), (1, 0), (0, 1)):
        path = digits.digits_teacher(100, seed, half=half)
        files.append(path.read_bytes())
        path.unlink()
    assert files[0] == files[1]
    assert len(set(files)) == 3


def test_halves_hold_different_digits(all_digits, short, monkeypatch):
    seen = []

    def build(images, targets, **options):
        seen.append(images)
        return onnx.ModelProto()

    monkeypatch.setattr(digits_cnn, "build", build)
    for half in (None, 0, 1):
        digits.digits_teacher(200, half=half)
    np.testing.assert_array_equal(seen[0], all_digits.train.images[:200])
    np.testing.assert_array_equal(seen[1], all_digits.train.images[:200])
    np.testing.assert_array_equal(seen[2], all_digits.train.images[500:700])


@pytest.mark.parametrize("wrong", [{"num_train": 1001}, {"num_train": 501, "half": 0}, {"half": 2}])
def test_digits_that_are_not_there_cannot_be_asked_for(wrong, cache):
    with pytest.raises(ValueError, match="num_train in"):
        digits.digits_teacher(**wrong)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_file_computes_what_the_network_does(batch_norm, monkeypatch, tmp_path, all_digits):
    networks = []
    make = digits_cnn._network

    def watched(*arguments):
        networks.append(make(*arguments))
        return networks[-1]

    monkeypatch.setattr(digits_cnn, "_STEPS", 30)
    monkeypatch.setattr(digits_cnn, "_network", watched)
    train = all_digits.train
    state = torch.random.get_rng_state()
    model = digits_cnn.build(train.images, train.targets, seed=3, batch_norm=batch_norm)
    assert torch.equal(torch.random.get_rng_state(), state)
    (network,) = networks
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == 52_964 + 212 * batch_norm
    onnx.save(model, tmp_path / "teacher.onnx")
    logits, features = run(tmp_path / "teacher.onnx", all_digits.test.images)
    with torch.no_grad():
        x = digits_cnn._pixels(all_digits.test.images)
        network.eval()
        np.testing.assert_allclose(logits, network(x), atol=1e-4)
        np.testing.assert_allclose(features, network[:-1](x), atol=1e-4)


def test_every_thing_that_makes_a_teacher_is_in_its_name():
    names = {"num_train", "seed", "half", "batch_norm"}
    assert set(inspect.signature(digits.digits_teacher).parameters) == names
