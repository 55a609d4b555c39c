"""The teacher asked about images without labels: as plain onnxruntime has them answered."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from softlabel.labeler.graph import prepare
from softlabel.labeler.session import TeacherSession
from softlabel.labeler.teacher import open_teacher
from softlabel.shards.errors import IdentityError, TeacherError
from softlabel.shards.recipe import Recipe
from softlabel.shards.schema import Manifest
from softlabel.tools.evaluate.teacher_session import BATCH_SIZE, TeacherOnImages

H, W, C, D = 6, 9, 23, 4
RECIPE = Recipe(
    input_size=(3, H, W),
    interpolation="bilinear",
    crop_pct=1.0,
    crop_mode="center",
    mean=(0.5, 0.4, 0.3),
    std=(0.25, 0.2, 0.3),
    channels="bgr",
)


def write_teacher(path: Path, *, batch="N", body=(), scale=1.0) -> Path:
    rng = np.random.default_rng(3)
    weights = {
        "w": rng.normal(0, 0.3, (D, 3, 3, 3)).astype(np.float32),
        "fc": rng.normal(0, 2 * scale, (C, D)).astype(np.float32),
        "b": rng.normal(0, 1, C).astype(np.float32),
    }
    nodes = [
        ("Conv", ["x", "w"], ["c"]),
        ("Relu", ["c"], ["r"]),
        ("GlobalAveragePool", ["r"], ["pooled"]),
        ("Flatten", ["pooled"], ["features"]),
        ("Gemm", ["features", "fc", "b"], ["logits"]),
        *body,
    ]
    made = [helper.make_node(*n, transB=1) if n[0] == "Gemm" else helper.make_node(*n)
            for n in nodes]  # fmt: skip
    graph = helper.make_graph(
        made,
        "teacher",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, H, W])],
        [helper.make_tensor_value_info(nodes[-1][2][0], TensorProto.FLOAT, [batch, C])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, H, W, 3), np.uint8)


def plain(path: Path, pixels: np.ndarray, output: str) -> np.ndarray:
    """The file itself, its input normalised in float64, with `output` as its only output."""
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = (pixels[..., ::-1] / 255 - RECIPE.mean) / RECIPE.std
    feeds = x.transpose(0, 3, 1, 2).astype(np.float32)
    static = session.get_inputs()[0].shape[0]
    size = static if isinstance(static, int) else len(feeds)
    assert len(feeds) % size == 0
    parts = [session.run(None, {"x": feeds[i : i + size]})[0] for i in range(0, len(feeds), size)]
    return np.concatenate(parts)


def open_cpu(path: Path, **options) -> TeacherOnImages:
    return TeacherOnImages.open(path, recipe=RECIPE, provider="cpu", threads=1, **options)


@pytest.mark.parametrize("batch", ["N", 3])
def test_logits_and_embedding_are_those_of_plain_onnxruntime(tmp_path, cache, batch):
    path = write_teacher(tmp_path / "t.onnx", batch=batch)
    pixels = images(6)
    teacher = open_cpu(path, embedding="features")
    logits, embedding = teacher.answer(pixels)
    np.testing.assert_allclose(logits, plain(path, pixels, "logits"), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(embedding, plain(path, pixels, "features"), rtol=1e-5, atol=1e-6)
    assert (teacher.num_classes, teacher.size) == (C, (H, W))
    assert logits.dtype == np.float32


def test_a_softmax_at_the_end_is_taken_off_as_for_labels(tmp_path, cache):
    path = write_teacher(tmp_path / "t.onnx", body=[("Softmax", ["logits"], ["p"])])
    pixels = images(3)
    np.testing.assert_allclose(
        open_cpu(path).logits(pixels), plain(path, pixels, "logits"), rtol=1e-5, atol=1e-5
    )


def test_logits_are_the_labels_of_a_labelling_run(tmp_path, cache):
    path = write_teacher(tmp_path / "t.onnx")
    pixels = images(BATCH_SIZE)
    graph = prepare(open_teacher(path), RECIPE, top_k=5, temperatures=(1.0,), cache_dir=cache)
    labels = TeacherSession(graph, provider="cpu", threads=1).run(pixels)
    logits = open_cpu(path).logits(pixels)
    assert (np.argsort(-logits, 1, kind="stable")[:, :5] == labels["topk_class"]).all()
    relative = np.sort(logits - logits.max(1, keepdims=True), 1)[:, ::-1][:, :5]
    np.testing.assert_allclose(relative, labels["topk_logit"], atol=1e-5)
    assert (logits.max(1) == labels["max_logit"]).all()


def test_no_answer_depends_on_the_batch_it_came_in(tmp_path, cache):
    pixels = images(37)
    teacher = open_cpu(write_teacher(tmp_path / "t.onnx"))
    whole = teacher.logits(pixels)
    parts = [teacher.logits(pixels[i : i + 5]) for i in range(0, 37, 5)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_no_images_no_answers(tmp_path, cache):
    teacher = open_cpu(write_teacher(tmp_path / "t.onnx"), embedding="features")
    logits, embedding = teacher.answer(images(0))
    assert (logits.shape, embedding.shape) == ((0, C), (0, D))


def test_other_sizes_and_logits_that_are_not_finite_are_refused(tmp_path, cache):
    teacher = open_cpu(write_teacher(tmp_path / "t.onnx"))
    with pytest.raises(ValueError, match="wanted images"):
        teacher.logits(np.zeros((1, W, H, 3), np.uint8))
    broken = write_teacher(tmp_path / "n.onnx", scale=np.nan)
    with pytest.raises(TeacherError, match="others for 2 of 2"):
        open_cpu(broken).logits(images(2))


def test_the_teacher_of_some_labels_is_opened_as_they_were_made_and_no_other(tmp_path, cache):
    path = write_teacher(tmp_path / "t.onnx")
    manifest = Manifest(
        teacher_sha256=open_teacher(path).sha256,
        teacher_output="logits",
        teacher_output_kind="logits",
        embedding_output="features",
        recipe=RECIPE.to_dict(),
        decoder="pillow",
        max_image_pixels=10**6,
        image_ext=("png",),
        provider="cpu",
        views=1,
        view_recipe="center",
        view_seed=0,
        top_k=C,
        temperatures=(1.0,),
        num_classes=C,
        embedding_dim=D,
        rows_per_tar=256,
    )
    teacher = TeacherOnImages.of_labels(path, manifest, provider="cpu", threads=1)
    logits, embedding = teacher.answer(images(2))
    assert (logits == open_cpu(path).logits(images(2))).all()
    assert embedding is not None
    other = write_teacher(tmp_path / "other.onnx", scale=2.0)
    with pytest.raises(IdentityError, match="the labels were made by"):
        TeacherOnImages.of_labels(other, manifest, provider="cpu", threads=1)
