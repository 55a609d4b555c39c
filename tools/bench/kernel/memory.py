"""Peak extra memory of each contestant: beyond logits, labels and what it found there.

On a GPU torch's allocator knows. On a CPU it is the peak of the resident set, in a process of its
own where the C library hands every block above 64 kB back to the system at once.
"""

import contextlib
import ctypes
import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from softlabel.tools.bench.kernel.case import Case, make_case
from softlabel.tools.bench.kernel.config import KernelBench
from softlabel.tools.bench.kernel.contestants import Contestant, contestants

_LIMIT_S = 300


class UnmeasuredError(RuntimeError):
    """A figure that this machine does not give, and why."""


def extra_bytes(case: Case, taking_part: Mapping[str, Contestant]) -> dict[str, int]:
    """Bytes by contestant, its own lasting buffers included.

    Raises:
        UnmeasuredError: the system does not tell.
    """
    if case.device.type == "cuda":
        return {
            name: cuda_peak(contestant.run) + contestant.held_bytes
            for name, contestant in taking_part.items()
            if contestant.calls == 1
        }
    return in_fresh_process("softlabel.tools.bench.kernel.memory", asdict(case.bench))


def cuda_peak(action: Callable[[], Any]) -> int:
    """Bytes that torch's allocator gave out at most during `action`, beyond those before."""
    gc.collect()  # or a call's garbage would make room for the next one
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    action()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def cpu_peak(action: Callable[[], Any]) -> int:
    """Bytes by which the resident set grew at most during `action`, to about 0.3 MB."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # glibc's: free blocks would be used without growth
        ctypes.CDLL(None).malloc_trim(0)
    _forget_peak()
    before = _status("VmRSS")
    action()
    return max(0, _status("VmHWM") - before)


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise UnmeasuredError(f"the system keeps no peak to reset: {error}") from error


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    if found is None:
        raise UnmeasuredError(f"/proc/self/status has no {name}")
    return 1024 * int(found[1])


def in_fresh_process(module: str, bench: Mapping[str, Any]) -> dict[str, int]:
    """What `python -m module` prints as JSON, given a KernelBench as JSON.

    Raises:
        UnmeasuredError: it failed.
    """
    environment = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    command = [sys.executable, "-m", module, json.dumps(bench)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=_LIMIT_S
        )
    except subprocess.TimeoutExpired as error:
        raise UnmeasuredError(f"not done in {_LIMIT_S} s") from error
    if done.returncode:
        raise UnmeasuredError((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """The fresh process."""
    bench = KernelBench(**json.loads(sys.argv[1]))
    case = make_case(bench)
    found = {}
    taking_part, _ = contestants(case)
    for name, contestant in taking_part.items():
        for _ in range(2):  # what is made once, code above all, is not counted
            case.restore()
            contestant.run()
        case.restore()
        found[name] = cpu_peak(contestant.run) + contestant.held_bytes
    print(json.dumps(found))


if __name__ == "__main__":
    main()
