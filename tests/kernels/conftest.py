"""Kernels run on the GPU where there is one, else in Triton's interpreter on the CPU."""

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    # Read by every `@triton.jit`, also those in triton itself, so it must stand before triton is
    # first imported. Harmless to other tests: on the CPU nothing else runs triton.
    os.environ["TRITON_INTERPRET"] = "1"

Labels = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def triton_device() -> Iterator[str]:
    """Where triton kernels run."""
    if torch.cuda.is_available():
        yield "cuda"
        return
    import triton

    if isinstance(triton.language.sum, triton.JITFunction):
        pytest.fail("triton was imported before tests/kernels/conftest.py chose the interpreter")
    with np.errstate(all="ignore"):  # numpy warns of lanes that are masked away
        yield "cpu"


@pytest.fixture(params=["torch", "torch-chunked", "triton", "triton-stream"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each fast implementation, and each again with blocks so small that a batch needs several."""
    name, _, small = request.param.partition("-")
    if name == "triton":
        request.getfixturevalue("triton_device")
    if small and name == "torch":
        from softlabel.kernels.sparse_kl import native

        monkeypatch.setattr(native, "_CHUNK_BYTES", 1)
    elif small:
        from softlabel.kernels.sparse_kl import launch

        monkeypatch.setattr(launch, "_RESIDENT_WIDTH", 8)
        monkeypatch.setattr(launch, "_SWEEP_BLOCK", 16)
    return name


@pytest.fixture
def device(backend: str, request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue("triton_device") if backend == "triton" else "cpu"


@pytest.fixture
def make_labels() -> Callable[..., Labels]:
    """What the store holds of [B, C] teacher logits: (topk_logit, topk_class, tail_lse)."""

    def make(teacher: Tensor, top_k: int, temperature: float = 1.0) -> Labels:
        relative = teacher.double() - teacher.double().amax(dim=1, keepdim=True)
        topk_logit, topk_class = relative.topk(top_k, dim=1)
        others = relative.scatter(1, topk_class, -torch.inf)
        tail_lse = torch.logsumexp(others / temperature, dim=1)
        return topk_logit.clamp_min(-65504).half(), topk_class.int(), tail_lse.float()

    return make
