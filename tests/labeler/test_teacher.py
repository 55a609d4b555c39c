"""What open_teacher reads out of an ONNX file, and what it refuses."""

import hashlib
import json

import numpy as np
import pytest
from onnx import TensorProto

from softlabel.labeler.teacher import open_teacher
from softlabel.shards.errors import TeacherError

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
IMAGE = ("x", FLOAT, ["N", 3, 4, 4])
FLAT = [("Flatten", ["x"], ["z"])]


def refused(path, **options):
    with pytest.raises(TeacherError) as caught:
        open_teacher(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_plain_classifier_says_what_it_is(conv_teacher):
    path = conv_teacher(num_classes=10, size=8)
    teacher = open_teacher(path)
    assert teacher.path == path
    assert (teacher.input_name, teacher.output_name) == ("x", "logits")
    assert (teacher.num_classes, teacher.output_kind) == (10, "logits")
    assert (teacher.height, teacher.width, teacher.batch_size) == (8, 8, None)
    assert (teacher.embedding_name, teacher.embedding_dim) == (None, None)
    assert (teacher.recipe, teacher.class_names) == (None, None)
    assert teacher.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_sides_are_open_where_the_graph_leaves_them_open(conv_teacher):
    teacher = open_teacher(conv_teacher(inputs=[("x", FLOAT, ["N", 3, "H", 0])]))
    assert (teacher.height, teacher.width, teacher.batch_size) == (None, None, None)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_baked_in_batch_size_is_found(conv_teacher, batch):
    assert open_teacher(conv_teacher(batch=batch)).batch_size == batch


def test_a_batch_size_that_only_the_output_shows_is_found(write_model):
    nodes = [("Reshape", ["x", "shape"], ["z"])]
    path = write_model(
        nodes, inputs=[IMAGE], outputs=[("z", FLOAT, None)], weights={"shape": np.array([2, 48])}
    )
    teacher = open_teacher(path)
    assert (teacher.batch_size, teacher.num_classes) == (2, 48)


def test_the_number_of_classes_is_inferred_where_the_output_does_not_declare_it(conv_teacher):
    for shape in (None, ["N", "C"]):
        path = conv_teacher(num_classes=12, outputs=[("logits", FLOAT, shape)])
        assert open_teacher(path).num_classes == 12


def test_channels_last_is_recognised(write_model):
    inputs = [("x", FLOAT, ["N", 4, 5, 3])]
    teacher = open_teacher(write_model(FLAT, inputs=inputs, outputs=[("z", FLOAT, ["N", 60])]))
    assert teacher.channels_last
    assert (teacher.height, teacher.width) == (4, 5)


def test_weights_among_the_inputs_of_an_old_file_are_no_inputs(conv_teacher):
    inputs = [("x", FLOAT, ["N", 3, 8, 8]), ("b", FLOAT, [10])]
    assert open_teacher(conv_teacher(inputs=inputs, ir_version=3)).input_name == "x"


# Outputs


def two_outputs(write, first, second, **changes):
    nodes = [("Flatten", ["x"], [first]), ("Flatten", ["x"], [second])]
    outputs = [(first, FLOAT, ["N", 48]), (second, FLOAT, ["N", 48])]
    return write(nodes, inputs=[IMAGE], outputs=outputs, **changes)


def test_of_several_outputs_the_one_named_logits_is_taken(write_model):
    assert open_teacher(two_outputs(write_model, "a", "logits")).output_name == "logits"


def test_several_candidate_outputs_are_refused_by_name(write_model):
    message = refused(two_outputs(write_model, "a", "b"))
    assert "--output" in message
    assert "a (float [?, 48])" in message
    assert "b (float [?, 48])" in message


def test_an_output_can_be_named(write_model):
    path = two_outputs(write_model, "a", "logits")
    assert open_teacher(path, output="a").output_name == "a"
    assert "no output 'c'" in refused(path, output="c")


def test_the_output_that_is_the_embedding_does_not_hold_the_logits(write_model):
    teacher = open_teacher(two_outputs(write_model, "a", "b"), embedding="a")
    assert (teacher.output_name, teacher.embedding_name, teacher.embedding_dim) == ("b", "a", 48)


def test_an_output_of_another_rank_is_passed_over(write_model):
    nodes = [("Identity", ["x"], ["map"]), ("Flatten", ["x"], ["z"])]
    outputs = [("map", FLOAT, ["N", 3, 4, 4]), ("z", FLOAT, ["N", 48])]
    assert open_teacher(write_model(nodes, inputs=[IMAGE], outputs=outputs)).output_name == "z"


@pytest.mark.parametrize(
    ("nodes", "value"),
    [
        ([("Identity", ["x"], ["z"])], ("z", FLOAT, ["N", 3, 4, 4])),
        ([("ArgMax", ["x"], ["z"], {"axis": 1})], ("z", INT64, ["N", 1])),
        ([("GlobalMaxPool", ["x"], ["z"])], ("z", FLOAT, ["N", 1])),
        ([("MyOperator", ["x"], ["z"], {"domain": "my"})], ("z", FLOAT, ["N", "C"])),
    ],
)
def test_an_output_that_is_not_rows_of_logits_is_refused(write_model, nodes, value):
    message = refused(write_model(nodes, inputs=[IMAGE], outputs=[value]))
    assert "wanted an output (N, C)" in message


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("Softmax", "softmax-removed"),
        ("LogSoftmax", "logits"),
        ("Sigmoid", "probabilities"),
        ("HardSigmoid", "probabilities"),
        ("Relu", "logits"),
    ],
)
def test_the_last_operator_says_what_the_output_holds(conv_teacher, operator, kind):
    body = [(operator, ["logits"], ["last"]), ("Identity", ["last"], ["out"])]
    path = conv_teacher(body=body, outputs=[("out", FLOAT, ["N", 10])])
    assert open_teacher(path).output_kind == kind


