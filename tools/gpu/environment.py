"""The machine: device, driver, versions, clocks as found, and its two ceilings."""

import subprocess
from typing import Any

import torch

from softlabel.tools.bench.kernel.clock import take_turns
from softlabel.tools.bench.kernel.copying import copy_bandwidth
from softlabel.tools.bench.machine import machine
from softlabel.tools.gpu.step import parsed

_QUERIES = (
    "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit,"
    "temperature.gpu,mig.mode.current,clocks_event_reasons.active",
    "name,driver_version,clocks.sm,clocks.mem",
)
"""What nvidia-smi is asked for, and what an older one knows."""


def environment(*, dry_run: bool) -> dict[str, Any]:
    """All that a figure has to be read with."""
    device = torch.device("cpu" if dry_run else "cuda")
    size = 1 << 24 if dry_run else None
    found = {
        "dry_run": dry_run,
        **machine(),
        "device": _device() if device.type == "cuda" else "cpu",
        "nvidia_smi": _nvidia_smi(),
        "copy_gb_per_s": round(copy_bandwidth(device, num_bytes=size) / 1e9, 1),
        "matmul_tflop_per_s": round(_matmul(device, 256 if dry_run else 8192) / 1e12, 2),
    }
    # Asked again after work: idle clocks say little.
    return found | {"nvidia_smi_after": _nvidia_smi()}


def _device() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "cuda": torch.version.cuda,
    }


def _nvidia_smi() -> dict[str, str] | None:
    """Read only: the card's settings are left alone."""
    for query in _QUERIES:
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "--id=0"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        except (OSError, subprocess.SubprocessError):
            continue
        values = [value.strip() for value in done.stdout.strip().split(",")]
        return dict(zip(query.split(","), values, strict=False))
    return None


def _matmul(device: torch.device, size: int) -> float:
    """Floating point operations a second of a square bfloat16 product, of random numbers."""
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    out = torch.empty_like(a)
    times = take_turns(
        {"matmul": lambda: torch.matmul(a, b, out=out)},
        prepare=lambda: None,
        device=device,
        repeats=10,
    )
    return float(2 * size**3 / times["matmul"].median)


def main() -> None:
    """The step."""
    step = parsed("softlabel.tools.gpu.environment", __doc__)
    found = environment(dry_run=step.dry_run)
    step.write(found)
    print(
        f"{found['device'] if step.dry_run else found['device']['name']}: copy "
        f"{found['copy_gb_per_s']} GB/s, matmul {found['matmul_tflop_per_s']} TFLOP/s, "
        f"torch {found.get('torch')}, triton {found.get('triton')}"
    )


if __name__ == "__main__":
    main()
