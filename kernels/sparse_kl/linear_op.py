"""`softlabel::linear_sparse_kl`: rows of logits made, turned into their gradient, multiplied on.

An operator of torch.library, so that torch.compile calls it and does not look inside. B rows, D
features, W columns of which the first C are classes. No atomics: equal calls give equal bits.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from softlabel.kernels.sparse_kl.custom_op import row_losses, scaled
from softlabel.kernels.sparse_kl.targets import Tail, Targets

_TARGETS = (
    "Tensor topk_logit, Tensor topk_class, Tensor? tail_lse, Tensor? target, Tensor? row_weight, "
    "float temperature, str tail, int num_classes, float soft_weight, float hard_weight, "
    "float label_smoothing, int ignore_index"
)


def losses_and_gradients(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    topk_logit: Tensor,
    topk_class: Tensor,
    tail_lse: Tensor | None,
    target: Tensor | None,
    row_weight: Tensor | None,
    temperature: float,
    tail: Tail,
    num_classes: int,
    soft_weight: float,
    hard_weight: float,
    label_smoothing: float,
    ignore_index: int,
    scale: float,
    scale_tensor: Tensor | None,
    chunk_rows: int,
    dtype: torch.dtype,
    implementation: str,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Losses and gradients of checked arguments.

    Args:
        hidden: [B, D].
        weight: [W, D]; `bias` [W].
        topk_logit: [B, K]; from here to `ignore_index` the fields of `Targets`, in their order.
        scale: factor of losses and gradients, and `scale_tensor` another, of one element.
        chunk_rows: rows of logits at a time.
        dtype: of logits and their gradient.
        implementation: triton, torch or reference.
        wanted: which gradients to make, of those to hidden, weight and bias.

    Returns:
        (loss []; its soft and hard part [2]; the gradients to hidden, weight and bias, empty where
        not wanted). Gradients have the dtype of what they belong to, but float32 for float16: only
        the factor that backward brings lifts them out of its subnormals.
    """
    targets = Targets(
        topk_logit, topk_class, tail_lse, target, row_weight, temperature, tail, num_classes,
        soft_weight, hard_weight, label_smoothing, ignore_index,
    )  # fmt: skip
    # Autocast has chosen `dtype`; it must not choose again for the sums.
    with torch.autocast(hidden.device.type, enabled=False):
        layer = (hidden, weight.to(dtype), None if bias is None else bias.to(dtype))
        made = _empty(hidden, weight, bias, wanted)
        sums = _Sums(*made, layer[1], one_product=len(hidden) <= chunk_rows)
        losses = hidden.new_empty(3, len(hidden), dtype=sums.dtype)
        for part, x, logits in _chunks(*layer, chunk_rows):
            losses[:, part] = row_losses(
                logits,
                _rows(targets, part),
                implementation,
                grad_scale=scale,
                scale_tensor=scale_tensor,
                out=logits,
            )
            sums.add(part, x, logits)
        total = losses.sum(dim=1) * (scale if scale_tensor is None else scale * scale_tensor)
        return total[0].clone(), total[1:].clone(), made[0], *sums.finished()


