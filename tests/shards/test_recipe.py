import json
import subprocess
import sys

import pytest

from softlabel.shards.errors import UsageError
from softlabel.shards.recipe import CONSTANTS, Recipe

GOOD = {
    "input_size": [3, 224, 192],
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "crop_mode": "center",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "channels": "bgr",
}


def problems(data):
    with pytest.raises(UsageError) as caught:
        Recipe.from_dict(data, source="R.json")
    return str(caught.value).splitlines()


def test_a_recipe_survives_json():
    recipe = Recipe.from_dict(GOOD, source="R.json")
    written = json.loads(json.dumps(recipe.to_dict()))
    assert written == GOOD
    assert list(written) == list(GOOD)
    assert Recipe.from_dict(written, source="R.json") == recipe
    assert (recipe.height, recipe.width) == (224, 192)


def test_whole_numbers_and_fractions_give_equal_recipes():
    whole = Recipe.from_dict(GOOD | {"crop_pct": 1, "mean": [0, 0, 0]}, source="R.json")
    other = Recipe.from_dict(GOOD | {"crop_pct": 1.0, "mean": [0.0, 0.0, 0.0]}, source="R.json")
    assert json.dumps(whole.to_dict()) == json.dumps(other.to_dict())
    assert hash(whole) == hash(other)


def test_channels_are_rgb_unless_said_otherwise():
    recipe = Recipe.from_dict({k: v for k, v in GOOD.items() if k != "channels"}, source="R.json")
    assert recipe.channels == "rgb"


@pytest.mark.parametrize("field", [name for name in GOOD if name != "channels"])
def test_no_other_field_has_a_default(field):
    (line,) = problems({k: v for k, v in GOOD.items() if k != field})
    assert line.startswith(f"R.json: {field}: wanted ")
    assert line.endswith("found nothing")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_size", [1, 28, 28]),
        ("input_size", [3, 224]),
        ("input_size", [3, 0, 224]),
        ("input_size", [3, 224.0, 224]),
        ("input_size", 224),
        ("interpolation", "lanczos"),
        ("interpolation", "random"),
        ("interpolation", ""),
        ("crop_pct", 0),
        ("crop_pct", 1.15),
        ("crop_pct", True),
        ("crop_pct", "0.9"),
        ("crop_pct", float("nan")),
        ("crop_pct", 1e-7),
        ("crop_mode", "border"),
        ("mean", [123.675, 116.28, 103.53]),
        ("mean", [0.5]),
        ("mean", 0.5),
        ("mean", "IMAGENET_MEAN"),
        ("std", [58.395, 57.12, 57.375]),
        ("std", [0.2, 0.2, 0]),
        ("std", [0.2, 0.2, float("inf")]),
        ("std", None),
        ("channels", "RGB"),
    ],
)
def test_a_wrong_value_is_one_line_with_field_wanted_and_found(field, value):
    (line,) = problems(GOOD | {field: value})
    assert line.startswith(f"R.json: {field}: wanted ")
    assert f"found {json.dumps(value)}" in line


def test_every_problem_has_its_line():
    lines = problems(GOOD | {"crop_mode": "border", "crop_pct": 2, "interpolation": "box"})
    assert [line.split(": ")[1] for line in lines] == ["interpolation", "crop_pct", "crop_mode"]


def test_a_recipe_made_in_code_is_checked_too():
    with pytest.raises(ValueError, match="std: wanted"):
        Recipe(**(GOOD | {"std": (58.4, 57.1, 57.4)}))


def test_a_misspelt_field_is_refused_with_the_right_name():
    lines = problems({("crop_prc" if k == "crop_pct" else k): v for k, v in GOOD.items()})
    assert lines[0] == "R.json: crop_prc: no such field; did you mean crop_pct?"
    assert lines[1].startswith("R.json: crop_pct: wanted")
    assert "no such field" in problems(GOOD | {"zzz": 1})[0]


def test_timms_other_fields_are_no_misspellings():
    timms = {"num_classes": 1000, "url": "", "classifier": "fc", "test_input_size": [3, 288, 288]}
    assert Recipe.from_dict(GOOD | timms, source="x") == Recipe.from_dict(GOOD, source="x")


def test_a_hub_config_is_read_through_its_pretrained_cfg():
    config = {"architecture": "resnet18", "num_features": 512, "pretrained_cfg": GOOD}
    assert Recipe.from_dict(config, source="x") == Recipe.from_dict(GOOD, source="x")


def test_mean_and_std_can_be_timms_names():
    named = GOOD | {"mean": "IMAGENET_INCEPTION_MEAN", "std": "OPENAI_CLIP_STD"}
    recipe = Recipe.from_dict(named, source="x")
    assert recipe.mean == (0.5, 0.5, 0.5)
    assert recipe.to_dict()["std"] == list(CONSTANTS["OPENAI_CLIP_STD"])


@pytest.mark.slow
def test_timm_agrees_on_its_names_and_its_models_are_readable():
    from timm.data import constants
    from timm.models import get_pretrained_cfg, list_pretrained

    for name, value in CONSTANTS.items():
        assert getattr(constants, name) == value
    refused = set()
    for name in list_pretrained():
        data = get_pretrained_cfg(name).to_dict()
        try:
            recipe = Recipe.from_dict(data, source=name)
        except UsageError:
            refused.add(name)
            assert data["crop_mode"] == "border" or data["crop_pct"] > 1, name
        else:
            assert recipe.input_size == tuple(data["input_size"])
    assert len(refused) < 20


def test_a_recipe_file_is_read(tmp_path):
    path = tmp_path / "R.json"
    path.write_text(json.dumps(GOOD))
    assert Recipe.from_file(path) == Recipe.from_dict(GOOD, source="x")


@pytest.mark.parametrize("content", ["", "{", "[1]", "3", '"bicubic"'])
def test_a_file_that_holds_no_json_object_is_refused_by_name(tmp_path, content):
    path = tmp_path / "R.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"R\.json: wanted a recipe as a JSON object, found"):
        Recipe.from_file(path)


def test_a_missing_or_binary_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"R\.json: No such file"):
        Recipe.from_file(tmp_path / "R.json")
    binary = tmp_path / "B.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"B\.json"):
        Recipe.from_file(binary)


def test_recipes_views_and_the_decoder_interface_import_neither_torch_nor_pillow():
    modules = ("recipe", "views", "golden", "decoders", "image_header", "orientation", "pixels")
    code = (
        f"import sys, {', '.join('softlabel.shards.' + name for name in modules)}\n"
        "print([name for name in ('torch', 'torchvision', 'PIL', 'zarr') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
