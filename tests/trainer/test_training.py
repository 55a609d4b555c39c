"""One optimisation step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from softlabel.shards.errors import UsageError
from softlabel.shards.recipe import Recipe
from softlabel.trainer.labels import LabelledRows
from softlabel.trainer.objective import Objective
from softlabel.trainer.optimisers import make_optimiser
from softlabel.trainer.schedule import make_schedule
from softlabel.trainer.stream import Batch
from softlabel.trainer.training import Normaliser, Training, seed_torch

RECIPE = Recipe(
    input_size=(3, 8, 8),
    interpolation="bilinear",
    crop_pct=1.0,
    crop_mode="center",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


class Linear(nn.Module):
    """Logits from all pixels."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(192, 5)

    def forward(self, image):
        return self.layer(image.flatten(1))


def batch(step=0, size=6):
    rng = np.random.default_rng(step)
    zeros = np.zeros(size, np.int64)
    rows = LabelledRows(
        tar=zeros.astype(np.int32),
        member=np.arange(size, dtype=np.int32),
        key_hash=zeros.astype(np.uint64),
        image_hash=zeros.astype(np.uint64),
        offset=zeros,
        size=zeros,
        target=zeros - 1,
        view=zeros,
        topk_logit=-np.sort(rng.uniform(0, 9, (size, 5)).astype(np.float16), axis=1),
        topk_class=np.argsort(rng.random((size, 5)), axis=1).astype(np.int32),
        tail_lse=np.full(size, -np.inf, np.float32),
        weight=np.ones(size, np.float32),
        copy=zeros,
    )
    pixels = torch.from_numpy(rng.integers(0, 256, (size, 8, 8, 3), np.uint8))
    weight = np.ones(size, np.float32)
    return Batch(step=step, epoch=0, pixels=pixels, rows=rows, weight=weight, num_counted=size)


def make(student=None, *, opt="momentum", **changes):
    seed_torch(0, 0)
    student = student or Linear()
    device = torch.device("cpu")
    fields = {
        "student": student,
        "optimiser": make_optimiser(opt, student, lr=0.1, momentum=0.0, weight_decay=0.0),
        "scaler": torch.amp.GradScaler("cpu", enabled=False),
        "objective": Objective(
            temperature=1.0,
            tail="bucket",
            distill_weight=1.0,
            task_weight=0.0,
            smoothing=0.0,
            num_classes=5,
        ),
        "schedule": make_schedule("cosine", peak=0.1, num_steps=4, warmup_steps=1),
        "normalise": Normaliser(RECIPE, device, channels_last=False),
        "device": device,
        "amp": "none",
        "max_grad_norm": None,
        "seed": 0,
    }
    return Training(**{**fields, **changes})


def test_each_step_is_as_long_as_the_schedule_says():
    training = make()
    for step in range(4):
        before = training.student.layer.weight.detach().clone()
        training.step(batch(step))
        gradient = training.student.layer.weight.grad
        rate = training.schedule.learning_rate(step)
        wanted = before - rate * gradient
        assert torch.allclose(training.student.layer.weight, wanted, atol=1e-8)


def test_a_gradient_longer_than_allowed_is_cut_to_that_length():
    def length(training):
        training.step(batch())
        squares = [p.grad.square().sum() for p in training.student.parameters()]
        return torch.stack(squares).sum().sqrt().item()

    free = length(make())
    assert length(make(max_grad_norm=free / 3)) == pytest.approx(free / 3, rel=1e-4)
    assert length(make(max_grad_norm=free * 3)) == pytest.approx(free, rel=1e-6)


def test_random_numbers_of_a_step_depend_on_seed_and_step_alone():
    def drawn(seed, step):
        seed_torch(0, 0)
        student = nn.Sequential(nn.Dropout(0.5), Linear())
        training = make(student, seed=seed)
        torch.rand(3)
        sums, _ = training.step(batch(step))
        return sums[0].item()

    first = drawn(0, 1)
    assert drawn(0, 1) == first
    assert drawn(1, 1) != first


def test_a_student_that_gives_more_than_logits_in_training_is_a_usage_error():
    class Twice(Linear):
        def forward(self, image):
            return (super().forward(image),) * 2

    with pytest.raises(UsageError, match="in training its forward gives a tuple"):
        make(Twice()).step(batch())


def test_rows_of_weight_0_change_nothing():
    whole, padded = make(), make()
    some = batch(size=6)
    rows = some.rows.take(slice(0, 4))
    four = {"rows": rows, "weight": some.weight[:4], "num_counted": 4}
    whole.step(replace(some, pixels=some.pixels[:4], **four))
    filled = np.float32([1, 1, 1, 1, 0, 0])
    _, counted = padded.step(replace(some, weight=filled, num_counted=4))
    assert counted == 4
    for one, other in zip(whole.student.parameters(), padded.student.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-7)
