"""Names to modules, and a student's folder."""

import json
import pickle
import sys
import types

import pytest
import safetensors.torch
import torch
from torch import nn

from softlabel.shards.errors import IdentityError, UsageError
from softlabel.shards.recipe import Recipe
from softlabel.trainer.small_cnn import SmallCNN
from softlabel.trainer.student_files import (
    StudentConfig,
    load_student,
    packed,
    save_student,
)
from softlabel.trainer.students import build_student

RECIPE = Recipe(
    input_size=(3, 32, 32),
    interpolation="bicubic",
    crop_pct=0.875,
    crop_mode="center",
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.3),
)


def build(name, num_classes=10, size=32):
    return build_student(name, num_classes=num_classes, height=size, width=size)


def config(name, num_classes=10, **changes):
    fields = {
        "name": name,
        "num_classes": num_classes,
        "recipe": RECIPE,
        "class_names": tuple("abcdefghij"[:num_classes]),
        "training": {"store_id": "12" * 32, "seed": 3},
    }
    return StudentConfig(**{**fields, **changes})


class Tied(nn.Module):
    """Two names for one weight, and a float16 buffer."""

    def __init__(self, num_classes):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.head = nn.Linear(3, num_classes)
        self.register_buffer("scale", torch.full((2,), 0.5, dtype=torch.float16))

    def forward(self, image):
        return self.head(self.second(self.first(image.mean((2, 3)))))


@pytest.fixture
def models(monkeypatch):
    """A user's module of factories."""
    module = types.ModuleType("users_models")
    module.Tied = Tied
    module.not_a_module = lambda num_classes: 3
    module.wrong_width = lambda num_classes: SmallCNN(num_classes + 1)
    monkeypatch.setitem(sys.modules, "users_models", module)
    return module


def test_the_small_cnn_is_small_and_takes_32_pixel_images():
    student = build("softlabel/small-cnn")
    assert 65_000 <= sum(p.numel() for p in student.parameters()) <= 75_000
    assert student(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_the_small_cnn_gives_the_same_in_channels_last():
    student = build("softlabel/small-cnn").eval()
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain = student(image)
        last = student.to(memory_format=torch.channels_last)(
            image.contiguous(memory_format=torch.channels_last)
        )
    assert torch.allclose(plain, last, atol=1e-5)


def test_torchvision_models_are_built_by_name():
    student = build("torchvision/squeezenet1_1", num_classes=7, size=64)
    assert student(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("torchvision/resnet81", "did you mean torchvision/resnet18"),
        ("torchvision/fasterrcnn_resnet50_fpn", "no such image classifier"),
        ("softlabel/large-cnn", "wanted softlabel/small-cnn"),
        ("resnet18", "wanted softlabel/small-cnn"),
        ("no_such_module_here:factory", "must be importable"),
        ("users_models:missing", "must be importable"),
        ("users_models:not_a_module", r"wanted a torch\.nn\.Module, it returned int"),
        ("users_models:wrong_width", r"wanted logits \[N, 10\], it gives \[2, 11\]"),
    ],
)
def test_a_student_that_cannot_be_built_is_one_line(name, wanted, models):
    with pytest.raises(UsageError, match=wanted):
        build(name)


def test_an_image_size_that_a_student_cannot_take_is_one_line():
    with pytest.raises(UsageError, match=r"can't take images of 8x8 pixels.*--img-size"):
        build("torchvision/alexnet", size=8)


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"softlabel\[timm\]"):
        build("timm/resnet18")


@pytest.mark.parametrize("name", ["softlabel/small-cnn", "users_models:Tied"])
def test_a_saved_student_comes_back_bit_for_bit(name, tmp_path, models):
    student = build(name)
    wanted = config(name)
    save_student(tmp_path / "s", student, wanted, card="# card\n")
    loaded, found = load_student(tmp_path / "s", factory="users_models:Tied")
    assert found == wanted
    assert not loaded.training
    assert loaded.state_dict().keys() == student.state_dict().keys()
    for key, value in student.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    assert (tmp_path / "s/README.md").read_text() == "# card\n"


def test_a_file_does_not_choose_which_code_runs(tmp_path, models):
    save_student(tmp_path / "s", build("users_models:Tied"), config("users_models:Tied"), card="")
    with pytest.raises(UsageError, match="users_models:Tied; name that factory"):
        load_student(tmp_path / "s")


def test_loading_never_unpickles(tmp_path, monkeypatch):
    save_student(
        tmp_path / "s", build("softlabel/small-cnn"), config("softlabel/small-cnn"), card=""
    )

    def refuse(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    load_student(tmp_path / "s")
    (tmp_path / "s/model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(UsageError, match="wanted safetensors weights"):
        load_student(tmp_path / "s")


def test_config_json_is_in_timms_layout(tmp_path):
    save_student(
        tmp_path / "s",
        build("softlabel/small-cnn"),
        config("softlabel/small-cnn"),
        card="",
    )
    data = json.loads((tmp_path / "s/config.json").read_text())
    assert data["architecture"] == "softlabel/small-cnn"
    assert data["num_classes"] == 10
    assert data["label_names"] == list("abcdefghij")
    assert data["pretrained_cfg"] == {
        "input_size": [3, 32, 32],
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": "center",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.25, 0.3],
        "num_classes": 10,
    }
    assert data["softlabel"]["training"]["store_id"] == "12" * 32


def test_weights_of_another_architecture_do_not_belong(tmp_path):
    save_student(
        tmp_path / "s", SmallCNN(10), config("softlabel/small-cnn", num_classes=7), card=""
    )
    with pytest.raises(IdentityError, match="weights of another architecture"):
        load_student(tmp_path / "s")


@pytest.mark.parametrize("content", ["{}", "[1]", "{", '{"num_classes": 3, "softlabel": 4}'])
def test_another_folder_is_not_taken_for_a_student(content, tmp_path):
    with pytest.raises(UsageError, match="wanted a student made by kd-train"):
        load_student(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match="wanted a"):
        load_student(tmp_path)


def test_equal_weights_are_equal_bytes_however_they_lie_in_memory():
    weight = torch.randn(4, 3, 5, 5)
    last = weight.contiguous(memory_format=torch.channels_last)
    assert packed({"a": weight, "b": weight}) == packed({"b": last, "a": last})
    assert torch.equal(safetensors.torch.load(packed({"w": last}))["w"], weight)


@pytest.mark.slow
def test_timm_builds_its_models_and_reads_our_folder(tmp_path):
    timm = pytest.importorskip("timm")
    for name, size in (("timm/resnet10t", 32), ("timm/vit_tiny_patch16_224", 32)):
        student = build(name, size=size)
        folder = tmp_path / name.replace("/", "-")
        save_student(folder, student, config(name, class_names=None), card="")
        loaded, _ = load_student(folder)
        theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        image = torch.randn(2, 3, size, size)
        with torch.no_grad():
            assert torch.equal(loaded(image), theirs(image))
    with pytest.raises(UsageError, match="did you mean timm/"):
        build("timm/resnet10tt")
    with pytest.raises(UsageError, match="no such image classifier"):
        build("timm/hf_hub:someone/something")