def test_a_softmax_that_is_quantized_on_its_way_is_left_in(conv_teacher):
    body = [
        ("Softmax", ["logits"], ["p"]),
        ("QuantizeLinear", ["p", "step", "zero"], ["q"]),
        ("DequantizeLinear", ["q", "step", "zero"], ["out"]),
    ]
    more = {"step": np.float32(1 / 256), "zero": np.uint8(0)}
    path = conv_teacher(body=body, more_weights=more, outputs=[("out", FLOAT, ["N", 10])])
    assert open_teacher(path).output_kind == "probabilities"


@pytest.mark.parametrize("axis", [0, 2])
def test_a_softmax_over_anything_but_the_classes_is_refused(write_model, axis):
    nodes = [("Softmax", ["x"], ["p"], {"axis": axis}), ("Flatten", ["p"], ["z"])]
    message = refused(write_model(nodes, inputs=[IMAGE], outputs=[("z", FLOAT, ["N", 48])]))
    assert f"axis {axis}" in message


# Embeddings


@pytest.mark.parametrize("name", ["features", "pooled"])
def test_an_inner_tensor_can_be_the_embedding(conv_teacher, name):
    assert open_teacher(conv_teacher(), embedding=name).embedding_dim == 16


@pytest.mark.parametrize("name", ["r", "nowhere"])
def test_an_embedding_that_is_no_rows_is_refused(conv_teacher, name):
    assert "wanted an embedding [N, D]" in refused(conv_teacher(), embedding=name)


# Inputs


@pytest.mark.parametrize(
    "value",
    [
        ("x", FLOAT, ["N", 3, 4]),
        ("x", INT64, ["N", 3, 4, 4]),
        ("x", FLOAT, ["N", 1, 4, 4]),
        ("x", FLOAT, ["N", "C", "H", "W"]),
        ("x", FLOAT, None),
    ],
)
def test_an_input_that_is_no_image_is_refused(write_model, value):
    nodes = [("Cast", ["x"], ["f"], {"to": FLOAT}), ("Flatten", ["f"], ["z"])]
    message = refused(write_model(nodes, inputs=[value], outputs=[("z", FLOAT, ["N", 48])]))
    assert "wanted an image input" in message
    assert "x (" in message


def test_two_inputs_are_refused_by_name(write_model):
    nodes = [("Add", ["x", "mask"], ["s"]), ("Flatten", ["s"], ["z"])]
    inputs = [IMAGE, ("mask", FLOAT, ["N", 3, 4, 4])]
    message = refused(write_model(nodes, inputs=inputs, outputs=[("z", FLOAT, ["N", 48])]))
    assert "found 2: x, mask" in message


# Files and metadata


def test_what_is_no_onnx_file_is_refused(tmp_path, conv_teacher):
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "text.onnx").write_text("this is no model\n" * 10)
    whole = conv_teacher().read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    for name in ("empty.onnx", "text.onnx", "cut.onnx", "missing.onnx"):
        message = refused(tmp_path / name)
        assert name in message
        assert "wanted an ONNX file" in message
    assert "wanted an ONNX file" in refused(tmp_path)


def test_recipe_and_class_names_come_from_the_metadata(conv_teacher, make_recipe):
    recipe = make_recipe(8, 8)
    names = [f"class {i} <é>" for i in range(10)]
    metadata = {"softlabel.recipe": recipe.to_dict(), "softlabel.class_names": names}
    teacher = open_teacher(conv_teacher(metadata=metadata))
    assert teacher.recipe == recipe
    assert teacher.class_names == tuple(names)


@pytest.mark.parametrize(
    "metadata",
    [
        {"softlabel.recipe": "{"},
        {"softlabel.recipe": "[]"},
        {"softlabel.recipe": '{"mean": 1}'},
        {"softlabel.class_names": json.dumps(["one", "two"])},
        {"softlabel.class_names": json.dumps([1] * 10)},
        {"softlabel.class_names": '"abcdefghij"'},
    ],
)
def test_bad_metadata_is_refused_by_its_key(conv_teacher, metadata):
    assert next(iter(metadata)) in refused(conv_teacher(metadata=metadata))
