"""How a plan becomes the parts of a run."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from softlabel.shards.errors import IdentityError, MachineError
from softlabel.shards.recipe import Recipe
from softlabel.trainer import assembly
from softlabel.trainer.assembly import (
    make_training,
    open_decoder_of,
    resolve_device,
)
from softlabel.trainer.config import TrainConfig
from softlabel.trainer.first_weights import make_student
from softlabel.trainer.plan import make_plan
from softlabel.trainer.student_files import StudentConfig, save_student
from softlabel.trainer.training import Normaliser


@pytest.fixture
def plan(collection, tmp_path):
    config = TrainConfig(
        shards=tuple(map(str, collection.tars)),
        labels=collection.labels,
        student="softlabel/small-cnn",
        output=tmp_path / "out",
    )
    return make_plan(config)


def test_a_decoder_that_is_not_installed_is_replaced_with_a_warning(plan, monkeypatch):
    assert open_decoder_of(plan)[1] == []
    real = assembly.open_decoder

    def without_pillow(name, *, max_pixels):
        if name == "pillow":
            raise MachineError("no pillow here")
        return real(name, max_pixels=max_pixels)

    monkeypatch.setattr(assembly, "open_decoder", without_pillow)
    decoder, (note,) = open_decoder_of(plan)
    assert decoder.name == "torchvision"
    assert "made with decoder pillow" in note
    assert "torchvision gives slightly other pixels" in note


def test_normalised_pixels_are_x_minus_mean_over_std(plan):
    recipe = plan.recipe
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    wanted = (pixels / 255 - recipe.mean) / recipe.std
    for channels_last in (False, True):
        normalise = Normaliser(recipe, torch.device("cpu"), channels_last=channels_last)
        found = normalise(torch.from_numpy(pixels))
        assert found.shape == (2, 3, 5, 7)
        assert np.allclose(found.permute(0, 2, 3, 1), wanted, atol=1e-6)
        assert found.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_a_bgr_teachers_student_sees_rgb_with_the_values_turned(plan):
    bgr = Recipe.from_dict({**plan.recipe.to_dict(), "channels": "bgr"}, source="test")
    student = make_student(replace(plan, recipe=bgr))
    assert student.recipe.channels == "rgb"
    assert student.recipe.mean == (0.3, 0.4, 0.5)
    assert student.recipe.std == (0.3, 0.25, 0.2)


def test_the_students_own_size_is_that_of_img_size(plan):
    student = make_student(replace(plan, config=replace(plan.config, img_size=24)))
    assert student.recipe.input_size == (3, 24, 24)
    assert student.recipe.mean == plan.recipe.mean


def test_initial_weights_depend_on_the_seed_and_nothing_else(plan):
    torch.manual_seed(1)
    one = make_student(plan).module.state_dict()
    torch.manual_seed(2)
    two = make_student(plan).module.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = make_student(replace(plan, config=replace(plan.config, seed=1))).module.state_dict()
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_a_student_folder_of_another_number_of_classes_does_not_belong(plan, tmp_path):
    found = StudentConfig(
        name="softlabel/small-cnn",
        num_classes=7,
        recipe=plan.recipe,
        class_names=None,
        training={},
    )
    save_student(tmp_path / "seven", found.build(), found, card="")
    config = replace(plan.config, student=str(tmp_path / "seven"))
    with pytest.raises(IdentityError, match="has 7 classes, the labels have 10"):
        make_student(replace(plan, config=config))


def test_a_disk_that_is_too_small_is_said_first(plan, monkeypatch):
    monkeypatch.setattr(assembly, "free_bytes", lambda path: 1000)
    with pytest.raises(MachineError, match="student and checkpoints take up to"):
        make_training(plan, make_student(plan), torch.device("cpu"))


def test_a_gpu_that_is_not_there_is_an_error_not_a_fallback(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MachineError, match="sees no CUDA device"):
        resolve_device("cuda")
    assert resolve_device("auto").type == "cpu"
