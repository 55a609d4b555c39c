"""A softmax is taken off, other probabilities become logits."""

import numpy as np
import pytest
from onnx import TensorProto

from softlabel.labeler.teacher import open_teacher

FLOAT, FLOAT16, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
TABLE = np.float32(np.random.default_rng(5).normal(0, 4, (5, 12)))


DECOMPOSED = [
    ("ReduceMax", ["z"], ["m"], {"axes": [1]}),
    ("Sub", ["z", "m"], ["d"]),
    ("Exp", ["d"], ["e"]),
    ("ReduceSum", ["e", "one"], ["s"]),
    ("Div", ["e", "s"], ["out"]),
]


@pytest.mark.parametrize(
    ("body", "opset"),
    [
        ([("Softmax", ["z"], ["out"])], 17),
        ([("Softmax", ["z"], ["p"], {"axis": 1}), ("Identity", ["p"], ["out"])], 17),
        ([("Softmax", ["z"], ["out"])], 12),
        (DECOMPOSED, 17),
        (
            [
                ("Reshape", ["z", "map"], ["m"]),
                ("Softmax", ["m"], ["p"], {"axis": 1}),
                ("Flatten", ["p"], ["out"]),
            ],
            17,
        ),
        (
            [
                ("Softmax", ["z"], ["p"]),
                ("Cast", ["p"], ["half"], {"to": FLOAT16}),
                ("Cast", ["half"], ["out"], {"to": FLOAT}),
            ],
            17,
        ),
    ],
)
def test_a_softmax_is_taken_off(
    table_teacher, make_recipe, body, opset, label, assert_labels, rows
):
    more = {"map": np.array([-1, 12, 1, 1])}
    path = table_teacher(TABLE, body=body, output="out", opset=opset, more_weights=more)
    assert open_teacher(path).output_kind == "softmax-removed"
    assert_labels(label(path, make_recipe(), rows(5), top_k=4), TABLE, 4)


def test_a_softmax_is_taken_off_for_the_labels_only(
    table_teacher, make_recipe, label, assert_labels, rows
):
    path = table_teacher(TABLE, body=[("Softmax", ["z"], ["out"])], output="out")
    found = label(path, make_recipe(), rows(5), top_k=4, embedding="out")
    assert_labels({k: v for k, v in found.items() if k != "embedding"}, TABLE, 4)
    np.testing.assert_allclose(found["embedding"].sum(1), 1, rtol=1e-6)


def test_logs_of_probabilities_are_logits_as_they_are(
    table_teacher, make_recipe, run_onnx, label, assert_labels, rows
):
    path = table_teacher(TABLE, body=[("LogSoftmax", ["z"], ["out"])], output="out")
    raw = run_onnx(path, x=rows(5).transpose(0, 3, 1, 2).astype(np.float32))["out"]
    assert_labels(label(path, make_recipe(), rows(5), top_k=4), raw, 4)


def test_other_probabilities_become_their_logarithm(
    table_teacher, make_recipe, run_onnx, label, rows
):
    table = np.float32([[-200, -3, 0, 2], [1, 2, 3, 90]])
    path = table_teacher(table, body=[("Sigmoid", ["z"], ["out"])], output="out")
    raw = run_onnx(path, x=rows(2).transpose(0, 3, 1, 2).astype(np.float32))["out"]
    found = label(path, make_recipe(), rows(2), top_k=4)
    wanted = np.log(np.maximum(raw.astype(np.float64), 1e-30))
    np.testing.assert_array_equal(found["topk_class"], np.argsort(-wanted, 1, kind="stable"))
    absolute = found["topk_logit"] + found["max_logit"][:, None]
    np.testing.assert_allclose(absolute, -np.sort(-wanted, 1), rtol=1e-6)
    assert found["topk_logit"][0, -1] < -60


def test_a_probability_that_is_nan_is_not_finite(table_teacher, make_recipe, label, rows):
    table = np.float32([[0, 1, 2], [0, np.nan, 2]])
    path = table_teacher(table, body=[("Sigmoid", ["z"], ["out"])], output="out")
    found = label(path, make_recipe(), rows(2), top_k=2)
    assert found["finite"].tolist() == [True, False]


def test_a_float16_body_gets_float32_labels(table_teacher, make_recipe, label, assert_labels, rows):
    table = np.float16(np.random.default_rng(2).normal(0, 9, (7, 40)))
    found = label(table_teacher(table), make_recipe(), rows(7), top_k=5)
    assert_labels(found, table, 5)
