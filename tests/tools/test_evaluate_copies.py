"""Students whose figures are known beforehand: copies of the teacher, and one at other batches."""

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

from softlabel.shards.recipe import Recipe
from softlabel.tools.evaluate.config import EvalConfig
from softlabel.tools.evaluate.evaluation import Evaluation
from softlabel.tools.evaluate.models import Model
from softlabel.tools.evaluate.run import evaluate
from softlabel.trainer.small_cnn import SmallCNN
from softlabel.trainer.student_files import StudentConfig
from softlabel.trainer.training import Normaliser

SIDE, WIDTH, CLASSES, IMAGES = 8, 12, 25, 60


def recipe() -> Recipe:
    """Pixels go in as they are: 1 / (255 std) is 1."""
    return Recipe(
        input_size=(3, SIDE, SIDE), interpolation="bilinear", crop_pct=1.0, crop_mode="center",
        mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255),
    )  # fmt: skip


def exact_weights() -> tuple[np.ndarray, np.ndarray]:
    """Logits of pixels that are multiples of 4 are then multiples of 1/64 below 32: all of them,
    and their differences, are exact as float16.
    """
    rng = np.random.default_rng(0)
    first = np.zeros((WIDTH, 3 * SIDE * SIDE), np.float32)
    first[np.arange(WIDTH), rng.permutation(first.shape[1])[:WIDTH]] = 1
    return first, (rng.integers(-1, 2, (CLASSES, WIDTH)) / 256).astype(np.float32)


def any_weights() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = ((WIDTH, 3 * SIDE * SIDE), (CLASSES, WIDTH))
    first, second = (rng.normal(0, 0.03, shape).astype(np.float32) for shape in shapes)
    return first, second * 4


def linear(weights: tuple[np.ndarray, np.ndarray]) -> nn.Module:
    layers = [nn.Linear(w.shape[1], w.shape[0], bias=False) for w in weights]
    with torch.no_grad():
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
    return nn.Sequential(nn.Flatten(), *layers).eval()


def save_onnx(path: Path, weights: tuple[np.ndarray, np.ndarray]) -> Path:
    """The same network, with an output for its embedding."""
    names = ("flat", "embedding", "logits")
    nodes = [helper.make_node("Flatten", ["x"], ["flat"])]
    for number, (source, made) in enumerate(pairwise(names)):
        nodes.append(helper.make_node("Gemm", [source, f"w{number}"], [made], transB=1))
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", WIDTH]),
        ],
        [numpy_helper.from_array(w, f"w{number}") for number, w in enumerate(weights)],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    path.with_suffix(".json").write_text(json.dumps(recipe().to_dict()))
    return path


def encoded(rng: np.random.Generator) -> bytes:
    """An image whose pixels are multiples of 4."""
    buffer = io.BytesIO()
    pixels = (rng.integers(0, 64, (SIDE, SIDE, 3)) * 4).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def model(role: str, module: nn.Module) -> Model:
    described = StudentConfig(
        name=f"test/{role}", num_classes=CLASSES, recipe=recipe(), class_names=None,
        training={"decoder": "pillow"},
    )  # fmt: skip
    device = torch.device("cpu")
    return Model(
        role=role, folder=Path(role), described=described, module=module.eval(), device=device,
        normalise=Normaliser(recipe(), device, channels_last=False),
    )  # fmt: skip


@pytest.fixture(scope="module")
def tars(tmp_path_factory, write_tar) -> tuple[str, ...]:
    """Two tars of unequal length; pixels are multiples of 4, two images of three have a target."""
    folder = tmp_path_factory.mktemp("copies")
    rng = np.random.default_rng(7)
    files: list[list[tuple[str, bytes]]] = [[], []]
    for i in range(IMAGES):
        own = files[i % 5 == 0]
        own.append((f"{i:03d}.png", encoded(rng)))
        if i % 3:
            own.append((f"{i:03d}.cls", b"%d" % rng.integers(CLASSES)))
    return tuple(str(write_tar(folder / f"{t}.tar", own)) for t, own in enumerate(files))


@pytest.fixture(scope="module")
def labelled(tars, tmp_path_factory) -> Any:
    """(weights) -> config of an evaluation whose labels are there, made by such a teacher."""
    made: dict[str, EvalConfig] = {}
    cache = tmp_path_factory.mktemp("cache")

    def find(weights: Any, **changes: Any) -> EvalConfig:
        name = weights.__name__
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            teacher = save_onnx(folder / "teacher.onnx", weights())
            made[name] = EvalConfig(
                student=folder, shards=tars, output=folder, teacher=teacher,
                recipe=teacher.with_suffix(".json"), embedding="embedding", workers=2,
                device="cpu", log_format="text",
            )  # fmt: skip
        fields = {f: getattr(made[name], f) for f in made[name].__dataclass_fields__}
        return EvalConfig(**(fields | changes))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTLABEL_CACHE", str(cache))
        yield find


def evaluated(config: EvalConfig, *models: Model) -> Evaluation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("softlabel.tools.evaluate.run.load_models", lambda config: list(models))
        return evaluate(config)


