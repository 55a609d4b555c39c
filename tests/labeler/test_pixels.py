"""The pixels that reach a teacher inside the labelling graph."""

import numpy as np
import pytest
from onnx import TensorProto

from softlabel.labeler.graph import labelling_graph
from softlabel.labeler.pixels import scale_and_bias
from softlabel.labeler.teacher import open_teacher
from softlabel.shards.errors import TeacherError

FLOAT, FLOAT16, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8


def pixel_model(write_model, dtype=FLOAT, *, last=False, batch="N", height=4, width=5, **changes):
    shape = [batch, height, width, 3] if last else [batch, 3, height, width]
    nodes = [("Flatten", ["x"], ["z"])]
    if dtype == UINT8:
        nodes = [("Cast", ["x"], ["f"], {"to": FLOAT}), ("Flatten", ["f"], ["z"])]
    out = FLOAT if dtype == UINT8 else dtype
    outputs = [("z", out, [batch, 3 * height * width])]
    return write_model(nodes, inputs=[("x", dtype, shape)], outputs=outputs, **changes)


def seen_by_teacher(found, shape):
    """The pixel teacher's input, put together again from labels with K = C."""
    values = np.empty_like(found["topk_logit"])
    np.put_along_axis(
        values, found["topk_class"], found["topk_logit"] + found["max_logit"][:, None], 1
    )
    return values.reshape(shape)


RECIPES = {
    "ImageNet": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "half": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    "Caffe": {"mean": (0.408, 0.458, 0.485), "std": (1 / 255,) * 3, "channels": "bgr"},
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", RECIPES)
def test_the_teacher_is_fed_what_timm_would_feed_it(write_model, make_recipe, name, last, label):
    recipe = make_recipe(4, 5, **RECIPES[name])
    images = np.random.default_rng(3).integers(0, 256, (3, 4, 5, 3), np.uint8)
    path = pixel_model(write_model, last=last)
    found = label(path, recipe, images, top_k=60)
    ordered = images[..., ::-1] if recipe.channels == "bgr" else images
    mean, std = np.float32(recipe.mean), np.float32(recipe.std)
    timm = (ordered.astype(np.float32) / 255 - mean) / std
    if not last:
        timm = timm.transpose(0, 3, 1, 2)
    # Putting the pixels together again costs a rounding of its own.
    np.testing.assert_allclose(
        seen_by_teacher(found, timm.shape), timm, rtol=0, atol=8e-7 * np.abs(timm).max()
    )


@pytest.mark.parametrize("name", RECIPES)
def test_normalisation_differs_from_timms_by_rounding_only(make_recipe, name):
    recipe = make_recipe(**RECIPES[name])
    scale, bias = scale_and_bias(recipe)
    x = np.arange(256, dtype=np.float32)[:, None]
    timm = (x / np.float32(255) - np.float32(recipe.mean)) / np.float32(recipe.std)
    ours = x * scale + bias
    assert (np.abs(ours - timm) <= 4e-7 * np.abs(timm).max(0)).all()


def test_raw_pixels_reach_the_teacher_untouched(write_model, make_recipe, label):
    images = np.arange(60, dtype=np.uint8).reshape(1, 4, 5, 3) * 4
    found = label(pixel_model(write_model), make_recipe(4, 5), images, top_k=60)
    seen = seen_by_teacher(found, (1, 3, 4, 5))
    np.testing.assert_array_equal(seen, images.transpose(0, 3, 1, 2))


def test_a_float16_input_is_normalised_in_float32_first(write_model, make_recipe, label):
    recipe = make_recipe(4, 5, **RECIPES["ImageNet"])
    images = np.random.default_rng(4).integers(0, 256, (2, 4, 5, 3), np.uint8)
    found = label(pixel_model(write_model, FLOAT16), recipe, images, top_k=60)
    exact = ((images / 255 - recipe.mean) / recipe.std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(
        seen_by_teacher(found, exact.shape), exact.astype(np.float16), rtol=0, atol=1e-3
    )


def test_a_uint8_teacher_gets_its_pixels_and_no_recipe_on_top(write_model, make_recipe, label):
    path = pixel_model(write_model, UINT8, last=True)
    images = np.random.default_rng(6).integers(0, 256, (2, 4, 5, 3), np.uint8)
    found = label(path, make_recipe(4, 5, channels="bgr"), images, top_k=60)
    np.testing.assert_array_equal(seen_by_teacher(found, images.shape), images[..., ::-1])
    teacher, half = open_teacher(path), make_recipe(4, 5, **RECIPES["half"])
    with pytest.raises(TeacherError, match="takes uint8"):
        labelling_graph(teacher, half, top_k=1, temperatures=(1.0,))


def test_a_recipe_of_another_size_is_refused(write_model, make_recipe):
    teacher = open_teacher(pixel_model(write_model))
    with pytest.raises(TeacherError, match=r"4 x 5.*8 x 5"):
        labelling_graph(teacher, make_recipe(8, 5), top_k=1, temperatures=(1.0,))


def test_sides_that_the_graph_leaves_open_come_from_the_recipe(conv_teacher, make_recipe):
    path = conv_teacher(inputs=[("x", FLOAT, ["N", 3, "H", "W"])])
    graph = labelling_graph(open_teacher(path), make_recipe(6, 9), top_k=1, temperatures=(1.0,))
    sizes = [d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == [0, 6, 9, 3]


@pytest.mark.parametrize("num", [1, 3, 8])
def test_any_number_of_images_goes_through(conv_teacher, make_recipe, num, label):
    images = np.random.default_rng(num).integers(0, 256, (num, 8, 8, 3), np.uint8)
    found = label(conv_teacher(), make_recipe(8, 8), images, top_k=3)
    assert {len(values) for values in found.values()} == {num}


def test_a_baked_in_batch_size_stays(conv_teacher, make_recipe, label):
    recipe = make_recipe(8, 8, **RECIPES["half"])
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    fixed = label(conv_teacher(batch=4), recipe, images, top_k=3)
    free = label(conv_teacher(), recipe, images, top_k=3)
    for name, values in free.items():
        np.testing.assert_array_equal(fixed[name], values)
    with pytest.raises(Exception, match=r"(?i)invalid dimensions"):
        label(conv_teacher(batch=4), recipe, images[:3], top_k=3)
