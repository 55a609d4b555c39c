"""runs/*.log: what a run was told, where it ran and how long it took, one JSON object a line."""

import json
import os
import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from softlabel.labeler.batching import BatchChoice
from softlabel.labeler.plan import Plan
from softlabel.labeler.tar_labels import StageTimes
from softlabel.shards.specs import redacted

_PACKAGES = ("softlabel", "numpy", "onnx", "zarr", "pillow")


class RunLog:
    """Outside every promise about bytes: times, hosts and machines belong here and nowhere else."""

    def __init__(self, folder: Path, plan: Plan, choice: BatchChoice) -> None:
        started = time.strftime("%Y%m%dT%H%M%S")
        self._path = folder / f"{started}-{os.getpid()}.log"
        config = {name: _plain(value) for name, value in asdict(plan.config).items()}
        config["shards"] = [redacted(part) for part in plan.config.shards]
        self._write("start", config=config, machine=_machine(), batch=asdict(choice))

    def close(self, times: StageTimes, images: int) -> None:
        """Note what came of it."""
        seconds = {name: round(value, 3) for name, value in asdict(times).items()}
        rate = images / times.total if times.total else 0.0
        self._write("end", images=images, images_per_s=round(rate, 1), seconds=seconds)

    def _write(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, "time": round(time.time(), 3), **values})
        with self._path.open("a") as file:
            file.write(line + "\n")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _machine() -> dict[str, Any]:
    import onnxruntime as ort

    return {
        "host": platform.node(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
        **{name: version(name) for name in _PACKAGES},
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
