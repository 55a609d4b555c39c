"""kd-teacher as a user meets it: prepare, check, and how they fail."""

import base64
import html.parser
import io
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from PIL import Image

from softlabel.labeler import teacher_cli
from softlabel.labeler.graph import labelling_graph
from softlabel.labeler.teacher import open_teacher
from softlabel.shards import commandline

FLOAT = TensorProto.FLOAT
COLOURS = np.array(
    [[220, 40, 40], [230, 150, 30], [200, 200, 60], [120, 60, 20], [40, 160, 60], [250, 200, 170]]
)
RIGHT = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@pytest.fixture
def colour_teacher(write_model):
    """(changes) -> a teacher that tells the mean colours apart, on pixels normalised as RIGHT."""

    def make(**changes):
        prototypes = (COLOURS / 255 - 0.5) / 0.5
        gain = 12.0
        nodes = [
            ("GlobalAveragePool", ["x"], ["pooled"]),
            ("Flatten", ["pooled"], ["features"]),
            ("Gemm", ["features", "w", "b"], ["logits"], {"transB": 1}),
        ]
        weights = {
            "w": (2 * gain * prototypes).astype(np.float32),
            "b": (-gain * (prototypes**2).sum(1)).astype(np.float32),
        }
        settings = {
            "inputs": [("x", FLOAT, ["N", 3, 16, 16])],
            "outputs": [("logits", FLOAT, ["N", len(COLOURS)])],
            "weights": weights,
        }
        return write_model(nodes, **(settings | changes))

    return make


@pytest.fixture
def colour_tars(tmp_path, write_tar):
    """(targets) -> a folder of 5 tars with 12 images each, in the colours the teacher knows."""

    def make(*, targets):
        rng = np.random.default_rng(0)
        for tar in range(5):
            files = []
            for i in range(12):
                target = (tar + i) % len(COLOURS)
                noise = rng.normal(0, 12, (20, 24, 3))
                pixels = np.clip(COLOURS[target] + noise, 0, 255).astype(np.uint8)
                data = io.BytesIO()
                Image.fromarray(pixels).save(data, "PNG")
                files.append((f"{tar}{i:02}<b>&\udcff.png", data.getvalue()))
                if targets:
                    files.append((f"{tar}{i:02}<b>&\udcff.cls", str(target).encode()))
            write_tar(tmp_path / "tars" / f"{tar}.tar", files)
        return tmp_path / "tars"

    return make


@pytest.fixture
def recipe_file(tmp_path, make_recipe):
    def write(**changes):
        path = tmp_path / "recipe.json"
        path.write_text(json.dumps(make_recipe(16, 16, **(RIGHT | changes)).to_dict()))
        return path

    return write


@pytest.fixture
def kd_teacher(capsys):
    """(arguments) -> exit code, standard output, standard error."""

    def call(*arguments):
        argv = [str(argument) for argument in arguments]
        with pytest.raises(SystemExit) as stop:
            commandline.main(
                "kd-teacher",
                teacher_cli.DESCRIPTION,
                teacher_cli.Command,
                teacher_cli.run,
                argv,
            )
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return call


@pytest.fixture
def kd_check(kd_teacher, colour_teacher, colour_tars, recipe_file):
    """(targets, wrong recipe, more arguments) -> what `check` prints on the colour teacher."""

    def call(*more, targets=True, teacher=None, **wrong):
        code, out, err = kd_teacher(
            "check", "--teacher", teacher or colour_teacher(), "--recipe", recipe_file(**wrong),
            "--shards", colour_tars(targets=targets), "--decoder", "pillow", *more,
        )  # fmt: skip
        assert (code, err) == (0, "")
        return out

    return call


# The command line


