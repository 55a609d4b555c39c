"""The widened last layer: the same student, in every file and after every step."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from softlabel.shards.recipe import Recipe
from softlabel.trainer.config import TrainConfig
from softlabel.trainer.head_padding import pad_head
from softlabel.trainer.run import train
from softlabel.trainer.small_cnn import SmallCNN
from softlabel.trainer.student_files import StudentConfig, load_student, save_student
from softlabel.trainer.students import build_student

C, SIZE = 300, 16
RECIPE = Recipe(
    input_size=(3, SIZE, SIZE),
    interpolation="bicubic",
    crop_pct=1.0,
    crop_mode="center",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
IMAGES = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


def pad(student, num_classes=C, multiple=64, size=SIZE):
    return pad_head(student, num_classes=num_classes, multiple=multiple, height=size, width=size)


def logits(student, images=IMAGES):
    with torch.no_grad():
        return student.eval()(images)


class Pooled(nn.Module):
    """Layers on mean colours; `last` maps what they give to logits."""

    def __init__(self, *layers, last=nn.Identity()):  # noqa: B008
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.last = last

    def forward(self, image):
        return self.last(self.layers(image.mean((2, 3))))


class Convolved(nn.Module):
    """A convolution's maps as logits, pooled after all else, as in SqueezeNet."""

    def __init__(self):
        super().__init__()
        self.last = nn.Sequential(nn.Conv2d(3, C, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, image):
        return self.last(image).flatten(1)


class TwoHeads(nn.Module):
    """The mean of two layers' logits, as in distilled transformers."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, C), nn.Linear(3, C)

    def forward(self, image):
        x = image.mean((2, 3))
        return (self.one(x) + self.two(x)) / 2


def tied():
    student = Pooled(nn.Linear(3, C), nn.Linear(C, C), nn.Linear(C, C))
    student.layers[2].weight = student.layers[1].weight
    return student


def zeros_first():
    student = Pooled(nn.Linear(3, C), nn.ReLU(), nn.Linear(C, C))
    nn.init.zeros_(student.layers[2].weight)
    nn.init.zeros_(student.layers[2].bias)
    return student


def torchvision(name):
    return build_student(f"torchvision/{name}", num_classes=C, height=64, width=64)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: SmallCNN(C), SIZE),
        (lambda: Pooled(nn.Linear(3, C, bias=False)), SIZE),
        (zeros_first, SIZE),
        (Convolved, SIZE),
        *(
            pytest.param(lambda n=n: torchvision(n), 64, marks=pytest.mark.slow, id=n)
            for n in ("squeezenet1_1", "resnet18", "mobilenet_v3_small", "densenet121")
        ),
    ],
)
def test_a_wider_student_says_the_same_in_its_first_columns(make, size):
    student = make()
    images = torch.randn(2, 3, size, size)
    before, state = logits(student, images), {k: v.clone() for k, v in student.state_dict().items()}
    random = torch.get_rng_state()
    assert pad(student, size=size) == []
    assert torch.equal(torch.get_rng_state(), random)
    after = logits(student, images)
    assert after.shape == (2, 320)
    assert torch.allclose(after[:, :C], before, rtol=1e-5, atol=1e-6)
    assert torch.count_nonzero(after[:, C:]) == 0
    # Its state dict is that of the student as it was.
    found = student.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("make", "num_classes", "multiple"),
    [
        (lambda: SmallCNN(255), 255, 64),
        (lambda: SmallCNN(C), C, 1),
        (lambda: SmallCNN(320), 320, 64),
    ],
    ids=["narrow", "off", "fits"],
)
def test_a_student_that_needs_no_padding_gets_none(make, num_classes, multiple):
    student = make()
    assert pad(student, num_classes, multiple) == []
    assert logits(student).shape == (2, num_classes)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pooled(nn.Linear(3, C), last=nn.Softmax(dim=1)),
        lambda: Pooled(nn.utils.parametrizations.weight_norm(nn.Linear(3, C))),
        lambda: Pooled(nn.Linear(3, C), last=nn.LayerNorm(C)),
        lambda: Pooled(nn.Linear(3, 2 * C), nn.GLU()),
        TwoHeads,
        tied,
    ],
    ids=["softmax", "weight-norm", "layer-norm", "glu", "two-heads", "tied"],
)
def test_a_student_whose_logits_no_single_layer_makes_stays_as_it_is(make):
    student = make()
    before, parameters = logits(student), list(student.parameters())
    (note,) = pad(student)
    assert "--pad-head 64 has nothing to widen" in note
    assert torch.equal(logits(student), before)
    assert all(a is b for a, b in zip(student.parameters(), parameters, strict=True))
    layers = [layer for layer in student.modules() if type(layer) is nn.Linear]
    assert all(layer.out_features == len(layer.weight) for layer in layers)


def test_padding_keeps_frozen_layers_frozen_and_modes_as_they_were():
    student = SmallCNN(C).train()
    student.head.requires_grad_(False)
    pad(student)
    assert student.training
    assert student.head.out_features == 320
    assert not student.head.weight.requires_grad


def test_a_saved_student_is_the_plain_one_and_can_be_widened_again(tmp_path):
    student = SmallCNN(C)
    pad(student)
    wanted = logits(student)[:, :C]
    described = StudentConfig(
        name="softlabel/small-cnn", num_classes=C, recipe=RECIPE, class_names=None, training={}
    )
    save_student(tmp_path, student, described, card="")
    loaded, _ = load_student(tmp_path)
    assert loaded.head.weight.shape == (C, 80)
    assert torch.allclose(logits(loaded), wanted, rtol=1e-5, atol=1e-6)
    other = SmallCNN(C)
    pad(other)
    other.load_state_dict(loaded.state_dict())
    assert torch.equal(other.head.weight, student.head.weight)
    assert torch.equal(other.head.bias, student.head.bias)


def config(made, output, **flags):
    options = {"student": "softlabel/small-cnn", "batch_size": 10, "steps": 9, "device": "cpu"}
    return TrainConfig(
        shards=tuple(map(str, made.tars)),
        labels=made.labels,
        output=output,
        **{**options, "lr": 0.01, "weight_decay": 0.1, "task_loss_weight": 0.5, **flags},
    )


@pytest.mark.parametrize("opt", ["sgd", "adam", "adamw", "nadam", "radam", "rmsprop"])
def test_what_was_added_is_zero_after_every_optimisers_steps(
    opt, make_collection, tmp_path, monkeypatch
):
    made = make_collection(tmp_path, 1, 30, num_classes=C)
    heads = []
    from softlabel.trainer import run

    real = run.make_training

    def remembered(plan, student, device):
        heads.append(student.module.head)
        return real(plan, student, device)

    monkeypatch.setattr(run, "make_training", remembered)
    train(config(made, tmp_path / "s", opt=opt, max_grad_norm=1.0))
    (head,) = heads
    assert head.weight.shape == (320, 80)
    for parameter in (head.weight, head.bias):
        assert torch.count_nonzero(parameter[:C]) == parameter[:C].numel()
        assert torch.count_nonzero(parameter[C:]) == 0


def test_padding_changes_what_is_learnt_by_rounding_only(make_collection, tmp_path):
    made = make_collection(tmp_path, 2, 20, num_classes=C)
    settings = config(made, tmp_path / "wide", smoothing=0.1)
    train(settings)
    train(replace(settings, output=tmp_path / "plain", pad_head=1))
    (wide, found), (plain, _) = load_student(tmp_path / "wide"), load_student(tmp_path / "plain")
    assert found.num_classes == C
    assert wide.head.weight.shape == (C, 80)
    for one, other in zip(wide.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5)
    again = replace(settings, output=tmp_path / "on", student=str(tmp_path / "wide"))
    train(replace(again, steps=1, lr=1e-9))
    on, _ = load_student(tmp_path / "on")
    for one, other in zip(on.parameters(), wide.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    said = f"{sum(p.numel() for p in plain.parameters()):,} parameters"
    assert said in (tmp_path / "wide/README.md").read_text()
