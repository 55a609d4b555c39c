"""The embedding, and the layer that makes logits of it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from softlabel.labeler.head import head_of
from softlabel.labeler.teacher import open_teacher

FLOAT, FLOAT16, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8


@pytest.mark.parametrize("name", ["features", "pooled"])
def test_the_embedding_comes_out_as_rows_of_float32(
    conv_teacher, make_recipe, run_onnx, name, label
):
    path = conv_teacher()
    images = np.random.default_rng(2).integers(0, 256, (3, 8, 8, 3), np.uint8)
    found = label(path, make_recipe(8, 8), images, top_k=3, embedding=name)["embedding"]
    assert found.dtype == np.float32
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info("features", FLOAT, ["N", 16]))
    raw = run_onnx(model, x=images.transpose(0, 3, 1, 2).astype(np.float32))
    np.testing.assert_array_equal(found, raw["features"])


def gemm(**attributes):
    return [("Gemm", ["features", "v", "bias"], ["y"], attributes)]


RNG = np.random.default_rng(11)
MATRIX = RNG.standard_normal((16, 10)).astype(np.float32)
HEADS = {
    "gemm": (gemm(), MATRIX),
    "gemm scaled": (gemm(alpha=0.5, beta=2.0, transB=1), MATRIX.T.copy()),
    "gemm without bias": ([("Gemm", ["features", "v"], ["y"])], MATRIX),
    "matmul": ([("MatMul", ["features", "v"], ["y"])], MATRIX),
    "matmul and add": (
        [("MatMul", ["features", "v"], ["m"]), ("Add", ["bias", "m"], ["y"])],
        MATRIX,
    ),
    "dropout, transposed weight": (
        [
            ("Dropout", ["features"], ["f"]),
            ("Transpose", ["v"], ["vt"]),
            ("MatMul", ["f", "vt"], ["m"]),
            ("Add", ["m", "bias"], ["y"]),
        ],
        MATRIX.T.copy(),
    ),
    "softmax after it": ([*gemm(), ("Softmax", ["y"], ["p"])], MATRIX),
    "1x1 conv": (
        [("Conv", ["pooled", "v", "bias"], ["m"]), ("Flatten", ["m"], ["y"])],
        MATRIX.T.copy()[:, :, None, None],
    ),
}


@pytest.mark.parametrize("external", [None, "weights.bin"])
@pytest.mark.parametrize("name", HEADS)
def test_the_head_turns_the_embedding_into_the_logits(
    conv_teacher, make_recipe, name, external, label
):
    body, weight = HEADS[name]
    bias = RNG.standard_normal(10).astype(np.float32)
    outputs = [("p" if "softmax" in name else "y", FLOAT, ["N", 10])]
    model = {"body": body, "outputs": outputs, "more_weights": {"v": weight, "bias": bias}}
    path = conv_teacher(**model, external=external, name="apart/teacher.onnx")
    head = head_of(open_teacher(path, embedding="features"))
    assert head is not None
    head_weight, head_bias = head
    assert (head_weight.dtype, head_bias.dtype) == (np.float32, np.float32)
    assert (head_weight.shape, head_bias.shape) == ((10, 16), (10,))
    images = np.random.default_rng(2).integers(0, 256, (3, 8, 8, 3), np.uint8)
    found = label(conv_teacher(**model), make_recipe(8, 8), images, top_k=10, embedding="features")
    logits = np.empty((3, 10), np.float32)
    absolute = found["topk_logit"] + found["max_logit"][:, None]
    np.put_along_axis(logits, found["topk_class"], absolute, 1)
    wanted = found["embedding"] @ head_weight.T + head_bias
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


NOT_LINEAR = {
    "relu between": [("Relu", ["features"], ["f"]), ("Gemm", ["f", "v"], ["y"])],
    "relu after": [("Gemm", ["features", "v"], ["m"]), ("Relu", ["m"], ["y"])],
    "two layers": [("Gemm", ["logits", "u"], ["y"])],
    "sigmoid": [("Gemm", ["features", "v"], ["m"]), ("Sigmoid", ["m"], ["y"])],
    "log-softmax": [("Gemm", ["features", "v"], ["m"]), ("LogSoftmax", ["m"], ["y"])],
    "weight computed": [
        ("ReduceSum", ["features", "one"], ["s"]),
        ("Mul", ["s", "v"], ["vs"]),
        ("MatMul", ["features", "vs"], ["y"]),
    ],
}


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_a_head_that_is_not_one_linear_layer_is_none(conv_teacher, name):
    batch = 1 if name == "weight computed" else "N"
    more = {"v": MATRIX, "u": np.ones((10, 10), "f4"), "one": np.array([0, 1])}
    path = conv_teacher(
        body=NOT_LINEAR[name], outputs=[("y", FLOAT, [batch, 10])], more_weights=more, batch=batch
    )
    assert head_of(open_teacher(path, embedding="features")) is None


def test_there_is_no_head_without_an_embedding(conv_teacher):
    assert head_of(open_teacher(conv_teacher())) is None
