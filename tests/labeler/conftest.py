"""Small ONNX models, written node by node."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from softlabel.labeler.graph import labelling_graph
from softlabel.labeler.teacher import open_teacher
from softlabel.shards.recipe import Recipe

Model = Callable[..., Path]
Outputs = dict[str, Any]
TEMPERATURES = (0.5, 0.7, 1.0, 2.0, 4.0, 8.0)
RAW = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}


@pytest.fixture
def write_model(tmp_path: Path) -> Model:
    """(nodes, inputs, outputs, weights, ...) -> path of an ONNX file.

    A node is (operator, inputs, outputs) or (operator, inputs, outputs, attributes), an input or
    output (name, type, shape).
    """

    def write(
        nodes: Sequence[Any],
        *,
        inputs: Sequence[tuple[str, int, Sequence[Any] | None]],
        outputs: Sequence[tuple[str, int, Sequence[Any] | None]],
        weights: Mapping[str, Any] | None = None,
        opset: int = 17,
        name: str = "teacher.onnx",
        metadata: Mapping[str, Any] | None = None,
        external: str | None = None,
        ir_version: int = 8,
    ) -> Path:
        made = [
            n
            if isinstance(n, onnx.NodeProto)
            else helper.make_node(n[0], n[1], n[2], **(n[3] if len(n) > 3 else {}))
            for n in nodes
        ]
        constants = [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()]
        values = [[helper.make_tensor_value_info(*v) for v in group] for group in (inputs, outputs)]
        graph = helper.make_graph(made, "teacher", *values, constants)
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
        for key, value in (metadata or {}).items():
            text = value if isinstance(value, str) else json.dumps(value)
            model.metadata_props.add(key=key, value=text)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"location": external, "size_threshold": 0} if external else {}
        onnx.save(model, path, save_as_external_data=external is not None, **options)
        return path

    return write


@pytest.fixture
def table_teacher(write_model: Model) -> Model:
    """(table [R, C]) -> a teacher that answers row r of the table to an image whose red is r.

    Images are 1 x 2 pixels; the recipe must leave pixels raw.
    """

    def make(table: Any, *, body: Sequence[Any] = (), output: str = "z", **changes: Any) -> Path:
        logits = np.asarray(table)
        batch = changes.pop("batch", "N")
        dtype = helper.np_dtype_to_tensor_dtype(logits.dtype)
        nodes = [
            ("Slice", ["x", "zero", "one", "channel"], ["red"]),
            ("Slice", ["red", "zero", "one", "width"], ["pixel"]),
            ("Reshape", ["pixel", "flat"], ["number"]),
            ("Cast", ["number"], ["row"], {"to": TensorProto.INT64}),
            ("Gather", ["table", "row"], ["z"]),
            *body,
        ]
        weights = {"table": logits, "zero": np.array([0]), "one": np.array([1])}
        weights |= {"channel": np.array([1]), "width": np.array([3]), "flat": np.array([-1])}
        settings: dict[str, Any] = {
            "inputs": [("x", TensorProto.FLOAT, [batch, 3, 1, 2])],
            "outputs": [(output, dtype, [batch, logits.shape[1]])],
            "weights": weights | changes.pop("more_weights", {}),
        }
        return write_model(nodes, **(settings | changes))

    return make


@pytest.fixture
def conv_teacher(write_model: Model) -> Model:
    """(num_classes, size) -> conv, pool, `features` [N, 16], `logits` [N, C], then `body`."""

    def make(
        *, num_classes: int = 10, size: int = 8, body: Sequence[Any] = (), **changes: Any
    ) -> Path:
        rng = np.random.default_rng(7)
        batch = changes.pop("batch", "N")
        nodes = [
            ("Conv", ["x", "w"], ["c"], {"pads": [1, 1, 1, 1]}),
            ("Relu", ["c"], ["r"]),
            ("GlobalAveragePool", ["r"], ["pooled"]),
            ("Flatten", ["pooled"], ["features"]),
            ("Gemm", ["features", "fc", "b"], ["logits"], {"transB": 1}),
            *body,
        ]
        weights = {
            "w": (rng.standard_normal((16, 3, 3, 3)) * 0.3).astype(np.float32),
            "fc": (rng.standard_normal((num_classes, 16)) * 3).astype(np.float32),
            "b": rng.standard_normal(num_classes).astype(np.float32),
        }
        settings: dict[str, Any] = {
            "inputs": [("x", TensorProto.FLOAT, [batch, 3, size, size])],
            "outputs": [("logits", TensorProto.FLOAT, [batch, num_classes])],
            "weights": weights | changes.pop("more_weights", {}),
        }
        return write_model(nodes, **(settings | changes))

    return make


@pytest.fixture(scope="session")
def make_recipe() -> Callable[..., Recipe]:
    """(height, width, changes) -> a recipe; by default pixels stay raw."""

    def make(height: int = 1, width: int = 2, **changes: Any) -> Recipe:
        fields: dict[str, Any] = {
            "input_size": (3, height, width),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "center",
            **RAW,
        }
        return Recipe(**(fields | changes))

    return make


@pytest.fixture(scope="session")
def run_onnx() -> Callable[..., dict[str, Any]]:
    """(path or model, inputs) -> outputs by name, on one CPU thread."""

    def run(model: Path | onnx.ModelProto, **feeds: Any) -> dict[str, Any]:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        loaded = str(model) if isinstance(model, Path) else model.SerializeToString()
        session = ort.InferenceSession(loaded, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))

    return run


@pytest.fixture
def label(run_onnx: Callable[..., Outputs]) -> Callable[..., Outputs]:
    """(path, recipe, images, top_k, temperatures, options of open_teacher) -> labels by name."""

    def run(
        path: Path,
        recipe: Recipe,
        images: Any,
        *,
        top_k: int,
        temperatures: Sequence[float] = TEMPERATURES,
        **options: Any,
    ) -> Outputs:
        teacher = open_teacher(path, **options)
        graph = labelling_graph(teacher, recipe, top_k=top_k, temperatures=temperatures)
        onnx.checker.check_model(graph)
        return run_onnx(graph, image=images)

    return run


@pytest.fixture(scope="session")
def rows() -> Callable[[int], Any]:
    """(number) -> images whose red value is their number, as the table teacher reads it."""

    def make(num: int) -> Any:
        images = np.zeros((num, 1, 2, 3), np.uint8)
        images[:, 0, 0, 0] = np.arange(num)
        return images

    return make


def reference(logits: Any, top_k: int, temperatures: Sequence[float]) -> Outputs:
    """What the labels mean, in float64, with no trick but the tail's own peak."""
    z = np.asarray(logits, np.float64)
    order = np.argsort(-z, axis=1, kind="stable")
    ordered = np.take_along_axis(z, order, 1)
    peak = ordered[:, :1]
    rest = ordered[:, top_k:] - peak
    tails = np.full((len(z), len(temperatures)), -np.inf)
    if rest.shape[1]:
        for i, t in enumerate(temperatures):
            own = rest[:, :1] / t
            tails[:, i] = (np.log(np.exp(rest / t - own).sum(1, keepdims=True)) + own)[:, 0]
    return {
        "topk_logit": np.maximum(ordered[:, :top_k] - peak, -65504.0),
        "topk_class": order[:, :top_k],
        "tail_lse": tails,
        "max_logit": peak[:, 0],
        "finite": np.isfinite(z).all(1),
    }


@pytest.fixture(scope="session")
def assert_labels() -> Callable[..., None]:
    """(labels, raw logits, top_k): classes exactly, the rest within float32 rounding."""

    def check(
        found: Outputs, logits: Any, top_k: int, temperatures: Sequence[float] = TEMPERATURES
    ) -> None:
        wanted = reference(logits, top_k, temperatures)
        for name, values in wanted.items():
            assert found[name].shape == values.shape, name
        np.testing.assert_array_equal(found["topk_class"], wanted["topk_class"])
        np.testing.assert_array_equal(found["finite"], wanted["finite"])
        np.testing.assert_array_equal(found["max_logit"], wanted["max_logit"].astype(np.float32))
        np.testing.assert_allclose(found["topk_logit"], wanted["topk_logit"], rtol=1.2e-7, atol=0)
        np.testing.assert_allclose(found["tail_lse"], wanted["tail_lse"], rtol=4e-7, atol=1e-6)

    return check
