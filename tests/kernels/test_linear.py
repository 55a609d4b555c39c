"""linear_sparse_kl against a float64 layer with the reference's loss, by autograd."""

import pytest
import torch
from torch.nn import functional as F

from softlabel.kernels.sparse_kl import reference
from softlabel.kernels.sparse_kl.linear import linear_sparse_kl
from softlabel.kernels.sparse_kl.targets import Targets, checked_targets

B, D, W, C, K = 13, 24, 40, 37, 5
TAILS = ("bucket", "uniform", "renorm", "truncate", "subset")
BACKENDS = ("torch", "triton")


@pytest.fixture
def case(make_labels):
    """(dtype, ...) -> the layer's tensors, and the labels of its rows, by name."""

    def make(dtype=torch.float32, *, bias=True, temperature=1.0, device="cpu"):
        torch.manual_seed(5)
        layer = {"hidden": torch.randn(B, D), "weight": torch.randn(W, D) / D**0.5 * 3}
        if bias:
            layer["bias"] = torch.randn(W)
        labels = make_labels(2 * torch.randn(B, C), K, temperature)
        layer = {name: t.to(device, dtype).requires_grad_() for name, t in layer.items()}
        labels = zip(("topk_logit", "topk_class", "tail_lse"), labels, strict=True)
        return layer, {name: t.to(device) for name, t in labels}

    return make


def ours(layer, labels, **options):
    """Loss and gradients by name."""
    loss = linear_sparse_kl(
        layer["hidden"], layer["weight"], **labels, bias=layer.get("bias"), **options
    )
    names = [name for name, t in layer.items() if t.requires_grad]
    grads = torch.autograd.grad(loss, [layer[name] for name in names])
    return {"loss": loss.detach(), **dict(zip(names, grads, strict=True))}


def defined(layer, labels, *, dtype=torch.float64, reduction="mean", num_classes=None, **options):
    """The same with whole logits, their loss in float64: the layer as plain torch does it."""
    exact = {n: t.detach().to(dtype).requires_grad_() for n, t in layer.items()}
    logits = F.linear(exact["hidden"], exact["weight"], exact.get("bias"))
    given = Targets(
        topk_logit=labels["topk_logit"],
        topk_class=labels["topk_class"],
        tail_lse=labels["tail_lse"],
        target=options.get("target"),
        weight=options.get("row_weight"),
        temperature=options.get("temperature", 1.0),
        tail=options.get("tail", "bucket"),
        num_classes=num_classes or logits.shape[1],
        soft_weight=options.get("soft_weight", 1.0),
        hard_weight=options.get("hard_weight", 0.0),
        label_smoothing=options.get("label_smoothing", 0.0),
        ignore_index=options.get("ignore_index", -100),
    )
    targets = checked_targets(given, logits.shape, logits.device)
    loss = reference.sparse_kl(logits.double(), targets).total.sum()
    if reduction == "mean":
        loss = loss / (B if targets.weight is None else targets.weight.double().sum())
    loss.backward()
    return {"loss": loss.detach(), **{n: t.grad for n, t in exact.items()}}


def assert_no_worse_than_torch(found, layer, labels, dtype, **options):
    """The error of plain torch in this dtype, plus a few units in the last place."""
    exact = defined(layer, labels, **options)
    plain = defined(layer, labels, dtype=dtype, **options)
    for name, value in exact.items():
        largest = value.abs().max()
        unit = torch.finfo(found[name].dtype).eps * largest
        budget = 1.5 * (plain[name].double() - value).abs().max() + 4 * unit
        error = (found[name].double() - value).abs().max()
        assert error <= budget, f"{name}: error {error:.2e}, budget {budget:.2e}"


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("dtype", "chunk_rows", "bias"),
    [(torch.float32, 4, True), (torch.float32, B, False), (torch.bfloat16, 4, True)],
    ids=["float32", "one-chunk", "bfloat16"],
)
def test_loss_and_gradients_are_no_less_accurate_than_torchs(
    tail, backend, dtype, chunk_rows, bias, case, request
):
    device = request.getfixturevalue("triton_device") if backend == "triton" else "cpu"
    layer, labels = case(dtype, bias=bias, temperature=2.0, device=device)
    options = {"temperature": 2.0, "tail": tail, "num_classes": C}
    target = torch.arange(B, device=device).index_fill(0, torch.tensor(3, device=device), -100)
    options |= {"target": target, "hard_weight": 0.4, "label_smoothing": 0.1}
    bytes_ = chunk_rows * W * dtype.itemsize
    found = ours(layer, labels, **options, chunk_bytes=bytes_, backend=backend)
    assert found["loss"].dtype == torch.float32
    assert all(found[name].dtype == dtype for name in layer)
    assert torch.count_nonzero(found["weight"][C:]) == 0
    assert_no_worse_than_torch(found, layer, labels, dtype, **options)


@pytest.mark.parametrize("chunk_rows", [1, 2, 5, 12, 13, 100])
def test_any_chunk_size_is_as_exact_as_one_chunk(chunk_rows, case):
    layer, labels = case(torch.float64)
    options = {"tail": "bucket", "num_classes": C, "row_weight": torch.rand(B)}
    found = ours(layer, labels, **options, chunk_bytes=chunk_rows * W * 8)
    exact = defined(layer, labels, **options)
    for name, value in exact.items():
        # The mean's divisor, a sum of float32 weights, is float32.
        assert torch.allclose(found[name], value, rtol=1e-6, atol=1e-9), name


