"""Small labelled collections: tars of generated images, and a store with made-up labels."""

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softlabel.shards.hashing import image_hash, key_hash, sha256_of_file
from softlabel.shards.schema import Manifest
from softlabel.shards.store import Store, open_store

RECIPE = {
    "input_size": [3, 16, 16],
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "center",
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.25, 0.3],
    "channels": "rgb",
}


@dataclass(frozen=True)
class Collection:
    """Tars and their store."""

    tars: Sequence[Path]
    labels: Path

    @property
    def store(self) -> Store:
        return open_store(self.labels)


def make_manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "teacher_sha256": "ab" * 32,
        "teacher_output": "logits",
        "teacher_output_kind": "logits",
        "recipe": RECIPE,
        "decoder": "pillow",
        "max_image_pixels": 1_000_000,
        "image_ext": ("jpg", "png"),
        "provider": "cpu",
        "views": 1,
        "view_recipe": "center",
        "view_seed": 0,
        "top_k": 4,
        "temperatures": (1.0, 2.0, 4.0),
        "num_classes": 10,
        "rows_per_tar": 256,
    }
    return Manifest(**{**fields, **changes})


def teacher_logits(data: bytes, num_classes: int) -> np.ndarray:
    """What a made-up teacher says: a linear function of a few mean colours."""
    from PIL import Image

    small = np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((2, 2)), np.float64)
    weights = np.random.default_rng(7).normal(0, 2, (12, num_classes))
    return (small.reshape(-1) / 128 - 1) @ weights


def label_rows(
    manifest: Manifest, tar: Path, *, bad: Mapping[int, int], seed: int
) -> dict[str, np.ndarray]:
    """The rows of one tar; `bad` gives members a status that is not ok."""
    with tarfile.open(tar) as archive:
        images = [m for m in archive.getmembers() if m.name.endswith(".png")]
        data = [archive.extractfile(m).read() for m in images]
        targets = [
            int(archive.extractfile(m).read())
            for m in archive.getmembers()
            if m.name.endswith(".cls")
        ]
    n, V, K = len(images), manifest.views, manifest.top_k
    noise = np.random.default_rng(seed).normal(0, 0.3, (n, V, manifest.num_classes))
    z = np.stack([teacher_logits(d, manifest.num_classes) for d in data])[:, None] + noise
    order = np.argsort(-z, axis=-1)
    z = np.take_along_axis(z, order, -1)
    relative = z - z[..., :1]
    with np.errstate(divide="ignore"):
        tails = [np.log(np.exp(relative[..., K:] / t).sum(-1)) for t in manifest.temperatures]
    rows = {
        "topk_logit": relative[..., :K].astype(np.float16),
        "topk_class": order[..., :K].astype(np.uint16),
        "tail_lse": np.stack(tails, -1).astype(np.float32),
        "max_logit": z[..., 0].astype(np.float32),
        "status": np.ones(n, np.uint8),
        "key_hash": np.array([key_hash(m.name.partition(".")[0]) for m in images], np.uint64),
        "image_hash": np.array([image_hash(d) for d in data], np.uint64),
        "offset": np.array([m.offset_data for m in images], np.uint64),
        "size": np.array([m.size for m in images], np.uint32),
        "target": np.array(targets or [-1] * n, np.int32),
    }
    for member, status in bad.items():
        rows["status"][member] = status
        for name in ("topk_logit", "topk_class", "tail_lse", "max_logit"):
            rows[name][member] = 0
    return rows


@pytest.fixture(scope="session")
def make_collection(
    encode_image: Callable[..., bytes], write_tar: Callable[..., Path]
) -> Callable[..., Collection]:
    """(folder, num_tars, num_images, ...) -> a labelled collection there."""

    def make(
        folder: Path,
        num_tars: int = 3,
        num_images: int = 20,
        *,
        pending: Sequence[int] = (),
        bad: Mapping[int, int] | None = None,
        size: int = 16,
        targets: bool = True,
        **changes: Any,
    ) -> Collection:
        tars = []
        for tar in range(num_tars):
            files = []
            for i in range(num_images):
                number = tar * num_images + i
                data = encode_image(number, height=size, width=size)
                files.append((f"{number:06d}.png", data))
                if targets:
                    guess = int(teacher_logits(data, 10).argmax())
                    files.append((f"{number:06d}.cls", str(guess).encode()))
            tars.append(write_tar(folder / f"t{tar:02d}.tar", files))
        manifest = make_manifest(**changes)
        store = Store.create(folder / "labels.zarr", manifest, [str(tar) for tar in tars])
        for number, tar in enumerate(tars):
            if number in pending:
                continue
            rows = label_rows(manifest, tar, bad=bad or {}, seed=number)
            store.write(number, rows, tar_size=tar.stat().st_size, tar_sha256=sha256_of_file(tar))
        return Collection(tars, store.path)

    return make


@pytest.fixture(scope="session")
def collection(
    make_collection: Callable[..., Collection], tmp_path_factory: pytest.TempPathFactory
) -> Collection:
    """Three tars of 20 images, one view, all labelled; not to be changed."""
    return make_collection(tmp_path_factory.mktemp("collection"))


SERVER = """
import json, os, sys
import torch, safetensors.torch, zarr, numpy
from softlabel.shards import decode_pillow
from softlabel.trainer import cli, run

torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)  # loads torch's compiler, 5 s

for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        for stream, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644), stream)
        os.environ.update(request["env"])
        sys.path[:0] = request["env"].get("PYTHONPATH", "").split(os.pathsep)
        sys.argv = ["kd-train", *request["args"]]
        code = 1
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            import traceback
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass
class Ended:
    """A command that has ended: its exit code (minus the signal if one killed it) and outputs."""

    code: int
    out: str
    err: str


class CommandServer:
    """Runs kd-train in forks of a process that has loaded torch already: 10 times as fast."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, *args: str, during: Callable[[int], object] = lambda pid: None, **env: str
    ) -> Ended:
        """Run kd-train; `during` is called with its process id."""
        out, err = self._folder / "out", self._folder / "err"
        request = {"args": args, "env": env, "out": str(out), "err": str(err)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        during(int(self._process.stdout.readline()))
        code = int(self._process.stdout.readline())
        return Ended(code, out.read_text(), err.read_text())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(scope="session")
def kd_train(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Ended]]:
    """(flags, during=..., ENVIRONMENT=...) -> how the command ended."""
    server = CommandServer(tmp_path_factory.mktemp("server"))
    yield server.run
    server.close()


@pytest.fixture(scope="session")
def arguments() -> Callable[..., list[str]]:
    """(collection, output, flag=value, ...) -> flags of a run of 12 steps, a checkpoint every 3."""

    def made(collection: Collection, output: Path, **flags: Any) -> list[str]:
        options = {
            "shards": str(collection.tars[0].parent),
            "labels": str(collection.labels),
            "student": "softlabel/small-cnn",
            "output": str(output),
            "batch_size": 10,
            "steps": 12,
            "checkpoint_every": 3,
            "log_interval": 2,
            "device": "cpu",
        }
        given = {**options, **flags}
        pairs = [(f"--{k.replace('_', '-')}", str(v)) for k, v in given.items() if v is not None]
        return [part for pair in pairs for part in pair]

    return made


@pytest.fixture(scope="session")
def unbroken(
    collection: Collection,
    arguments: Callable[..., list[str]],
    kd_train: Callable[..., Ended],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of an uninterrupted run of `arguments`; not to be changed."""
    output = tmp_path_factory.mktemp("unbroken") / "s"
    ended = kd_train(*arguments(collection, output))
    assert ended.code == 0, ended.err
    return output
