"""kd-doctor: does this machine have what softlabel needs, and what is missing?"""

import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Literal, NoReturn

from softlabel.shards import commandline

DESCRIPTION = """Check this machine: versions, onnxruntime's providers that really load, decoders,
the disk. Exit code 5 if something that was asked for can't run.

Examples:
  kd-doctor
  kd-doctor --providers cuda"""

_PACKAGES = ("numpy", "torch", "torchvision", "triton", "onnx", "zarr", "webdataset", "pillow")
_OPTIONAL = ("timm", "h5py", "obstore")
_FLUSHES = 20


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """The flags of kd-doctor."""

    providers: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    """What must run: exit code 5 if it does not."""
    path: Path = Path()
    """Folder whose disk is looked at."""
    json: bool = False
    """One JSON object instead of a table."""


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    what: str
    state: Literal["ok", "note", "bad"]
    found: str


def findings(config: DoctorConfig) -> Iterator[Finding]:
    """Look at everything; a check that fails is a finding, never an exception."""
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield Finding("cores", "ok", f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}")
    for name in _PACKAGES:
        yield _package(name, optional=False)
    for name in _OPTIONAL:
        yield _package(name, optional=True)
    yield from _onnxruntime(config)
    yield _decoder("pillow", needed=True)
    yield _decoder("torchvision", needed=False)
    yield _triton()
    yield from _disk(config.path)


def _package(name: str, *, optional: bool) -> Finding:
    try:
        return Finding(name, "ok", version(name))
    except PackageNotFoundError:
        return Finding(name, "note" if optional else "bad", "not installed")


def _onnxruntime(config: DoctorConfig) -> Iterator[Finding]:
    names = {dist.metadata["Name"].lower() for dist in distributions() if dist.metadata["Name"]}
    installed = sorted(name for name in names if name in {"onnxruntime", "onnxruntime-gpu"})
    if not installed:
        yield Finding("onnxruntime", "bad", "not installed; pip install onnxruntime-gpu")
        return
    if len(installed) > 1:
        yield Finding(
            "onnxruntime",
            "bad",
            f"{' and '.join(installed)} overwrite each other; pip uninstall -y "
            f"{' '.join(installed)} && pip install onnxruntime-gpu",
        )
        return
    yield Finding("onnxruntime", "ok", f"{installed[0]} {version(installed[0])}")
    for name in ("cpu", "cuda", "tensorrt"):
        wanted = name == config.providers
        try:
            _run_on(name)
        except Exception as error:
            reason = commandline.one_line(error)
            yield Finding(
                f"provider {name}", "bad" if wanted else "note", f"does not run: {reason}"
            )
        else:
            yield Finding(f"provider {name}", "ok", "runs")


def _run_on(provider: str) -> None:
    """Run a one-node model on exactly this provider, or raise."""
    import numpy as np
    from onnx import TensorProto, helper, save

    from softlabel.labeler.session import TeacherSession

    node = helper.make_node("Identity", ["image"], ["out"])
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 1, 1, 3])
    out = helper.make_tensor_value_info("out", TensorProto.UINT8, ["N", 1, 1, 3])
    model = helper.make_model(
        helper.make_graph([node], "probe", [image], [out]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.onnx"
        save(model, path)
        with _stderr_to_null():  # onnxruntime's own lines of errors; ours says it in one
            session = TeacherSession(path, provider=provider, threads=1)
        session.run(np.zeros((1, 1, 1, 3), np.uint8))


class _stderr_to_null:  # noqa: N801
    """Silence file descriptor 2, which native code writes to."""

    def __enter__(self) -> None:
        sys.stderr.flush()
        self._saved = os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._saved, 2)
        os.close(self._saved)


def _decoder(name: str, *, needed: bool) -> Finding:
    from softlabel.shards.decoders import open_decoder

    try:
        decoder = open_decoder(name, max_pixels=10**6)
        data = _jpeg()
        seconds = _median_seconds(lambda: decoder.decode(data))
    except Exception as error:
        state: Literal["note", "bad"] = "bad" if needed else "note"
        return Finding(f"decoder {name}", state, commandline.one_line(error))
    return Finding(f"decoder {name}", "ok", f"{1 / seconds:,.0f} JPEGs of 500x375 a second a core")


def _jpeg() -> bytes:
    import io

    import numpy as np
    from PIL import Image

    coarse = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def _median_seconds(action: Callable[[], object], repeats: int = 20) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def _triton() -> Finding:
    if importlib.util.find_spec("triton") is None:
        return Finding("fused kernel", "note", "no triton: losses run on native torch operations")
    if Path("/proc/driver/nvidia/version").exists():
        return Finding("fused kernel", "ok", "triton, on the GPU")
    return Finding("fused kernel", "ok", "no NVIDIA driver: losses run on native torch operations")


def _disk(path: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(path).free
    yield Finding("disk free", "ok" if free > 1e9 else "bad", f"{free / 1e9:,.1f} GB")
    try:
        with tempfile.NamedTemporaryFile(dir=path) as file:

            def flush() -> None:
                file.write(b"x" * 4096)
                file.flush()
                os.fsync(file.fileno())

            seconds = _median_seconds(flush, _FLUSHES)
        yield Finding("disk flushes", "ok", f"{1 / max(seconds, 1e-9):,.0f} a second")
    except OSError as error:
        yield Finding(
            "disk flushes", "bad", f"{path.absolute()} can't be written: {error.strerror}"
        )


def run(config: DoctorConfig) -> int:
    """Print what was found; 5 if something needed is bad."""
    found = list(findings(config))
    if config.json:
        print(json.dumps([vars(finding) for finding in found]))
    else:
        width = max(len(finding.what) for finding in found)
        for finding in found:
            print(f"{finding.state:4}  {finding.what:{width}}  {finding.found}")
    return 5 if any(finding.state == "bad" for finding in found) else 0


def main() -> NoReturn:
    """The command."""
    commandline.main("kd-doctor", DESCRIPTION, DoctorConfig, run)
