"""Labelling graphs in their cache."""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from softlabel.labeler.graph import prepare
from softlabel.labeler.teacher import open_teacher
from softlabel.shards.errors import MachineError, TeacherError

FLOAT, FLOAT16, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
TEMPERATURES = (0.5, 0.7, 1.0, 2.0, 4.0, 8.0)


def test_a_prepared_graph_is_made_once(conv_teacher, make_recipe, tmp_path):
    teacher = open_teacher(conv_teacher())
    options = {"top_k": 3, "temperatures": (1.0, 2.0), "cache_dir": tmp_path / "cache"}
    path = prepare(teacher, make_recipe(8, 8), **options)
    written = path.stat().st_mtime_ns
    assert prepare(teacher, make_recipe(8, 8), **options) == path
    assert path.stat().st_mtime_ns == written
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [path]


def test_everything_that_decides_the_labels_decides_the_cached_name(
    conv_teacher, make_recipe, tmp_path
):
    outputs = [("logits", FLOAT, ["N", 10]), ("features", FLOAT, ["N", 16])]
    path = conv_teacher(outputs=outputs)
    other = conv_teacher(outputs=outputs, metadata={"another": "file"}, name="other.onnx")
    teacher, recipe = open_teacher(path), make_recipe(8, 8)
    variants = [
        (teacher, recipe, 3, (1.0, 2.0)),
        (teacher, recipe, 4, (1.0, 2.0)),
        (teacher, recipe, 3, (1.0, 4.0)),
        (teacher, recipe, 3, (1.0,)),
        (teacher, dataclasses.replace(recipe, channels="bgr"), 3, (1.0, 2.0)),
        (teacher, dataclasses.replace(recipe, mean=(0.5, 0.0, 0.0)), 3, (1.0, 2.0)),
        (open_teacher(path, output="features"), recipe, 3, (1.0, 2.0)),
        (open_teacher(path, embedding="features"), recipe, 3, (1.0, 2.0)),
        (open_teacher(other), recipe, 3, (1.0, 2.0)),
    ]
    made = [
        prepare(one, some, top_k=top_k, temperatures=temperatures, cache_dir=tmp_path / "cache")
        for one, some, top_k, temperatures in variants
    ]
    assert len(set(made)) == len(variants)


def test_a_prepared_graph_needs_the_teacher_no_more(
    conv_teacher, make_recipe, run_onnx, tmp_path, label
):
    images = np.random.default_rng(2).integers(0, 256, (3, 8, 8, 3), np.uint8)
    wanted = label(conv_teacher(), make_recipe(8, 8), images, top_k=3)
    path = conv_teacher(external="weights.bin", name="big/t.onnx")
    options = {"top_k": 3, "temperatures": TEMPERATURES, "cache_dir": tmp_path / "cache"}
    prepared = prepare(open_teacher(path), make_recipe(8, 8), **options)
    assert prepared.stat().st_size < 20_000
    for file in path.parent.iterdir():
        file.unlink()
    found = run_onnx(prepared, image=images)
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)


def test_teachers_whose_weights_are_named_alike_share_a_cache(
    conv_teacher, make_recipe, run_onnx, tmp_path
):
    images = np.random.default_rng(2).integers(0, 256, (3, 8, 8, 3), np.uint8)
    found = []
    for i, scale in enumerate((1, 2)):
        more = {"b": np.full(10, scale, np.float32)}
        path = conv_teacher(external="weights.bin", name=f"{i}/t.onnx", more_weights=more)
        options = {"top_k": 3, "temperatures": (1.0,), "cache_dir": tmp_path / "cache"}
        prepared = prepare(open_teacher(path), make_recipe(8, 8), **options)
        found.append(run_onnx(prepared, image=images)["max_logit"])
    assert not np.array_equal(*found)


def test_a_cached_graph_that_lost_its_weights_is_made_again(
    conv_teacher, make_recipe, run_onnx, tmp_path
):
    teacher = open_teacher(conv_teacher(external="weights.bin"))
    options = {"top_k": 3, "temperatures": (1.0,), "cache_dir": tmp_path / "cache"}
    path = prepare(teacher, make_recipe(8, 8), **options)
    (path.parent / "weights.bin").unlink()
    assert prepare(teacher, make_recipe(8, 8), **options) == path
    run_onnx(path, image=np.zeros((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("external", [None, "weights.bin"])
def test_a_teacher_that_changed_since_it_was_opened_is_refused(
    conv_teacher, make_recipe, tmp_path, external
):
    path = conv_teacher(external=external)
    teacher = open_teacher(path)
    changed = path if external is None else path.with_name(external)
    data = bytearray(changed.read_bytes())
    place = data.find(onnx.load(path).graph.initializer[0].raw_data)
    data[place] ^= 1
    changed.write_bytes(data)
    options = {"top_k": 3, "temperatures": (1.0,), "cache_dir": tmp_path / "cache"}
    for _ in range(2):
        with pytest.raises(TeacherError, match="changed"):
            prepare(teacher, make_recipe(8, 8), **options)
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_a_cache_that_cannot_be_written_is_the_machines_fault(conv_teacher, make_recipe, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    options = {"top_k": 3, "temperatures": (1.0,), "cache_dir": tmp_path / "cache"}
    with pytest.raises(MachineError, match="cache"):
        prepare(open_teacher(conv_teacher()), make_recipe(8, 8), **options)
