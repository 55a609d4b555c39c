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


@pytest.fixture(
    params=[
        "torch",
        "torch-chunked",
        "triton-rows",
        # Beside the others in test_sparse_kl_forms; here only in the long suite.
        pytest.param("triton-resident", marks=pytest.mark.slow),
        "triton-stream",
    ]
)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each fast implementation, in each of its forms; blocks so small that rows need several."""
    name, _, form = request.param.partition("-")
    if name == "triton":
        request.getfixturevalue("triton_device")
    if form == "chunked":
        from softlabel.kernels.sparse_kl import native

        monkeypatch.setattr(native, "_CHUNK_BYTES", 1)
    elif form:
        choose_form(form, monkeypatch)
    return name


def choose_form(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one form of the triton kernels do all the work, whatever the width."""
    import triton

    from softlabel.kernels.sparse_kl.gpu import launch
    from softlabel.kernels.sparse_kl.gpu.configs import Config, Problem

    def config_for(problem: Problem, arch: int) -> Config:
        wide = triton.next_power_of_2(problem.width)
        return {
            "rows": Config("rows", wide, 4, rows=2),
            "resident": Config("resident", wide, 1),
            "prefetch": Config("resident", wide, 1, prefetch=True),
            "stream": Config("stream", 16, 1),
        }[form]

    monkeypatch.setattr(launch, "config_for", config_for)


@pytest.fixture
def triton_form(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`triton_form("prefetch")` and the like, for the rest of a test."""
    return lambda form: choose_form(form, monkeypatch)


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