@pytest.mark.parametrize("arguments", [["--help"], ["check", "--help"], ["prepare"], []])
def test_help_and_usage_errors_load_no_heavy_library(arguments):
    script = (
        "import sys\n"
        "from softlabel.labeler import teacher_cli\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "try:\n    teacher_cli.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'onnx', 'onnxruntime', 'torch', 'zarr', 'webdataset', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "prepare"),
        (["prepare"], "--teacher"),
        (["check", "--teacher", "t.onnx", "--shards", "x", "--images", "1"], "--images"),
        (["check", "--teacher", "t.onnx", "--shards", "x"], "t.onnx"),
        (["export"], "export"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(kd_teacher, arguments, words):
    code, out, err = kd_teacher(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("kd-teacher: ")
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize("command", ["prepare", "check"])
def test_no_recipe_anywhere_is_exit_code_2_and_says_what_to_give(
    kd_teacher, colour_teacher, colour_tars, tmp_path, command
):
    arguments = ["--teacher", colour_teacher(), "--output", tmp_path / "out"]
    if command == "check":
        arguments += ["--shards", colour_tars(targets=False)]
    code, _, err = kd_teacher(command, *arguments)
    assert code == 2
    assert "--recipe R.json" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


# prepare


@pytest.mark.parametrize("external", [None, "weights.bin"])
def test_prepare_writes_a_copy_that_needs_no_recipe(
    kd_teacher, colour_teacher, recipe_file, make_recipe, run_onnx, tmp_path, external
):
    source = colour_teacher(external=external, metadata={"author": "somebody"})
    names = [f"colour {i}" for i in range(len(COLOURS))]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    output = tmp_path / "elsewhere" / "ready.onnx"
    output.parent.mkdir()
    code, out, err = kd_teacher(
        "prepare", "--teacher", source, "--recipe", recipe_file(), "--output", output,
        "--class-names", tmp_path / "names.txt",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "taken as logits" in out
    assert "6, colour 0 ... colour 5" in out
    ready = open_teacher(output)
    assert ready.recipe == make_recipe(16, 16, **RIGHT)
    assert ready.class_names == tuple(names)
    before, after = onnx.load(source), onnx.load(output)
    assert after.graph == before.graph
    assert {e.key for e in after.metadata_props} > {"author"}
    images = np.ones((1, 3, 16, 16), np.float32)
    np.testing.assert_array_equal(
        run_onnx(output, x=images)["logits"], run_onnx(source, x=images)["logits"]
    )
    again = kd_teacher("prepare", "--teacher", output, "--output", output)
    assert again[0] == 0
    assert open_teacher(output) == ready


def test_prepare_says_that_a_softmax_is_taken_off(kd_teacher, conv_teacher, recipe_file, tmp_path):
    body = [("Softmax", ["logits"], ["p"])]
    path = conv_teacher(size=16, body=body, outputs=[("p", FLOAT, [4, 10])], batch=4)
    _, out, _ = kd_teacher(
        "prepare", "--teacher", path, "--recipe", recipe_file(), "--output", tmp_path / "o.onnx"
    )
    assert "a softmax: its input is taken as logits" in out
    assert "batch 4, baked into the graph" in out


def test_prepare_refuses_class_names_that_are_not_one_a_class(
    kd_teacher, colour_teacher, recipe_file, tmp_path
):
    (tmp_path / "names.json").write_text(json.dumps(["one", "two"]))
    code, _, err = kd_teacher(
        "prepare", "--teacher", colour_teacher(), "--recipe", recipe_file(),
        "--class-names", tmp_path / "names.json", "--output", tmp_path / "o.onnx",
    )  # fmt: skip
    assert code == 2
    assert "6 classes, found 2" in err


def test_prepare_never_overwrites_weights(kd_teacher, colour_teacher, recipe_file, tmp_path):
    source = colour_teacher(external="weights.bin")
    weights = (tmp_path / "weights.bin").read_bytes()
    code, _, err = kd_teacher(
        "prepare", "--teacher", source, "--recipe", recipe_file(),
        "--output", tmp_path / "weights.bin",
    )  # fmt: skip
    assert code == 2
    assert "holds the teacher's weights" in err
    other = tmp_path / "other" / "weights.bin"
    other.parent.mkdir()
    other.write_bytes(bytes(len(weights)))
    code, _, err = kd_teacher(
        "prepare", "--teacher", source, "--recipe", recipe_file(),
        "--output", other.with_name("o.onnx"),
    )  # fmt: skip
    assert code == 2
    assert "another folder" in err
    assert (tmp_path / "weights.bin").read_bytes() == weights
    assert other.read_bytes() == bytes(len(weights))


def test_prepare_into_a_folder_that_is_not_there_is_the_machines_fault(
    kd_teacher, colour_teacher, recipe_file, tmp_path
):
    code, _, err = kd_teacher(
        "prepare", "--teacher", colour_teacher(), "--recipe", recipe_file(),
        "--output", tmp_path / "none" / "o.onnx",
    )  # fmt: skip
    assert code == 5
    assert "can't be written" in err


# check


def table_of(out):
    """Recipe name -> its figures, from the printed table."""
    lines = out.split("\n\n")[1].splitlines()
    columns = lines[0].split()[1:]
    return {
        line[:24].strip(): dict(
            zip(columns, map(float, line.split()[-len(columns) :]), strict=True)
        )
        for line in lines[1:]
    }


def test_check_finds_the_right_recipe_best(kd_check):
    out = kd_check()
    assert "as given looks best" in out
    figures = table_of(out)
    assert figures["as given"]["accuracy"] == 1
    assert figures["channels bgr"]["accuracy"] < 1
    assert figures["raw pixels 0..255"]["accuracy"] < 1


@pytest.mark.parametrize("targets", [True, False])
@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": (0.0,) * 3, "std": (1.0,) * 3},
        {"mean": (0.0,) * 3, "std": (1 / 255,) * 3},
        {"channels": "bgr"},
    ],
)
def test_check_warns_of_a_wrong_recipe(kd_check, targets, wrong):
    out = kd_check(targets=targets, **wrong)
    assert "looks better than the recipe as given" in out
    assert ("accuracy" in out) == targets
    assert "`pixels in -1..1`" in out or "`channels rgb`" in out


def test_check_says_that_the_surest_recipe_need_not_be_the_right_one(kd_check):
    out = kd_check(targets=False)
    figures = table_of(out)
    raw, given = figures["raw pixels 0..255"], figures["as given"]
    assert raw["confidence"] > given["confidence"]
    assert raw["consistency"] < given["consistency"]
    assert "as given looks best" in out
    assert "has not the highest mean confidence" in out
    assert "sure and wrong" in out


def test_check_shows_the_probabilities_that_labelling_would_store(
    kd_check, colour_teacher, make_recipe, run_onnx, tmp_path
):
    page = tmp_path / "check.html"
    kd_check("--output", page)
    text = page.read_text()
    assert text.count("<figure>") == 16
    picture = text.split("data:image/png;base64,")[1].split('"')[0]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))[None]
    graph = labelling_graph(
        open_teacher(colour_teacher()),
        make_recipe(16, 16, **RIGHT),
        top_k=5,
        temperatures=(1.0,),
    )
    found = run_onnx(graph, image=pixels)
    e = np.exp(found["topk_logit"][0].astype(np.float64))
    p = e / (e.sum() + np.exp(found["tail_lse"][0, 0]))
    shown = text.split("<figcaption>")[1].split("</figcaption>")[0]
    lines = [f"{p[i]:.3f} class {found['topk_class'][0, i]}<" for i in range(5)]
    assert [line for line in lines if line not in shown] == []


