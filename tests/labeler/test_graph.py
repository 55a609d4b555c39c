"""The labelling graph against a float64 derivation from the raw logits."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper

from softlabel.labeler.graph import labelling_graph, logits_graph
from softlabel.labeler.surgery import opset_of
from softlabel.labeler.teacher import open_teacher

FLOAT, FLOAT16, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
TEMPERATURES = (0.5, 0.7, 1.0, 2.0, 4.0, 8.0)
TABLE = np.float32(np.random.default_rng(5).normal(0, 4, (5, 12)))


# Labels from logits


@pytest.mark.parametrize(
    ("num_classes", "top_k"), [(2, 1), (2, 2), (3, 1), (7, 7), (7, 6), (33, 5), (1003, 16)]
)
@pytest.mark.parametrize("spread", [1, 80, 1000])
def test_labels_are_those_of_the_raw_logits(
    table_teacher, make_recipe, run_onnx, num_classes, top_k, spread, label, assert_labels, rows
):
    rng = np.random.default_rng(num_classes * top_k)
    table = (rng.standard_normal((9, num_classes)) * spread).astype(np.float32)
    path = table_teacher(table)
    raw = run_onnx(path, x=rows(9).transpose(0, 3, 1, 2).astype(np.float32))["z"]
    np.testing.assert_array_equal(raw, table)
    found = label(path, make_recipe(), rows(9), top_k=top_k)
    assert_labels(found, raw, top_k)
    dtypes = {name: value.dtype for name, value in found.items()}
    assert dtypes.pop("topk_class") == np.int64
    assert dtypes.pop("finite") == np.bool_
    assert set(dtypes.values()) == {np.dtype(np.float32)}


some_logits = st.floats(-1000, 1000, width=32, allow_subnormal=False) | st.sampled_from(
    [0.0, -0.0, 1.0, 80.0, -80.0]
)
tables = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(2, 9)), elements=some_logits
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(table=tables, data=st.data())
def test_labels_are_right_for_any_logits(
    table_teacher, make_recipe, table, data, label, assert_labels, rows
):
    top_k = data.draw(st.integers(1, table.shape[1]))
    some = data.draw(st.lists(st.floats(0.5, 8), min_size=1, max_size=3).map(tuple))
    path = table_teacher(table)
    images = rows(len(table))
    found = label(path, make_recipe(), images, top_k=top_k, temperatures=some)
    assert_labels(found, table, top_k, tuple(np.float32(some).astype(np.float64)))


@pytest.mark.parametrize("top_k", [1, 3, 4, 5])
def test_of_equal_logits_the_lower_class_comes_first(
    table_teacher, make_recipe, top_k, label, assert_labels, rows
):
    table = np.float32([[1, 1, 1, 1, 1, 1], [0, 2, 1, 2, 1, 1], [-0.0, 0.0, 0.0, -0.0, 0.0, 0.0]])
    found = label(table_teacher(table), make_recipe(), rows(3), top_k=top_k)
    np.testing.assert_array_equal(found["topk_class"][0], np.arange(top_k))
    np.testing.assert_array_equal(found["topk_class"][2], np.arange(top_k))
    assert_labels(found, table, top_k)


def test_ties_keep_their_order_among_many_classes(
    table_teacher, make_recipe, label, assert_labels, rows
):
    table = np.random.default_rng(0).integers(0, 3, (4, 5003)).astype(np.float32)
    for top_k in (1, 16, 700):
        found = label(table_teacher(table), make_recipe(), rows(4), top_k=top_k)
        assert_labels(found, table, top_k)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_flagged_and_spoils_no_other(
    table_teacher, make_recipe, bad, label, assert_labels, rows
):
    table = np.random.default_rng(1).standard_normal((6, 301)).astype(np.float32)
    clean = table.copy()
    table[1, 300], table[3, 0], table[4] = bad, bad, bad
    found = label(table_teacher(table), make_recipe(), rows(6), top_k=16)
    assert found["finite"].tolist() == [True, False, True, False, False, True]
    good = found["finite"]
    assert_labels({name: value[good] for name, value in found.items()}, clean[good], 16)
    for name in ("topk_logit", "tail_lse", "max_logit"):
        assert np.isfinite(found[name]).all()
    assert (found["topk_class"][~good] < 301).all()


def test_relative_logits_are_clamped_to_what_float16_holds(table_teacher, make_recipe, label, rows):
    table = np.float32([[0, -65503, -65505, -1e6, -3e38], [3e38, -3e38, 0, 0, 0]])
    found = label(table_teacher(table), make_recipe(), rows(2), top_k=5)
    assert found["topk_logit"].min() == -65504
    assert np.isfinite(found["topk_logit"].astype(np.float16)).all()
    assert found["finite"].all()
    assert found["topk_logit"][0].tolist() == [0, -65503, -65504, -65504, -65504]


def test_a_tail_far_below_the_head_is_not_lost(table_teacher, make_recipe, label, rows):
    table = np.float32([[0] + [-103.1] + [-120.0] * 998])
    found = label(table_teacher(table), make_recipe(), rows(1), top_k=1, temperatures=(1.0,))
    np.testing.assert_allclose(found["tail_lse"], [[-103.1 + np.log1p(998 * np.exp(-16.9))]], 1e-6)


@pytest.mark.parametrize("top_k", [0, 4, -1])
def test_a_k_that_the_classes_do_not_allow_is_a_bug(table_teacher, make_recipe, top_k):
    teacher = open_teacher(table_teacher(np.zeros((1, 3), np.float32)))
    with pytest.raises(ValueError, match="top_k"):
        labelling_graph(teacher, make_recipe(), top_k=top_k, temperatures=(1.0,))


@pytest.mark.parametrize("temperatures", [(), (0.0,), (1.0, -1.0), (float("nan"),), (np.inf,)])
def test_a_temperature_that_is_not_positive_is_a_bug(table_teacher, make_recipe, temperatures):
    teacher = open_teacher(table_teacher(np.zeros((1, 3), np.float32)))
    with pytest.raises(ValueError, match="temperatures"):
        labelling_graph(teacher, make_recipe(), top_k=1, temperatures=temperatures)


# The graph around them


def test_labels_of_a_conv_net_are_those_of_its_raw_logits(
    conv_teacher, make_recipe, run_onnx, label, assert_labels
):
    recipe = make_recipe(8, 8)
    images = np.random.default_rng(8).integers(0, 256, (5, 8, 8, 3), np.uint8)
    path = conv_teacher(num_classes=50)
    raw = run_onnx(path, x=images.transpose(0, 3, 1, 2).astype(np.float32))["logits"]
    assert_labels(label(path, recipe, images, top_k=7), raw, 7)


def test_the_logits_graph_gives_the_labelling_graphs_own_logits(
    conv_teacher, make_recipe, run_onnx, label, assert_labels
):
    path = conv_teacher(body=[("Softmax", ["logits"], ["p"])], outputs=[("p", FLOAT, ["N", 10])])
    images = np.random.default_rng(9).integers(0, 256, (5, 8, 8, 3), np.uint8)
    logits = run_onnx(logits_graph(open_teacher(path)), pixels=images.astype(np.float32))["logits"]
    assert_labels(label(path, make_recipe(8, 8), images, top_k=4), logits, 4)


def test_names_that_the_teacher_uses_itself_do_not_clash(
    write_model, make_recipe, label, assert_labels
):
    nodes = [
        ("Flatten", ["image"], ["topk_logit"]),
        ("Identity", ["topk_logit"], ["softlabel/in-0-Cast"]),
        ("Identity", ["softlabel/in-0-Cast"], ["embedding"]),
        ("Identity", ["embedding"], ["finite"]),
    ]
    inputs, outputs = [("image", FLOAT, ["N", 3, 1, 2])], [("finite", FLOAT, ["N", 6])]
    path = write_model(nodes, inputs=inputs, outputs=outputs)
    images = np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3)
    found = label(path, make_recipe(), images, top_k=2, embedding="embedding")
    wanted = images.transpose(0, 3, 1, 2).reshape(1, 6)
    assert_labels({k: v for k, v in found.items() if k != "embedding"}, wanted, 2)
    np.testing.assert_array_equal(found["embedding"], wanted)


def test_heads_that_no_label_needs_are_left_out(conv_teacher, make_recipe):
    body = [("Gemm", ["features", "other"], ["more"])]
    outputs = [("logits", FLOAT, ["N", 10]), ("more", FLOAT, ["N", 4])]
    path = conv_teacher(body=body, outputs=outputs, more_weights={"other": np.zeros((16, 4), "f4")})
    graph = labelling_graph(
        open_teacher(path), make_recipe(8, 8), top_k=1, temperatures=(1.0,)
    ).graph
    assert not any("more" in node.output for node in graph.node)
    assert not any(weight.name == "other" for weight in graph.initializer)


def test_what_a_branch_takes_from_outside_is_kept(write_model, make_recipe, label, assert_labels):
    value = helper.make_tensor_value_info
    double = helper.make_graph(
        [helper.make_node("Mul", ["image", "two"], ["d"])], "double", [], [value("d", FLOAT, None)]
    )
    same = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["s"])], "same", [], [value("s", FLOAT, None)]
    )
    nodes = [
        helper.make_node("If", ["yes"], ["y"], then_branch=double, else_branch=same),
        ("Reshape", ["y", "flat"], ["z"]),
    ]
    weights = {"yes": np.array(True), "two": np.float32(2), "flat": np.array([-1, 6])}
    path = write_model(
        nodes,
        inputs=[("image", FLOAT, ["N", 3, 1, 2])],
        outputs=[("z", FLOAT, ["N", 6])],
        weights=weights,
    )
    images = np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3)
    found = label(path, make_recipe(), images, top_k=2)
    assert_labels(found, 2 * images.transpose(0, 3, 1, 2).reshape(1, 6), 2)


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 21])
def test_a_teacher_keeps_its_opset(
    table_teacher, make_recipe, run_onnx, opset, assert_labels, rows
):
    path = table_teacher(TABLE, opset=opset)
    graph = labelling_graph(open_teacher(path), make_recipe(), top_k=4, temperatures=TEMPERATURES)
    assert opset_of(graph) == opset
    assert_labels(run_onnx(graph, image=rows(5)), TABLE, 4)


@pytest.mark.parametrize("opset", [8, 9, 10])
def test_an_old_opset_is_converted(conv_teacher, make_recipe, opset, label):
    body = [("Softmax", ["logits"], ["p"])]
    old = {"opset": opset, "ir_version": 3, "body": body, "outputs": [("p", FLOAT, ["N", 10])]}
    old["inputs"] = [("x", FLOAT, ["N", 3, 8, 8]), ("w", FLOAT, [16, 3, 3, 3])]
    old["inputs"] += [("fc", FLOAT, [10, 16]), ("b", FLOAT, [10])]
    images = np.random.default_rng(8).integers(0, 256, (5, 8, 8, 3), np.uint8)
    found = label(conv_teacher(**old), make_recipe(8, 8), images, top_k=3)
    wanted = label(conv_teacher(), make_recipe(8, 8), images, top_k=3)
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)
