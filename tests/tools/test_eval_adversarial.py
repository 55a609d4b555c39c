"""Attacks: inside their ball, by the closed form where there is one, repeatable, never crashing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from softlabel.shards.recipe import Recipe
from softlabel.tools.evaluate.models import Model
from softlabel.tools.evaluate.stress.attacks import craft, losses, make_attack, noisy
from softlabel.trainer.small_cnn import SmallCNN
from softlabel.trainer.student_files import StudentConfig
from softlabel.trainer.training import Normaliser

SIDE, C = 8, 5
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


class Linear(nn.Module):
    """Logits W x + b of the normalised picture."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.head = nn.Linear(3 * SIDE * SIDE, C)

    def forward(self, image):
        return self.head(image.flatten(1))


class Constant(nn.Module):
    """The same logits for every picture; no gradient leads anywhere."""

    def forward(self, image):
        return torch.arange(C, dtype=torch.float32).expand(len(image), C)


def model_of(module: nn.Module, *, role: str = "student", classes: int = C) -> Model:
    recipe = Recipe(
        input_size=(3, SIDE, SIDE),
        interpolation="bilinear",
        crop_pct=1.0,
        crop_mode="center",
        mean=MEAN,
        std=STD,
    )
    described = StudentConfig(
        name="softlabel/small-cnn",
        num_classes=classes,
        recipe=recipe,
        class_names=None,
        training={},
    )
    device = torch.device("cpu")
    return Model(
        role=role,
        folder=Path("nowhere"),
        described=described,
        module=module.eval(),
        normalise=Normaliser(recipe, device, channels_last=False),
        device=device,
    )


def small_cnn(seed: int = 1) -> Model:
    torch.manual_seed(seed)
    module = SmallCNN(C)
    with torch.no_grad():
        module.head.weight.mul_(40)
    return model_of(module)


def images(count: int, *, seed: int = 0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    return pixels, rng.integers(0, C, count), rng.integers(0, 2**64, count, np.uint64)


def loss(model: Model, pixels, label) -> np.ndarray:
    return losses(model, pixels, torch.from_numpy(label)).double().numpy()


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["fgsm", "pgd"]),
    st.floats(1 / 255, 1),
    st.floats(0.001, 0.5),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 2**32),
)
def test_no_value_leaves_its_ball_or_the_range(kind, eps, step_size, steps, restarts, seed):
    pixels, label, key_hash = images(3, seed=seed)
    attack = make_attack(kind, eps=eps, step_size=step_size, steps=steps, restarts=restarts)
    before = pixels.copy()
    for found in (
        craft(small_cnn(), pixels, label, attack, key_hash=key_hash),
        noisy(pixels, attack, key_hash=key_hash),
    ):
        assert (found.dtype, found.shape) == (np.uint8, pixels.shape)
        assert np.abs(found.astype(int) - pixels).max() <= eps * 255 + 1e-6
    assert (pixels == before).all()


@pytest.mark.parametrize("levels", [1, 8, 40])
def test_fgsm_is_the_closed_form_on_a_linear_model(levels):
    model = model_of(Linear())
    pixels, label, key_hash = images(20)
    found = craft(model, pixels, label, make_attack("fgsm", eps=levels / 255), key_hash=key_hash)
    weight = model.module.head.weight.detach().double().numpy().reshape(C, 3, SIDE, SIDE)
    weight = weight.transpose(0, 2, 3, 1) / np.array(STD)  # on pixels in 0..1
    bias = model.module.head.bias.detach().double().numpy()
    shift = -(weight * np.array(MEAN)).sum((1, 2, 3)) + bias

    def own(x):
        z = (weight[None] * (x[:, None] / 255)).sum((2, 3, 4)) + shift
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        return p, -np.log(p[np.arange(len(x)), label])

    p, before = own(pixels.astype(float))
    p[np.arange(20), label] -= 1
    gradient = np.einsum("nc,chwk->nhwk", p, weight)
    wanted = np.clip(pixels + levels * np.sign(gradient), 0, 255)
    assert (found == wanted).all()
    _, after = own(wanted)
    np.testing.assert_allclose(loss(model, found, label), after, rtol=1e-4, atol=1e-5)
    assert (after > before).all()


