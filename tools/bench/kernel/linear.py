"""kd-bench kernel --linear: the last layer and its loss in one, against logits that are all there.

Loss and the gradients to the layer's input and weight. B rows, D features, C classes.
"""

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from softlabel.kernels.sparse_kl import sparse_kl_grad
from softlabel.tools.bench.kernel import peers
from softlabel.tools.bench.kernel.case import DTYPES, Case, Labels, make_case
from softlabel.tools.bench.kernel.clock import METHODS, take_turns
from softlabel.tools.bench.kernel.config import LINEAR_SHAPES, KernelBench
from softlabel.tools.bench.kernel.lines import PRODUCTS
from softlabel.tools.bench.kernel.memory import (
    UnmeasuredError,
    cpu_peak,
    cuda_peak,
    in_fresh_process,
)

OURS = "linear_sparse_kl"
WHOLE = "logits whole, sparse_kl_grad in place"

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
_REPEATS = {"cpu": 7, "cuda": 20}

Found = tuple[Tensor, Tensor, Tensor]


def bench_linear(bench: KernelBench) -> dict[str, Any]:
    """The figures of one shape, or of all standard ones under "results"."""
    if not bench.all_shapes:
        return bench_linear_shape(bench)
    shapes = [
        replace(bench, rows=rows, features=features, classes=classes, all_shapes=False)
        for rows, features, classes in LINEAR_SHAPES
    ]
    return {"results": [bench_linear_shape(shape) for shape in shapes]}


def bench_linear_shape(bench: KernelBench) -> dict[str, Any]:
    """Milliseconds and peak extra memory; outputs, gradients of layer and input, are counted."""
    layer = Layer(bench)
    actions, left_out = contestants(layer)
    found_errors = _errors(actions)
    device = layer.hidden.device
    extra: dict[str, int] = {}
    try:
        if not bench.memory:
            raise UnmeasuredError("--no-memory")
        if device.type == "cuda":
            extra = {name: cuda_peak(action) for name, action in actions.items()}
        else:
            extra = in_fresh_process("softlabel.tools.bench.kernel.linear", asdict(bench))
    except UnmeasuredError as reason:
        left_out["extra memory"] = str(reason)
    times = take_turns(
        actions,
        prepare=lambda: None,
        device=device,
        repeats=bench.repeats or _REPEATS[device.type],
    )
    rows: dict[str, dict[str, Any]] = {
        name: {
            "ms": round(1e3 * times[name].median, 4),
            "ms_p20": round(1e3 * times[name].quantile(0.2), 4),
            "ms_p80": round(1e3 * times[name].quantile(0.8), 4),
            "host_ms": round(1e3 * times[name].host_median, 4),
            "extra_mb": round(extra[name] / 1e6, 2) if name in extra else None,
            **found_errors.get(name, {}),
        }
        for name in actions
    }
    mine = rows.get(OURS, rows[WHOLE])["ms"]
    shape = ("rows", "features", "classes", "top_k", "tail", "temperature", "hard", "dtype")
    return {
        **{key: value for key, value in asdict(bench).items() if key in shape},
        "width": layer.weight.shape[0],
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "method": METHODS[device.type],
        "repeats": len(times[WHOLE].seconds),
        "ms": {name: row["ms"] for name, row in rows.items()},
        "times_ours": {name: round(row["ms"] / mine, 3) for name, row in rows.items()},
        "contestants": rows,
        "not_measured": left_out,
    }


class Layer:
    """Random input and weight of a last layer, and labels for its rows."""

    def __init__(self, bench: KernelBench) -> None:
        # Labels are of the shape's rows and classes; its logits are not wanted here.
        case: Case = make_case(bench)
        self.labels: Labels = case.labels
        self.bench = bench
        device, width = case.device, case.pristine.shape[1]
        del case
        generator = torch.Generator(device).manual_seed(1)
        draw = partial(torch.randn, generator=generator, device=device)
        self.hidden = draw(bench.rows, bench.features).to(DTYPES[bench.dtype])
        scaled = draw(width, bench.features) * (3 / bench.features**0.5)
        self.weight = scaled.to(DTYPES[bench.dtype])