def values(evaluation: Evaluation, role: str = "student") -> dict[str, float]:
    return {name: figure.value for name, figure in evaluation.figures[role].items()}


def test_a_perfect_copy_is_perfectly_faithful(labelled):
    weights = exact_weights()
    found = evaluated(labelled(exact_weights), model("student", linear(weights)))
    figures = values(found)
    assert figures["agreement"] == figures["top5_overlap"] == 1
    assert 0 <= figures["kl"] < 1e-12
    assert 0 <= figures["tv"] < 1e-12
    assert figures["conf_slope"] == pytest.approx(1, abs=1e-9)
    assert figures["cka"] == pytest.approx(1, abs=1e-9)
    assert figures["cosine_correlation"] == pytest.approx(1, abs=1e-6)
    assert found.lower_bounds == []
    for name, value in values(found, "teacher").items():
        assert figures[name] == pytest.approx(value, abs=1e-9), name
    interval = found.figures["student"]["conf_slope"]
    assert [interval.low, interval.high] == pytest.approx([1, 1], abs=1e-9)


def test_a_copy_is_as_faithful_as_half_precision_labels_can_tell(labelled):
    figures = values(evaluated(labelled(any_weights), model("student", linear(any_weights()))))
    assert figures["agreement"] == 1
    assert 0 <= figures["kl"] < 1e-6
    assert figures["tv"] < 1e-3
    assert figures["conf_slope"] == pytest.approx(1, abs=1e-3)
    assert figures["cka"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_copy_at_another_temperature_agrees_and_its_slope_tells(labelled, factor):
    """Its confidence is another, and so are KL and total variation; its features are the same."""
    first, second = exact_weights()
    scaled = model("student", linear((first, second * np.float32(factor))))
    figures = values(evaluated(labelled(exact_weights), scaled))
    assert figures["agreement"] == figures["top5_overlap"] == 1
    assert abs(figures["conf_slope"] - 1) > 0.2
    assert (figures["conf_slope"] > 1) == (factor > 1)
    assert figures["kl"] > 0.01
    assert figures["tv"] > 0.01
    assert figures["cka"] == pytest.approx(1, abs=1e-9)


def test_no_figure_depends_on_the_batch_size(labelled):
    """Batches of 1, 7 (the last of each tar is shorter) and 64 (more than a tar holds)."""
    torch.manual_seed(0)
    student, control = SmallCNN(CLASSES), SmallCNN(CLASSES)
    models = model("student", student), model("control", control)
    results = [evaluated(labelled(exact_weights, batch_size=n), *models) for n in (1, 7, 64)]
    whole, *others = [result.figures | {"difference": result.differences} for result in results]
    assert set(whole["student"]) >= {"agreement", "kl", "tv", "conf_slope", "cka", "nll", "brier"}
    for other in others:
        for role, figures in whole.items():
            assert set(other[role]) == set(figures)
            for name, figure in figures.items():
                for part in ("value", "low", "high"):
                    expected = getattr(figure, part)
                    assert getattr(other[role][name], part) == pytest.approx(expected, abs=1e-6), (
                        role,
                        name,
                        part,
                    )


def test_a_copy_stands_degradation_attacks_and_foreign_images_as_the_teacher_does(
    labelled, tmp_path, write_tar
):
    rng = np.random.default_rng(8)
    foreign = write_tar(tmp_path / "f.tar", [(f"{i}.png", encoded(rng)) for i in range(15)])
    config = labelled(
        exact_weights,
        ood_shards=(str(foreign),),
        degradations=("impulse_noise", "dropout"),
        attacks=("fgsm",),
        stress_images=20,
    )
    found = evaluated(config, model("student", linear(exact_weights())))
    assert found.ood is not None
    assert found.stress is not None
    assert set(found.ood.figures["student"]) == set(found.ood.figures["teacher"])
    for name, figure in found.ood.figures["student"].items():
        teacher = found.ood.figures["teacher"][name]
        assert figure.value == pytest.approx(teacher.value, abs=1e-9), name
    degraded, attacked = found.stress.degradations, found.stress.adversarial
    assert degraded is not None
    assert attacked is not None
    assert degraded.n == attacked.n == 20
    for name, figure in degraded.figures["student"].items():
        if name.startswith("agreement"):
            assert figure.value == 1
        else:
            assert figure.value == degraded.figures["teacher"][name].value
    own = attacked.figures["student"]
    assert own["fgsm/transfer"].value == own["fgsm/fooled"].value > 0
    assert own["fgsm/agreement"].value == 1


def test_a_student_without_features_has_no_cka_and_that_is_said(labelled):
    headless = nn.Sequential(nn.Conv2d(3, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = evaluated(labelled(exact_weights), model("student", headless))
    assert {"cka", "cosine_correlation"}.isdisjoint(found.figures["student"])
    assert [note for note in found.notes if note.startswith("no CKA of the student")]


def test_an_embedding_is_asked_of_a_teacher_only(tmp_path):
    with pytest.raises(ValueError, match="--embedding: only for --teacher"):
        EvalConfig(student=tmp_path, shards=("a",), output=tmp_path, labels=tmp_path, embedding="e")