def _chunks(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, chunk_rows: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(which rows, their input [n, D], their logits [n, W] in a buffer that the next will use)."""
    B, W = len(hidden), len(weight)
    buffer = weight.new_empty(min(B, chunk_rows), W)
    for low in range(0, B, chunk_rows):
        part = slice(low, low + chunk_rows)
        x = hidden[part].to(weight.dtype)
        logits = buffer[: len(x)]
        if bias is None:
            torch.mm(x, weight.t(), out=logits)
        else:
            torch.addmm(bias, x, weight.t(), out=logits)
        yield part, x, logits


class _Sums:
    """The gradients of the layer, chunk by chunk."""

    def __init__(
        self, dhidden: Tensor, dweight: Tensor, dbias: Tensor, weight: Tensor, *, one_product: bool
    ) -> None:
        self.dtype = torch.promote_types(weight.dtype, torch.float32)
        self._weight = weight
        self._given = dhidden, dweight, dbias
        # What one product makes goes where it belongs, several are added up in float32.
        direct = one_product and dweight.dtype in (weight.dtype, self.dtype)
        self._dweight = dweight if direct else torch.empty_like(dweight, dtype=self.dtype)
        self._dbias = torch.zeros_like(dbias, dtype=self.dtype)
        self._begun = False

    def add(self, part: slice, x: Tensor, dlogits: Tensor) -> None:
        """Some rows: input [n, D] and gradient to the logits [n, W]."""
        if self._given[0].numel():
            _multiply(dlogits, self._weight, out=self._given[0][part], add=False)
        if self._dweight.numel():
            _multiply(dlogits.t(), x, out=self._dweight, add=self._begun)
        if self._dbias.numel():
            self._dbias += dlogits.sum(0, dtype=self.dtype)
        self._begun = True

    def finished(self) -> tuple[Tensor, Tensor]:
        """The gradients to weight and bias, in the dtypes they were asked for in."""
        _, dweight, dbias = self._given
        if not self._begun:
            self._dweight.zero_()
        return self._dweight.to(dweight.dtype), self._dbias.to(dbias.dtype)


def _multiply(a: Tensor, b: Tensor, *, out: Tensor, add: bool) -> None:
    """`out` = a @ b, or what it was plus that; rounded once, to the dtype of `out`."""
    if a.dtype == out.dtype:
        torch.addmm(out, a, b, beta=int(add), out=out)
    elif out.dtype == torch.float32 and out.is_cuda:
        torch.addmm(out, a, b, out_dtype=out.dtype, beta=int(add), out=out)
    elif torch.promote_types(a.dtype, torch.float32) == out.dtype:
        torch.addmm(out, a.to(out.dtype), b.to(out.dtype), beta=int(add), out=out)
    else:
        assert not add, "sums are kept in float32"
        out.copy_(a @ b)


def _empty(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the gradients; a tensor without elements where none is wanted."""
    room = []
    for tensor, wants in zip((hidden, weight, bias), wanted, strict=True):
        like = hidden if tensor is None else tensor
        dtype = torch.float32 if like.dtype == torch.float16 else like.dtype
        room.append(like.new_empty(like.shape if wants else (0,), dtype=dtype))
    return room[0], room[1], room[2]


def _rows(targets: Targets, part: slice) -> Targets:
    return Targets._make(f[part] if isinstance(f, Tensor) else f for f in targets)


def _shapes(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype, _, wanted = others[-3:]
    loss = hidden.new_empty((), dtype=torch.promote_types(dtype, torch.float32))
    return loss, loss.new_empty(2), *_empty(hidden, weight, bias, wanted)


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[2:])
    ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in inputs[:3]]
    ctx.wanted = inputs[-1]
    ctx.num_others = len(inputs) - 3


def _backward(ctx: Any, upstream: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError("linear_sparse_kl has no second derivative; leave out create_graph=True")
    if upstream is None:
        return tuple([None] * (3 + ctx.num_others))
    factor = upstream.reshape(1, 1)
    found = [
        scaled(gradient.view(-1, gradient.shape[-1]), factor).view_as(gradient).to(dtype)
        if wants
        else None
        for gradient, dtype, wants in zip(ctx.saved_tensors, ctx.dtypes, ctx.wanted, strict=True)
    ]
    return *found, *[None] * ctx.num_others


class _Eager(torch.autograd.Function):
    """The operator without torch.library, whose first call loads all of torch.compile."""

    forward = staticmethod(losses_and_gradients)
    setup_context = staticmethod(_keep_gradients)
    backward = staticmethod(_backward)


linear_sparse_kl_op = torch.library.custom_op(
    "softlabel::linear_sparse_kl",
    losses_and_gradients,
    mutates_args=(),
    schema=f"(Tensor hidden, Tensor weight, Tensor? bias, {_TARGETS}, float scale, "
    "Tensor? scale_tensor, SymInt chunk_rows, ScalarType dtype, str implementation, bool[3] wanted"
    ") -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
linear_sparse_kl_op.register_fake(_shapes)
linear_sparse_kl_op.register_autograd(_backward, setup_context=_keep_gradients)


def linear_sparse_kl(*arguments: Any) -> tuple[Tensor, ...]:
    """`losses_and_gradients`, with autograd: the first of its results is differentiable."""
    compiling = torch.compiler.is_compiling()
    found: tuple[Tensor, ...] = (linear_sparse_kl_op if compiling else _Eager.apply)(*arguments)
    return found
