"""Who takes part: our op in its forms, and those peers that can express the loss here."""

import importlib.util
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from softlabel.kernels.sparse_kl import sparse_kl, sparse_kl_grad
from softlabel.tools.bench.kernel import peers
from softlabel.tools.bench.kernel.case import Case

OURS = "sparse_kl_grad"
"""What ratios are to: the gradient written to a buffer that is used again."""

IN_PLACE = "sparse_kl_grad, in place"
FUNCTIONAL = "sparse_kl, autograd"

_GRAPH_CALLS = 16
GRAPH = f"sparse_kl_grad, {_GRAPH_CALLS} in one CUDA graph"
OURS_NAMES = (OURS, IN_PLACE, FUNCTIONAL, GRAPH)

_GRAPH_BYTES = 64 << 20

Found = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Contestant:
    """One way to loss and gradient."""

    run: Callable[[], Found]
    held_bytes: int = 0
    """Size of buffers it keeps between calls, beside logits and labels."""
    calls: int = 1
    """How many times `run` does the work."""


def contestants(case: Case) -> tuple[dict[str, Contestant], dict[str, str]]:
    """Contestants by name, and why others are left out."""
    found = _ours(case)
    left_out: dict[str, str] = {}
    tail = case.labels.tail
    dense = tail in peers.DENSE_TAILS
    if dense:
        for name, loss in (
            ("kl_div, dense teacher rebuilt", peers.dense_kl_div),
            ("cross_entropy, dense teacher rebuilt", peers.dense_cross_entropy),
        ):
            found[name] = _peer(peers.with_gradient(loss), case)
    else:
        left_out["dense peers"] = f"tail {tail!r} is no distribution over the classes"
    found["sparse algebra"] = _peer(peers.sparse_algebra, case)
    reason = _compiler_missing(case)
    if reason is None:
        found |= compiled_peers(case)
    else:
        left_out["torch.compile"] = reason
    reason = _liger_missing(case, dense=dense)
    if reason is None:
        found["Liger kl_div"] = _peer(peers.with_gradient(peers.liger_kl_div), case)
    else:
        left_out["Liger kl_div"] = reason
    return found, left_out


def compiled_peers(case: Case) -> dict[str, Contestant]:
    """What torch.compile makes of peers; nothing is compiled before they run."""
    found = {}
    # It looks for a CUDA runtime on every machine, and warns.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    torch.compiler.reset()  # dynamo counts how often a function was compiled, and gives up
    compiled = torch.compile(peers.sparse_algebra, dynamic=False)
    found["sparse algebra, torch.compile"] = _peer(compiled, case)
    if case.labels.tail in peers.DENSE_TAILS:
        loss = torch.compile(peers.dense_kl_div, dynamic=False)
        found["kl_div, torch.compile"] = _peer(peers.with_gradient(loss), case)
    return found


def _peer(run: Callable[..., Found], case: Case) -> Contestant:
    return Contestant(lambda: run(case.compact, case.labels))


def _ours(case: Case) -> dict[str, Contestant]:
    out = torch.empty_like(case.work)
    num_classes = case.bench.classes

    def into(buffer: Tensor) -> Found:
        row_loss, grad = ours(case, case.work, buffer)
        return row_loss, grad[:, :num_classes]

    found = {
        OURS: Contestant(lambda: into(out), out.numel() * out.element_size()),
        IN_PLACE: Contestant(lambda: into(case.work)),
        FUNCTIONAL: Contestant(lambda: _functional(case)),
    }
    if case.device.type == "cuda" and out.numel() * out.element_size() <= _GRAPH_BYTES:
        found[GRAPH] = _graph(case)
    return found


def ours(case: Case, logits: Tensor, out: Tensor) -> Found:
    """Our op for trainers, on [B, W] logits."""
    labels = case.labels
    row_loss, grad = sparse_kl_grad(
        logits,
        labels.relative,
        labels.classes,
        labels.tail_lse,
        temperature=labels.temperature,
        tail=labels.tail,
        target=labels.target,
        hard_weight=labels.hard,
        num_classes=case.bench.classes,
        grad_scale=1 / len(logits),
        out=out,
    )
    assert isinstance(row_loss, Tensor)
    return row_loss, grad


def _functional(case: Case) -> Found:
    labels = case.labels
    leaf = case.work.detach().requires_grad_()
    loss = sparse_kl(
        leaf,
        labels.relative,
        labels.classes,
        labels.tail_lse,
        temperature=labels.temperature,
        tail=labels.tail,
        target=labels.target,
        hard_weight=labels.hard,
        num_classes=case.bench.classes,
        reduction="mean",
    )
    assert isinstance(loss, Tensor)
    (grad,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), grad[:, : case.bench.classes]


def _graph(case: Case) -> Contestant:
    """Launches at their cheapest: as many independent calls in one graph, each with its memory."""
    outs = [torch.empty_like(case.work) for _ in range(_GRAPH_CALLS)]
    inputs = [case.pristine.clone() for _ in outs]
    row_loss, grad = ours(case, inputs[0], outs[0])  # compiles, which a capture must not
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for logits, out in zip(inputs, outs, strict=True):
            row_loss, grad = ours(case, logits, out)

    def run() -> Found:
        graph.replay()
        return row_loss, grad[:, : case.bench.classes]

    return Contestant(run, calls=_GRAPH_CALLS)


def _compiler_missing(case: Case) -> str | None:
    """Why torch.compile is not measured."""
    if not case.bench.compile:
        return "--no-compile"
    if case.device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        return "torch.compile on a CPU needs a C++ compiler, g++; none was found"
    return None


def _liger_missing(case: Case, *, dense: bool) -> str | None:
    if not dense:
        return f"tail {case.labels.tail!r} is no distribution over the classes"
    if case.device.type != "cuda":
        return "needs a GPU"
    if importlib.util.find_spec("liger_kernel") is None:
        return "liger_kernel is not installed"
    return None
