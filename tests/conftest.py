"""Fixtures that several folders share: small images, small tars, a cache, real data."""

import io
import os
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from softlabel.shards.errors import MachineError

os.environ.setdefault("OMP_NUM_THREADS", "1")

Files = Iterable[tuple[str, bytes]]


@pytest.fixture(scope="session")
def encode_image() -> Callable[..., bytes]:
    """(seed, height, width, format) -> bytes of an image as smooth as a photograph."""

    def encode(seed: int, *, height: int = 32, width: int = 32, format: str = "PNG") -> bytes:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, format)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def write_tar() -> Callable[..., Path]:
    """(path, [(name, bytes)], format) -> path of a tar with these files."""

    def write(path: Path, files: Files, *, format: int = tarfile.USTAR_FORMAT) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w", format=format) as tar:
            for name, data in files:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    return write


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder; nothing of the user's own is read or written."""
    monkeypatch.setenv("SOFTLABEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def real() -> Callable[..., Any]:
    """Call a function that fetches. What can't be fetched skips; what is fetched wrong fails."""

    def obtain(fetching: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return fetching(*arguments)
        except MachineError as error:
            pytest.skip(f"NOT TESTED, real data is missing: {error}")

    return obtain
