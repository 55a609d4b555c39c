"""A small labelled collection with its teacher, a copy of it as student, and a control."""

import io
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

from softlabel.shards.progress import Progress
from softlabel.shards.recipe import Recipe
from softlabel.tools.evaluate.answers import Images, ask
from softlabel.tools.evaluate.config import EvalConfig
from softlabel.tools.evaluate.models import Model
from softlabel.tools.evaluate.teacher_labels import Labelled, find_labels
from softlabel.tools.evaluate.teacher_session import TeacherOnImages
from softlabel.trainer.small_cnn import SmallCNN
from softlabel.trainer.student_files import StudentConfig
from softlabel.trainer.training import Normaliser

SIDE, WIDTH, CLASSES = 8, 12, 7
IMAGES, OTHERS, BROKEN = 45, 30, 2


@dataclass(frozen=True)
class Asked:
    """All that a measurement on some of the images takes."""

    models: list[Model]
    """A copy of the teacher as student, and a small CNN of twice the size as control."""
    teacher: TeacherOnImages
    labelled: Labelled
    images: Images
    id_tars: list[str]
    ood_tars: list[str]
    """Noise, with two members that can't be decoded."""

    def pixels(self, tars: list[str], side: int = SIDE) -> np.ndarray:
        """The images as Pillow has them, in order."""
        import tarfile

        found = []
        for tar in tars:
            with tarfile.open(tar) as members:
                for member in members:
                    data = members.extractfile(member).read()
                    if member.name.endswith(".png") and data[:4] == b"\x89PNG":
                        found.append(Image.open(io.BytesIO(data)))
        size = (side, side)
        return np.stack([
            np.asarray(i if i.size == size else i.resize(size, Image.Resampling.BILINEAR))
            for i in found
        ])  # fmt: skip


def progress() -> Progress:
    return Progress("testing", total=1, done=0, log_format="text")


def weights() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = ((WIDTH, 3 * SIDE * SIDE), (CLASSES, WIDTH))
    return [rng.normal(0, 0.03 * s, shape).astype(np.float32)
            for s, shape in zip((1, 4), shapes, strict=True)]  # fmt: skip


def recipe(side: int = SIDE) -> Recipe:
    return Recipe(
        input_size=(3, side, side), interpolation="bilinear", crop_pct=1.0, crop_mode="center",
        mean=(0.5, 0.5, 0.5), std=(0.02, 0.02, 0.02),
    )  # fmt: skip


def student_model(role: str, module: nn.Module, side: int = SIDE) -> Model:
    described = StudentConfig(
        name=f"test/{role}", num_classes=CLASSES, recipe=recipe(side), class_names=None,
        training={"decoder": "pillow"},
    )  # fmt: skip
    device = torch.device("cpu")
    return Model(
        role=role, folder=Path(role), described=described, module=module.eval(), device=device,
        normalise=Normaliser(recipe(side), device, channels_last=False),
    )  # fmt: skip


def copy_of_teacher() -> nn.Module:
    layers = [nn.Linear(w.shape[1], w.shape[0], bias=False) for w in weights()]
    with torch.no_grad():
        for layer, weight in zip(layers, weights(), strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
    return nn.Sequential(nn.Flatten(), *layers)


def save_teacher(path: Path) -> Path:
    names = ("flat", "embedding", "logits")
    nodes = [helper.make_node("Flatten", ["x"], ["flat"])]
    for number, (source, made) in enumerate(pairwise(names)):
        nodes.append(helper.make_node("Gemm", [source, f"w{number}"], [made], transB=1))
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES]),
         helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", WIDTH])],
        [numpy_helper.from_array(w, f"w{number}") for number, w in enumerate(weights())],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.metadata_props.add(key="softlabel.recipe", value=json_of(recipe()))
    onnx.save(model, path)
    return path


def json_of(of: Recipe) -> str:
    import json

    return json.dumps(of.to_dict())


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def asked(tmp_path_factory, write_tar) -> Asked:
    """The collection, labelled; a third of its images have no target."""
    folder = tmp_path_factory.mktemp("asked")
    rng = np.random.default_rng(7)
    files = [[], []]
    for i in range(IMAGES):
        coarse = Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8))
        own = files[i % 4 == 0]
        own.append((f"{i:03d}.png", png(np.asarray(coarse.resize((SIDE, SIDE))))))
        if i % 3:
            own.append((f"{i:03d}.cls", b"%d" % rng.integers(CLASSES)))
    others = [(f"o{i:03d}.png", png(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)))
              for i in range(OTHERS)]  # fmt: skip
    others += [(f"bad{i}.png", b"none") for i in range(BROKEN)]
    id_tars = [str(write_tar(folder / f"t{t}.tar", own)) for t, own in enumerate(files)]
    ood_tars = [str(write_tar(folder / "ood.tar", others))]
    torch.manual_seed(3)
    models = [
        student_model("student", copy_of_teacher()),
        student_model("control", SmallCNN(CLASSES), 2 * SIDE),
    ]
    path = save_teacher(folder / "teacher.onnx")
    config = EvalConfig(
        student=folder, shards=tuple(id_tars), output=folder, teacher=path, embedding="embedding",
        workers=2, device="cpu", log_format="text",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTLABEL_CACHE", str(folder / "cache"))
        labelled = find_labels(config, models)
        manifest = labelled.store.manifest
        teacher = TeacherOnImages.of_labels(path, manifest, provider="cpu", threads=1)
    found = ask(models, labelled, batch_size=16, workers=2, progress=progress())
    return Asked(models, teacher, labelled, found.images, id_tars, ood_tars)
