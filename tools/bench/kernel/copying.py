"""The denominator of every share: what a plain copy reaches on this machine, in this run."""

import torch

from softlabel.tools.bench.kernel.clock import take_turns

_BYTES = {"cpu": 256 << 20, "cuda": 2 << 30}
_REPEATS = {"cpu": 9, "cuda": 50}


def copy_bandwidth(device: torch.device, *, num_bytes: int | None = None) -> float:
    """Bytes a second, read and written both counted, of a copy between two buffers that exist.

    It is far larger than any cache: 2 GB on a GPU, 256 MB on a CPU.
    """
    size = num_bytes or _BYTES[device.type]
    # Not of zeros, which can move faster than data does.
    source = torch.arange(size // 4, dtype=torch.int32, device=device)
    copy = torch.empty_like(source)
    times = take_turns(
        {"copy": lambda: copy.copy_(source)},
        prepare=lambda: None,
        device=device,
        repeats=_REPEATS[device.type],
    )
    return 2 * size / times["copy"].median