def test_pgd_reaches_the_optimum_of_two_linear_classes():
    """With two classes the loss grows along one direction: the best corner of the ball is known."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2))
    model = model_of(module, classes=2)
    pixels, _, key_hash = images(6)
    label = np.array([0, 1, 0, 1, 0, 1])
    attack = make_attack("pgd", eps=6 / 255, steps=10)
    found = craft(model, pixels, label, attack, key_hash=key_hash)
    weight = module[1].weight.detach().numpy().reshape(2, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    direction = np.where(label[:, None, None, None] == 0, 1, -1) * (weight[1] - weight[0])
    assert (found == np.clip(pixels + 6 * np.sign(direction), 0, 255)).all()


def test_attacks_raise_the_loss_pgd_most_and_chance_hardly():
    model = small_cnn()
    pixels, label, key_hash = images(40)
    attack = make_attack("pgd", steps=8, restarts=2)
    clean = loss(model, pixels, label).mean()
    chance = loss(model, noisy(pixels, attack, key_hash=key_hash), label).mean()
    fgsm = craft(model, pixels, label, make_attack("fgsm"), key_hash=key_hash)
    pgd = craft(model, pixels, label, attack, key_hash=key_hash)
    assert abs(chance - clean) < 0.3 * (loss(model, fgsm, label).mean() - clean)
    assert loss(model, pgd, label).mean() > loss(model, fgsm, label).mean() > clean


def test_another_restart_never_lowers_an_images_loss():
    model = small_cnn()
    pixels, label, key_hash = images(16)
    found = [
        craft(model, pixels, label, make_attack("pgd", steps=3, restarts=r), key_hash=key_hash)
        for r in (1, 3)
    ]
    one, three = (loss(model, pictures, label) for pictures in found)
    assert (three >= one - 1e-6).all()
    assert (three > one + 1e-6).any()


def test_no_random_start_depends_on_the_batch_and_each_follows_its_seed():
    # A linear model in exact arithmetic: nothing but the start could differ between batches.
    model = model_of(Linear())
    pixels, label, key_hash = images(9)
    attack = make_attack("pgd", steps=1, step_size=0.002)
    whole = craft(model, pixels, label, attack, key_hash=key_hash)
    noise = noisy(pixels, attack, key_hash=key_hash)
    for part in (np.arange(4), np.arange(4, 9), np.arange(9)[::-1]):
        own = (pixels[part], label[part], attack)
        assert (craft(model, *own, key_hash=key_hash[part]) == whole[part]).all()
        assert (noisy(pixels[part], attack, key_hash=key_hash[part]) == noise[part]).all()
    other = make_attack("pgd", steps=1, step_size=0.002, seed=1)
    assert (craft(model, pixels, label, other, key_hash=key_hash) != whole).any()
    assert (noisy(pixels, other, key_hash=key_hash) != noise).any()


def test_noise_takes_every_whole_number_of_the_ball_equally_often():
    pixels = np.full((40, SIDE, SIDE, 3), 128, np.uint8)
    key_hash = np.arange(40, dtype=np.uint64)
    found = noisy(pixels, make_attack("fgsm", eps=3 / 255), key_hash=key_hash).astype(int) - 128
    count = np.bincount((found + 3).ravel(), minlength=7)
    assert len(count) == 7
    assert count == pytest.approx(np.full(7, found.size / 7), rel=0.1)


@pytest.mark.parametrize("kind", ["fgsm", "pgd"])
def test_a_model_without_a_gradient_is_survived(kind):
    model = model_of(Constant())
    pixels, label, key_hash = images(4)
    found = craft(model, pixels, label, make_attack(kind, steps=2), key_hash=key_hash)
    assert np.abs(found.astype(int) - pixels).max() <= 8
    if kind == "fgsm":
        assert (found == pixels).all()


def test_an_attack_leaves_the_model_as_it_was():
    model = small_cnn()
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    pixels, label, key_hash = images(4)
    craft(model, pixels, label, make_attack("pgd", steps=2), key_hash=key_hash)
    assert all((model.module.state_dict()[n] == v).all() for n, v in before.items())
    assert all(parameter.grad is None for parameter in model.module.parameters())
    assert not model.module.training


def test_settings_are_recorded_and_budgets_that_cannot_be_refused():
    assert make_attack("pgd", steps=20).step_size == pytest.approx(8 / 255 / 8)
    assert make_attack("fgsm", steps=20).to_dict() == {
        "kind": "fgsm", "eps": 8 / 255, "step_size": 8 / 255, "steps": 1, "restarts": 1, "seed": 0,
    }  # fmt: skip
    for bad in ({"eps": 0.001}, {"eps": float("nan")}, {"steps": 0}, {"restarts": 0},
                {"step_size": 0.0}):  # fmt: skip
        with pytest.raises(ValueError, match="wanted"):
            make_attack("pgd", **bad)
