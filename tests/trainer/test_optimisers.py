"""Optimisers and their state."""

from typing import get_args

import pytest
import torch
from torch import nn

from softlabel.trainer.optimisers import (
    OptimiserName,
    make_optimiser,
    optimiser_state,
    restore_optimiser,
    set_learning_rate,
)
from softlabel.trainer.small_cnn import SmallCNN

NAMES = get_args(OptimiserName)


def make(name, student):
    return make_optimiser(name, student, lr=0.01, momentum=0.9, weight_decay=0.1)


def step(student, optimiser, seed):
    image = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    optimiser.zero_grad()
    student(image).square().sum().backward()
    optimiser.step()


def student(seed=0):
    torch.manual_seed(seed)
    return SmallCNN(10)


@pytest.mark.parametrize("name", NAMES)
def test_biases_and_norms_do_not_decay(name):
    module = student()
    groups = make(name, module).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert decay[id(layer.weight)] == 0.1
        elif isinstance(layer, nn.BatchNorm2d):
            assert decay[id(layer.weight)] == decay[id(layer.bias)] == 0
    assert decay[id(module.head.bias)] == 0
    assert len(decay) == len(list(module.parameters()))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", NAMES)
def test_a_restored_optimiser_goes_on_bit_for_bit(name, memory):
    unbroken, broken = (student().to(memory_format=memory) for _ in range(2))
    a, b = make(name, unbroken), make(name, broken)
    for seed in range(3):
        step(unbroken, a, seed)
        step(broken, b, seed)
    tensors, numbers = optimiser_state(b)
    # As they come back from a file: plain, contiguous.
    tensors = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}
    state = {key: tensor.contiguous() for key, tensor in broken.state_dict().items()}
    resumed = student(seed=1).to(memory_format=memory)
    resumed.load_state_dict(state)
    c = make(name, resumed)
    restore_optimiser(c, tensors, numbers)
    for seed in range(3, 6):
        step(unbroken, a, seed)
        step(resumed, c, seed)
    for one, other in zip(unbroken.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_plain_numbers_of_the_state_come_back_too():
    module = student()
    optimiser = make("sgd", module)
    restore_optimiser(optimiser, {}, {"0.step": 7, "3.other": None})
    tensors, numbers = optimiser_state(optimiser)
    assert (tensors, numbers) == ({}, {"0.step": 7, "3.other": None})


def test_the_learning_rate_is_set_in_all_groups():
    optimiser = make("sgd", student())
    set_learning_rate(optimiser, 0.5)
    assert {group["lr"] for group in optimiser.param_groups} == {0.5}


def test_sgd_is_timms_with_nesterov_and_momentum_without():
    assert make("sgd", student()).param_groups[0]["nesterov"]
    assert not make("momentum", student()).param_groups[0]["nesterov"]
