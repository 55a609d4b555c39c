import hashlib
import io
import json
import pickle
import sys
from collections.abc import Sequence

import numpy as np
import onnxruntime
import pytest

from softlabel.shards.errors import MachineError
from softlabel.shards.recipe import METADATA_KEY, Recipe
from softlabel.tools.realdata import teachers
from softlabel.tools.realdata.ccexam_mnist import from_weights
from softlabel.tools.realdata.mltk_cifar10 import RECIPE, from_keras
from softlabel.tools.realdata.onnx_builder import GraphBuilder, same_pads
from softlabel.tools.realdata.packages import Package
from softlabel.tools.realdata.squeezenet import read_arrays

RNG = np.random.default_rng(11)


def convolve(x, weight, bias, *, stride: int, groups: int, pads: Sequence[int]):
    """Convolution by its definition, in float64. x [N, C, H, W], weight [O, C / groups, k, k]."""
    top, left, bottom, right = pads
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    num_out, num_in, k, _ = weight.shape
    side = (x.shape[2] - k) // stride + 1
    out = np.zeros((len(x), num_out, side, side))
    for o in range(num_out):
        channels = x[:, o // (num_out // groups) * num_in :][:, :num_in]
        for i in range(side):
            for j in range(side):
                window = channels[:, :, i * stride : i * stride + k, j * stride : j * stride + k]
                out[:, o, i, j] = (window * weight[o]).sum((1, 2, 3)) + bias[o]
    return out


def run(model, x):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["logits", "features"], {"input": x.astype(np.float32)})


def recipe(side: int) -> Recipe:
    return Recipe(
        input_size=(3, side, side),
        interpolation="bilinear",
        crop_pct=1.0,
        crop_mode="center",
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )


def tiny(side: int, kernel: int, stride: int, groups: int):
    """A convolution and a linear head, with the weights it was made of."""
    rng = np.random.default_rng([side, kernel, stride, groups])
    weight = rng.standard_normal((6, 3 // groups, kernel, kernel))
    bias, head = rng.standard_normal(6), rng.standard_normal((6, 4))
    graph = GraphBuilder()
    out, pads = same_pads(side, kernel=kernel, stride=stride)
    features = graph.pixel_mean(
        graph.conv(graph.input, weight, bias, stride=stride, groups=groups, pads=pads)
    )
    model = graph.model(
        logits=graph.node("MatMul", features, graph.constant(head)),
        features=features,
        num_features=6,
        recipe=recipe(side),
        class_names=["ant", "bee", "crow", "d\u00f6ner"],
    )
    return model, weight, bias, head, out, pads


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "groups"), [(8, 3, 2, 1), (9, 3, 2, 3), (7, 5, 1, 3), (8, 1, 2, 1)]
)
def test_a_built_model_computes_what_its_layers_mean(side, kernel, stride, groups):
    model, weight, bias, head, out, pads = tiny(side, kernel, stride, groups)
    x = RNG.standard_normal((5, 3, side, side))
    convolved = convolve(x, weight, bias, stride=stride, groups=groups, pads=pads)
    assert convolved.shape == (5, 6, out, out)
    logits, features = run(model, x)
    np.testing.assert_allclose(features, convolved.mean((2, 3)), atol=1e-5)
    np.testing.assert_allclose(logits, convolved.mean((2, 3)) @ head, atol=1e-5)


def test_a_built_model_says_how_it_wants_its_images():
    model, *_ = tiny(8, 3, 2, 1)
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert Recipe.from_dict(metadata[METADATA_KEY], source="test") == recipe(8)
    assert metadata["softlabel.class_names"] == ["ant", "bee", "crow", "d\u00f6ner"]


def test_the_same_layers_are_the_same_bytes():
    first, second = (tiny(8, 3, 2, 1)[0].SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 3, 2, (112, (0, 0, 1, 1))),
        (32, 3, 1, (32, (1, 1, 1, 1))),
        (32, 1, 2, (16, (0, 0, 0, 0))),
        (7, 5, 2, (4, (2, 2, 2, 2))),
        (8, 5, 2, (4, (1, 1, 2, 2))),
    ],
)
def test_same_padding_is_tensorflows(size, kernel, stride, expected):
    assert same_pads(size, kernel=kernel, stride=stride) == expected