@pytest.mark.parametrize("chunk_rows", [4, 100])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_float16_keeps_small_gradients(chunk_rows, reduction, case):
    """Of 1 / 100,000 of a gradient float16 keeps next to nothing, until the loss scale comes."""
    layer, labels = case(torch.float16)
    options = {"num_classes": C, "reduction": reduction}
    if reduction == "mean":
        options["normalizer"] = 1e5
    loss = linear_sparse_kl(
        **layer, **labels, **options, chunk_bytes=chunk_rows * W * 2, backend="torch"
    )
    scale = 65536.0 if reduction == "mean" else 1.0
    (loss * scale).backward()
    exact = defined(layer, labels, num_classes=C, reduction="sum")
    for name in layer:
        wanted = exact[name] * (scale / 1e5 if reduction == "mean" else 1.0)
        found = layer[name].grad
        assert found.dtype == torch.float16
        error = (found.double() - wanted).abs().max() / wanted.abs().max()
        assert error < 2**-9, f"{name}: {error:.1e}"


@pytest.mark.parametrize("wanted", ["hidden", "weight", "bias", "hidden weight", "weight bias"])
def test_gradients_that_nobody_wants_are_not_made(wanted, case):
    layer, labels = case()
    exact = defined(layer, labels, num_classes=C)
    for name, tensor in layer.items():
        tensor.requires_grad_(name in wanted.split())
    loss = linear_sparse_kl(**layer, **labels, num_classes=C, chunk_bytes=4 * W * 4)
    loss.backward()
    for name, tensor in layer.items():
        if name in wanted.split():
            assert torch.allclose(tensor.grad.double(), exact[name], atol=1e-6)
        else:
            assert tensor.grad is None


def test_without_gradients_the_loss_is_the_same(case):
    layer, labels = case()
    with torch.no_grad():
        loss = linear_sparse_kl(**layer, **labels, num_classes=C)
    assert not loss.requires_grad
    assert torch.equal(loss, ours(layer, labels, num_classes=C)["loss"])


def test_equal_calls_give_equal_bits_and_losses_do_not_depend_on_chunks(case):
    layer, labels = case()
    first, second = (ours(layer, labels, num_classes=C, chunk_bytes=640) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_upstream_factors_scale_every_gradient_and_leave_the_graph_as_it_was(case):
    layer, labels = case()
    once = ours(layer, labels, num_classes=C)
    loss = linear_sparse_kl(**layer, **labels, num_classes=C)
    (loss * -3).backward(retain_graph=True)
    (loss * 5).backward()
    for name, tensor in layer.items():
        assert torch.allclose(tensor.grad, 2 * once[name], rtol=1e-5, atol=1e-7)


def test_rows_may_have_any_number_of_axes(case):
    layer, labels = case()
    flat = ours(layer, labels, num_classes=C)
    deep = {**layer, "hidden": layer["hidden"].detach().view(13, 1, D).requires_grad_()}
    shaped = {n: t.view(13, 1, *t.shape[1:]) for n, t in labels.items()}
    found = ours(deep, shaped, num_classes=C)
    assert found["hidden"].shape == (13, 1, D)
    assert all(torch.equal(found[n].flatten(), flat[n].flatten()) for n in flat)


def test_no_rows_at_all_are_a_loss_of_0_with_gradients_of_0(case):
    layer, labels = case()
    layer["hidden"] = layer["hidden"].detach()[:0].requires_grad_()
    found = ours(layer, {n: t[:0] for n, t in labels.items()}, num_classes=C)
    assert found["loss"] == 0
    assert found["hidden"].shape == (0, D)
    assert all(torch.count_nonzero(found[n]) == 0 for n in found)


def test_parts_are_reported_and_add_up(case):
    layer, labels = case()
    options = {"num_classes": C, "target": torch.arange(B), "hard_weight": 0.25}
    found = linear_sparse_kl(**layer, **labels, **options, soft_weight=0.5, return_parts=True)
    soft = linear_sparse_kl(**layer, **labels, num_classes=C)
    assert torch.allclose(found.soft, soft)
    assert torch.allclose(found.total, 0.5 * found.soft + 0.25 * found.hard)
    assert found.total.requires_grad
    assert not found.soft.requires_grad


def test_duplicates_can_be_merged(case):
    layer, labels = case()
    alike = dict(labels)
    again = [torch.cat([labels[n], labels[n][:, :1]], 1) for n in ("topk_logit", "topk_class")]
    alike["topk_logit"], alike["topk_class"] = again
    # The first class twice is the first class with twice the probability.
    once = dict(labels, topk_logit=labels["topk_logit"].float().clone())
    once["topk_logit"][:, 0] += torch.log(torch.tensor(2.0))
    merged = ours(layer, alike, num_classes=C, merge_duplicates=True)
    wanted = ours(layer, once, num_classes=C)
    assert all(torch.allclose(merged[n], wanted[n], atol=1e-5) for n in wanted)
