"""External data: counted in the teacher's hash, refused where it lies outside its folder."""

import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from softlabel.labeler.teacher import open_teacher
from softlabel.shards.errors import TeacherError

FLOAT = TensorProto.FLOAT


def refused(path):
    with pytest.raises(TeacherError) as caught:
        open_teacher(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_external_data_counts_in_the_hash(conv_teacher):
    path = conv_teacher(external="weights.bin")
    teacher = open_teacher(path)
    assert teacher.data_files == ("weights.bin",)
    assert teacher.num_classes == 10
    data = path.with_name("weights.bin")
    changed = bytearray(data.read_bytes())
    changed[100] ^= 1
    data.write_bytes(changed)
    assert open_teacher(path).sha256 != teacher.sha256


def test_the_same_teacher_elsewhere_has_the_same_hash(conv_teacher, tmp_path):
    path = conv_teacher(external="weights.bin")
    other = tmp_path / "elsewhere"
    other.mkdir()
    for name in ("teacher.onnx", "weights.bin"):
        shutil.copy(tmp_path / name, other / name)
    assert open_teacher(path).sha256 == open_teacher(other / "teacher.onnx").sha256


def point_at(path, location):
    """Make every weight of a model with external data name another file."""
    model = onnx.load(path, load_external_data=False)
    for weight in model.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())


def test_external_data_outside_the_folder_is_refused_unread(conv_teacher, tmp_path):
    path = conv_teacher(external="weights.bin", name="inner/teacher.onnx")
    outside = tmp_path / "secret.bin"
    shutil.copy(path.parent / "weights.bin", outside)
    (path.parent / "link.bin").symlink_to(outside)
    (path.parent / "linked").symlink_to(tmp_path)
    places = ["../secret.bin", str(outside), "a/../../secret.bin", "link.bin", "linked/secret.bin"]
    places += ["..\\secret.bin", "C:\\secret.bin", "\\\\host\\secret.bin"]
    outside.chmod(0)
    for place in places:
        point_at(path, place)
        assert "folder" in refused(path), place


def test_external_data_in_a_folder_below_is_accepted(conv_teacher):
    path = conv_teacher(external="weights.bin")
    (path.parent / "below").mkdir()
    (path.parent / "weights.bin").rename(path.parent / "below" / "weights.bin")
    point_at(path, "below/weights.bin")
    assert open_teacher(path).data_files == ("below/weights.bin",)


def test_missing_or_short_external_data_is_refused(conv_teacher):
    path = conv_teacher(external="weights.bin")
    data = path.with_name("weights.bin")
    data.write_bytes(data.read_bytes()[:-1])
    assert "cut short" in refused(path)
    data.unlink()
    assert "missing" in refused(path)


def test_external_data_of_a_constant_inside_a_branch_is_checked_too(write_model):
    value = numpy_helper.from_array(np.zeros(4, np.float32), "v")
    onnx.external_data_helper.set_external_data(value, "../secret.bin")
    value.ClearField("raw_data")
    value.data_location = TensorProto.EXTERNAL
    constant = helper.make_node("Constant", [], ["v"], value=value)
    branch = helper.make_graph(
        [constant], "b", [], [helper.make_tensor_value_info("v", FLOAT, [4])]
    )
    nodes = [
        helper.make_node("If", ["yes"], ["v_out"], then_branch=branch, else_branch=branch),
        ("Flatten", ["x"], ["z"]),
    ]
    path = write_model(
        nodes,
        inputs=[("x", FLOAT, ["N", 3, 4, 4])],
        outputs=[("z", FLOAT, ["N", 48])],
        weights={"yes": np.array(True)},
    )
    assert "outside its own folder" in refused(path)


@pytest.mark.parametrize(
    "entries", [{}, {"location": "w", "offset": "-1"}, {"location": "w", "length": "many"}]
)
def test_external_data_without_a_place_is_refused(conv_teacher, entries):
    path = conv_teacher(external="weights.bin")
    model = onnx.load(path, load_external_data=False)
    weight = model.graph.initializer[0]
    del weight.external_data[:]
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    assert "not where" in refused(path)
