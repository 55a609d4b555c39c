"""The teacher in ONNX Runtime: which provider really runs it, and one batch through it."""

import contextlib
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.errors import MachineError, TeacherError

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


def resolve_provider(name: str) -> str:
    """`auto` as the provider that this machine has: cuda where there is a GPU, else cpu."""
    if name != "auto":
        return name
    import onnxruntime as ort

    has_gpu = Path("/proc/driver/nvidia/version").exists()
    return "cuda" if has_gpu and PROVIDERS["cuda"] in ort.get_available_providers() else "cpu"


class TeacherSession:
    """A labelling graph, loaded; `run` gives its outputs for a batch of images."""

    def __init__(self, graph: Path, *, provider: str, threads: int) -> None:
        """Load `graph` on exactly `provider`.

        Raises:
            MachineError: the provider does not run here; onnxruntime would fall back in silence.
            TeacherError: onnxruntime can't load the graph.
        """
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Spinning threads would take the cores from the decoders while the teacher waits for them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted = PROVIDERS[provider]
        if wanted not in ort.get_available_providers():
            raise MachineError(
                f"--providers {provider}: this onnxruntime has only "
                f"{', '.join(ort.get_available_providers())}; install onnxruntime-gpu[cuda,cudnn]"
            )
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):  # where onnxruntime prints what it misses
                if provider == "cuda":
                    ort.preload_dlls()
                self._session = ort.InferenceSession(str(graph), options, providers=[wanted])
        except Exception as error:
            raise TeacherError(f"{graph}: onnxruntime can't load it: {error}") from None
        found = self._session.get_providers()[0]
        if found != wanted:
            missing = sorted(set(re.findall(r"lib[\w+-]+\.so[.\d]*", said.getvalue())))
            raise MachineError(
                f"--providers {provider}: wanted {wanted}, onnxruntime fell back to {found}; "
                + (f"missing {', '.join(missing)}; " if missing else "")
                + "see kd-doctor, or use --providers cpu"
            )
        self._names: list[str] = [output.name for output in self._session.get_outputs()]

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """The graph's outputs by name for images [N, H, W, 3]."""
        outputs = self._session.run(self._names, {"image": images})
        return dict(zip(self._names, outputs, strict=True))

    def run_padded(self, images: NDArray[np.uint8], *, batch_size: int) -> dict[str, NDArray[Any]]:
        """As `run`, for any N, in batches of one size: the last is filled with zeros, then cut.

        A constant batch shape is what makes the labels' bytes independent of what else is in a
        tar; onnxruntime promises nothing across shapes.
        """
        parts = []
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            missing = batch_size - len(batch)
            if missing:
                filler = np.zeros((missing, *images.shape[1:]), np.uint8)
                batch = np.concatenate([batch, filler])
            outputs = self.run(batch)
            parts.append({name: value[: batch_size - missing] for name, value in outputs.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in self._names}


def num_cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0))


def bit_equal(a: dict[str, NDArray[Any]], b: dict[str, NDArray[Any]], names: Sequence[str]) -> bool:
    """Whether two sets of outputs are the same to the bit."""
    return all(a[name].tobytes() == b[name].tobytes() for name in names)