class Tags(html.parser.HTMLParser):
    """Counts the tags of a page and keeps their sources."""

    def __init__(self):
        super().__init__()
        self.seen, self.sources = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.sources += [value for key, value in attrs if key in {"src", "href"}]


def test_the_page_stands_alone_and_escapes_what_others_wrote(kd_check, tmp_path):
    names = ["<script>alert(1)</script>", "\"><img src=x onerror='a'>", "&amp;", "c", "d", "e"]
    (tmp_path / "names.json").write_text(json.dumps(names))
    page = tmp_path / "check.html"
    kd_check("--output", page, "--class-names", tmp_path / "names.json")
    text = page.read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.seen.count("img") == 16
    assert "script" not in tags.seen
    assert "b" not in tags.seen
    assert "&lt;script&gt;alert(1)" in text
    assert all(source.startswith("data:image/png;base64,") for source in tags.sources)
    assert "http" not in text


def test_check_warns_where_logits_look_like_probabilities(kd_check, write_model):
    nodes = [
        ("GlobalAveragePool", ["x"], ["pooled"]),
        ("Flatten", ["pooled"], ["f"]),
        ("Exp", ["f"], ["e"]),
        ("ReduceSum", ["e", "axis"], ["s"]),
        ("Reciprocal", ["s"], ["r"]),
        ("Mul", ["e", "r"], ["p"]),
    ]
    path = write_model(
        nodes,
        inputs=[("x", FLOAT, ["N", 3, 16, 16])],
        outputs=[("p", FLOAT, ["N", 3])],
        weights={"axis": np.array([1])},
    )
    assert "looks like probabilities" in kd_check(teacher=path)
    assert "looks like probabilities" not in kd_check()


def test_check_works_with_external_data_and_a_baked_in_batch(kd_check, colour_teacher):
    plain = kd_check()
    fixed = {"inputs": [("x", FLOAT, [5, 3, 16, 16])], "outputs": [("logits", FLOAT, [5, 6])]}
    path = colour_teacher(external="weights.bin", name="fixed/teacher.onnx", **fixed)
    assert table_of(kd_check(teacher=path)) == table_of(plain)


def test_an_answer_that_turns_with_the_image_is_not_consistent(kd_check, write_model):
    nodes = [
        ("Slice", ["x", "zero", "half", "width"], ["left"]),
        ("Slice", ["x", "half", "whole", "width"], ["right"]),
        ("Concat", ["left", "right"], ["halves"], {"axis": 1}),
        ("GlobalAveragePool", ["halves"], ["pooled"]),
        ("Flatten", ["pooled"], ["f"]),
        ("MatMul", ["f", "sides"], ["logits"]),
    ]
    sides = np.zeros((6, 2), np.float32)
    sides[:3, 0], sides[3:, 1] = 1000, 1000
    weights = {"zero": [0], "half": [8], "whole": [16], "width": [3], "sides": sides}
    path = write_model(
        nodes,
        inputs=[("x", FLOAT, ["N", 3, 16, 16])],
        outputs=[("logits", FLOAT, ["N", 2])],
        weights=weights,
    )
    given = table_of(kd_check(teacher=path, targets=False))["as given"]
    assert given["confidence"] > 0.9
    assert given["consistency"] < -0.2
