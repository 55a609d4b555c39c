"""Which decoder a run gets."""

import subprocess
import sys

import pytest

from softlabel.shards.decoders import open_decoder, resolve_decoder
from softlabel.shards.errors import MachineError, UsageError


def test_auto_is_torchvision_where_it_loads():
    assert resolve_decoder("auto") == "torchvision"
    assert resolve_decoder("pillow") == "pillow"


def test_without_torchvision_auto_is_pillow_and_the_name_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert resolve_decoder("auto") == "pillow"
    with pytest.raises(MachineError, match="install torchvision, or use --decoder pillow"):
        resolve_decoder("torchvision")


def test_without_torch_auto_is_pillow(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "softlabel.shards.decode_torchvision", raising=False)
    assert resolve_decoder("auto") == "pillow"


def test_an_unknown_decoder_is_refused_by_name():
    with pytest.raises(UsageError, match="wanted torchvision or pillow, found 'dali'"):
        resolve_decoder("dali")


def test_a_limit_below_one_pixel_is_a_callers_bug():
    with pytest.raises(ValueError, match="max_pixels must be at least 1"):
        open_decoder("pillow", max_pixels=0)


@pytest.mark.slow
def test_the_torchvision_decoder_loads_without_torchvisions_models():
    code = (
        "import sys; from softlabel.shards.decoders import open_decoder\n"
        "open_decoder('torchvision', max_pixels=1); print('torchvision' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.slow
def test_the_decoder_and_torchvision_itself_load_side_by_side():
    code = (
        "import {first}; from softlabel.shards.decoders import open_decoder\n"
        "open_decoder('torchvision', max_pixels=1); import torchvision.io\n"
        "print(torchvision.io.image._has_image_ops())"
    )
    for first in ("torchvision", "torch"):
        command = [sys.executable, "-c", code.format(first=first)]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "True"