def keras_file(layers, weights) -> bytes:
    """An HDF5 file laid out as Keras does."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["model_config"] = json.dumps({"config": {"layers": layers}})
        for layer in layers:
            name = layer["config"]["name"]
            group = file.create_group(f"model_weights/{name}")
            arrays = weights.get(name, {})
            group.attrs["weight_names"] = [f"{name}/{array}:0" for array in arrays]
            for array, values in arrays.items():
                group[f"{name}/{array}:0"] = values.astype(np.float32)
    return buffer.getvalue()


def layer(kind: str, name: str, *sources: str, **config):
    return {
        "class_name": kind,
        "config": {"name": name, **config},
        "inbound_nodes": [[[source, 0, 0, {}] for source in sources]] if sources else [],
    }


def conv_weights(rng, *shape: int):
    return {"kernel": rng.standard_normal(shape), "bias": rng.standard_normal(shape[-1])}


def keras_convolve(x, weights, *, stride: int, pads: Sequence[int]):
    kernel = weights["kernel"].transpose(3, 2, 0, 1)
    return convolve(x, kernel, weights["bias"], stride=stride, groups=1, pads=pads)


def test_a_keras_residual_net_converts_to_the_same_function():
    rng = np.random.default_rng(5)
    norm = {name: rng.standard_normal(4) for name in ("gamma", "beta", "moving_mean")}
    weights = {
        "wide": conv_weights(rng, 3, 3, 3, 4),
        "narrow": conv_weights(rng, 1, 1, 3, 4),
        "norm": {**norm, "moving_variance": rng.uniform(0.5, 2, 4)},
        "deep": conv_weights(rng, 3, 3, 4, 5),
        "dense": conv_weights(rng, 5, 10),
    }
    # Strides 3 and 2 take 32 to 11 to 6 pixels: an odd side is padded otherwise than an even one.
    layers = [
        layer("InputLayer", "images", batch_input_shape=[None, 32, 32, 3]),
        layer("Conv2D", "wide", "images", strides=[3, 3]),
        layer("BatchNormalization", "norm", "wide", epsilon=1e-3),
        layer("Conv2D", "narrow", "images", strides=[3, 3]),
        layer("Add", "sum", "narrow", "norm"),
        layer("Activation", "relu", "sum", activation="relu"),
        layer("Conv2D", "deep", "relu", strides=[2, 2]),
        layer("AveragePooling2D", "pool", "deep", pool_size=[6, 6], strides=[6, 6]),
        layer("Flatten", "flat", "pool"),
        layer("Dense", "dense", "flat", activation="softmax"),
    ]
    model = from_keras(keras_file(layers, weights))

    x = RNG.standard_normal((3, 3, 32, 32))
    wide = keras_convolve(x, weights["wide"], stride=3, pads=(0, 0, 1, 1))
    narrow = keras_convolve(x, weights["narrow"], stride=3, pads=(0, 0, 0, 0))
    gamma, beta, mean, variance = (values[:, None, None] for values in weights["norm"].values())
    normed = (wide - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    relu = np.maximum(narrow + normed, 0)
    pooled = keras_convolve(relu, weights["deep"], stride=2, pads=(1, 1, 1, 1)).mean((2, 3))
    logits, features = run(model, x)
    np.testing.assert_allclose(features, pooled, atol=1e-4)
    head = weights["dense"]
    np.testing.assert_allclose(logits, pooled @ head["kernel"] + head["bias"], atol=1e-4)


def test_an_unknown_keras_layer_is_refused_by_name():
    layers = [
        layer("InputLayer", "images", batch_input_shape=[None, 32, 32, 3]),
        layer("LayerNormalization", "strange", "images"),
    ]
    with pytest.raises(ValueError, match="LayerNormalization strange"):
        from_keras(keras_file(layers, {}))


def test_without_h5py_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MachineError, match=r"softlabel\[demo\]"):
        from_keras(b"")


def test_the_mnist_network_takes_grey_from_three_channels_and_computes_what_it_means():
    rng = np.random.default_rng(8)
    shapes = {
        "features.0": (4, 1, 3, 3),
        "features.3": (5, 4, 3, 3),
        "classifier.0": (6, 5 * 7 * 7),
        "classifier.2": (10, 6),
    }
    weights = {}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = rng.standard_normal(shape).astype(np.float32)
        weights[f"{name}.bias"] = rng.standard_normal(shape[0]).astype(np.float32)
    x = rng.standard_normal((3, 1, 28, 28))
    logits, features = run(from_weights(weights), np.repeat(x, 3, axis=1))
    for layer in ("features.0", "features.3"):
        weight, bias = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
        x = np.maximum(convolve(x, weight, bias, stride=1, groups=1, pads=(1, 1, 1, 1)), 0)
        x = x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).max((3, 5))
    hidden = x.reshape(3, -1) @ weights["classifier.0.weight"].T + weights["classifier.0.bias"]
    expected = np.maximum(hidden, 0)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-3)
    expected = expected @ weights["classifier.2.weight"].T + weights["classifier.2.bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-2)


def test_half_grey_is_zero_to_the_cifar10_teacher():
    pixel = np.array([0, 128, 255]) / 255
    scaled = (pixel - np.array(RECIPE.mean)) / np.array(RECIPE.std)
    np.testing.assert_allclose(scaled, [-1, 0, 127 / 128], atol=1e-12)


def test_pickled_arrays_are_read_and_anything_else_is_refused():
    arrays = {"conv1": [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)]}
    read = read_arrays(pickle.dumps(arrays, protocol=2))
    np.testing.assert_array_equal(read["conv1"][0], arrays["conv1"][0])
    for harmful in (print, np.load, io.open):
        with pytest.raises(pickle.UnpicklingError, match="wanted numpy arrays only"):
            read_arrays(pickle.dumps(harmful, protocol=2))


@pytest.mark.usefixtures("cache")
def test_a_teacher_is_built_once_for_each_package(cache):
    builds = []

    def build(path):
        builds.append(path)
        return tiny(8, 3, 2, 1)[0]

    def built(content: bytes):
        package = Package(
            name="net",
            version="1",
            registry="pypi",
            file=f"{content.decode()}.whl",
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            holds="a net",
        )
        (cache / "downloads").mkdir(parents=True, exist_ok=True)
        (cache / "downloads" / package.file).write_bytes(content)
        return teachers.built("net", build, (package,), say=print)

    first, again, other = built(b"one"), built(b"one"), built(b"two")
    assert [path.name for path in builds] == ["one.whl", "two.whl"]
    assert first == again != other
    assert first.read_bytes() == other.read_bytes()