def contestants(layer: Layer) -> tuple[dict[str, Callable[[], Found]], dict[str, str]]:
    """What is timed, and why something else is not."""
    found: dict[str, Callable[[], Found]] = {}
    left_out: dict[str, str] = {}
    try:
        module = importlib.import_module("softlabel.kernels.sparse_kl.linear")
        found[OURS] = partial(_ours, module.linear_sparse_kl, layer)
    except ImportError as reason:
        left_out[OURS] = f"not there: {reason}"
    found[WHOLE] = partial(_whole, layer)
    if layer.labels.tail in peers.DENSE_TAILS:
        found["logits whole, dense kl_div"] = partial(_dense, layer)
    found[PRODUCTS] = partial(_products, layer)
    return found, left_out


def _options(layer: Layer) -> dict[str, Any]:
    labels = layer.labels
    return {
        "temperature": labels.temperature,
        "tail": labels.tail,
        "target": labels.target,
        "hard_weight": labels.hard,
        "num_classes": layer.bench.classes,
    }


def _ours(linear_sparse_kl: Callable[..., Tensor], layer: Layer) -> Found:
    labels = layer.labels
    hidden = layer.hidden.detach().requires_grad_()
    weight = layer.weight.detach().requires_grad_()
    stored = (labels.relative, labels.classes, labels.tail_lse)
    loss = linear_sparse_kl(hidden, weight, *stored, **_options(layer))
    to_hidden, to_weight = torch.autograd.grad(loss, (hidden, weight))
    return loss.detach(), to_hidden, to_weight


def _whole(layer: Layer) -> Found:
    labels = layer.labels
    logits = layer.hidden @ layer.weight.T
    row_loss, grad = sparse_kl_grad(
        logits,
        labels.relative,
        labels.classes,
        labels.tail_lse,
        grad_scale=1 / len(logits),
        out=logits,
        **_options(layer),
    )
    assert isinstance(row_loss, Tensor)
    return row_loss.mean(), grad @ layer.weight, grad.T @ layer.hidden


def _dense(layer: Layer) -> Found:
    hidden = layer.hidden.detach().requires_grad_()
    weight = layer.weight.detach().requires_grad_()
    logits = (hidden @ weight.T)[:, : layer.bench.classes]
    loss = peers.dense_kl_div(logits, layer.labels).mean()
    to_hidden, to_weight = torch.autograd.grad(loss, (hidden, weight))
    return loss.detach(), to_hidden, to_weight


def _products(layer: Layer) -> Found:
    """No loss at all: the floor of all others."""
    logits = layer.hidden @ layer.weight.T
    return logits[0, 0], logits @ layer.weight, logits.T @ layer.hidden


def _errors(actions: dict[str, Callable[[], Found]]) -> dict[str, dict[str, float]]:
    """Norm of the difference to `WHOLE`, over that of the value.

    Raises:
        AssertionError: a contestant computes something else.
    """
    wanted = [tensor.clone() for tensor in actions[WHOLE]()]
    found = {}
    for name, action in actions.items():
        if name == PRODUCTS:
            continue
        differences = [
            float((got.float() - value.float()).norm() / value.float().norm())
            for got, value in zip(action(), wanted, strict=True)
        ]
        error = max(differences)
        if not error <= _TOLERANCE[wanted[1].dtype]:
            raise AssertionError(f"{name} computes something else: relative error {error:.1e}")
        found[name] = {"loss_error": differences[0], "grad_error": max(differences[1:])}
    return found


def main() -> None:
    """The fresh process that measures memory on a CPU."""
    actions, _ = contestants(Layer(KernelBench(**json.loads(sys.argv[1]))))
    found = {}
    for name, action in actions.items():
        action()
        found[name] = cpu_peak(action)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
