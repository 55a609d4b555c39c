"""Every implementation of sparse_kl against the float64 definition."""

import itertools
import math

import pytest
import torch

from softlabel.kernels.sparse_kl import reference, sparse_kl, sparse_kl_grad
from softlabel.kernels.sparse_kl.targets import Targets, checked_targets

TAILS = ["bucket", "uniform", "renorm", "truncate", "subset"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
POISON = math.nan


def eager_error(logits, labels, exact, **options):
    """The largest errors that the definition itself makes in float32."""
    defaults = {"target": None, "soft_weight": 1.0, "hard_weight": 0.0, "label_smoothing": 0.0}
    given = Targets(*labels, **defaults | {"ignore_index": -100} | options)
    logits = logits.float().requires_grad_()
    loss = reference.sparse_kl(logits, checked_targets(given, logits.shape, logits.device)).total
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    return [(ours - theirs).abs().max() for ours, theirs in zip((loss, grad), exact, strict=True)]


def assert_accurate(logits, labels, *, backend, temperature, weight=None, **options):
    """As wrong as torch in float32, plus a few units in the last place, plus one rounding."""
    options |= {"temperature": temperature, "weight": weight}
    exact = sparse_kl_grad(logits.double(), *labels, backend="reference", **options)
    loss_error, grad_error = eager_error(logits, labels, exact, **options)
    out = torch.full_like(logits, POISON)
    loss, grad = sparse_kl_grad(logits, *labels, backend=backend, out=out, **options)
    assert grad is out
    C = options["num_classes"]
    assert grad[:, C:].eq(0).all()
    ulp = torch.finfo(torch.float32).eps * (1 if weight is None else weight.max().item())
    soft, hard = options.get("soft_weight", 1.0), options.get("hard_weight", 0.0)
    # A loss is made of logarithms as large as the logits' range, each rounded at its own size.
    z = logits[:, :C].double()
    size = soft * temperature**2 * torch.log_softmax(z / temperature, dim=1).abs().max()
    size += hard * torch.log_softmax(z, dim=1).abs().max()
    budget = loss_error + 4 * ulp * size
    error = (loss - exact[0]).abs().max()
    assert error <= budget, f"loss: error {error:.2e}, budget {budget:.2e}"
    # The interpreter truncates to bfloat16 where hardware rounds.
    info, truncates = torch.finfo(logits.dtype), backend == "triton" and not logits.is_cuda
    rounding = info.eps * (1.0 if truncates and logits.dtype == torch.bfloat16 else 0.5)
    budget = grad_error + 4 * ulp * (soft * temperature + hard)
    budget = budget + rounding * exact[1].abs() + info.tiny * info.eps
    excess = (grad - exact[1]).abs() - budget
    assert excess.max() <= 0, f"gradient: {excess.max():.2e} over budget"


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize(
    ("dtype", "temperature", "weighted"),
    [
        (torch.float32, 1.0, False),
        (torch.float32, 3.0, True),
        (torch.bfloat16, 1.0, True),
        (torch.float16, 3.0, False),
    ],
    ids=str,
)
@pytest.mark.parametrize(("classes", "width", "top_k"), [(37, 37, 1), (37, 40, 5), (11, 16, 11)])
def test_it_is_no_less_accurate_than_torch_in_float32(
    classes, width, top_k, weighted, temperature, dtype, tail, backend, device, make_labels
):
    torch.manual_seed(classes + top_k)
    logits = (3 * torch.randn(2, width)).to(dtype)
    labels = make_labels(3 * torch.randn(2, classes), top_k, temperature)
    weight = torch.tensor([0.0, 1.5], device=device) if weighted else None
    assert_accurate(
        logits.to(device),
        [label.to(device) for label in labels],
        backend=backend,
        tail=tail,
        temperature=temperature,
        weight=weight,
        num_classes=classes,
    )


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize(
    ("ahead", "dtype"),
    [
        (16.0, torch.float32),
        (25.0, torch.float32),
        (25.0, torch.bfloat16),
        (2000.0, torch.float32),
    ],
    ids=str,
)
def test_it_stays_accurate_as_the_student_grows_confident(
    ahead, dtype, tail, backend, device, make_labels
):
    torch.manual_seed(int(ahead))
    logits, teacher = torch.randn(2, 40), 2 * torch.randn(2, 40)
    labels = make_labels(teacher, 6, 2.0)
    logits.scatter_add_(1, labels[1][:, :4].long(), torch.full((2, 4), ahead))
    assert_accurate(
        logits.to(dtype).to(device),
        [label.to(device) for label in labels],
        backend=backend,
        tail=tail,
        temperature=2.0,
        num_classes=40,
    )


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("width", [1000, 32768, 40000])
def test_wide_rows_are_accurate_with_the_shipped_blocks(width, tail, triton_device, make_labels):
    torch.manual_seed(width)
    for backend, device in (("torch", "cpu"), ("triton", triton_device)):
        labels = make_labels(3 * torch.randn(2, width - 7), 16, 4.0)
        assert_accurate(
            (3 * torch.randn(2, width)).bfloat16().to(device),
            [label.to(device) for label in labels],
            backend=backend,
            tail=tail,
            temperature=4.0,
            num_classes=width - 7,
        )


def mixed_case(make_labels, *, temperature, padded, dtype, device):
    """Three rows of 13 classes in 16 columns, 4 stored: logits, labels, targets, weights."""
    torch.manual_seed(int(temperature) + 10 * padded)
    logits = 3 * torch.randn(3, 16)
    logits[:, 13:] = POISON
    labels = make_labels(3 * torch.randn(3, 13), 4, temperature)
    # The target is the best class stored, one not stored, and none at all.
    target = labels[1][:, 0].clone()
    target[1] = next(c for c in range(13) if c not in labels[1][1])
    target[2] = 7
    if padded:
        labels[1][0, 1] = labels[1][1, 0] = -1
        labels[0][0, 1] = POISON
    moved = (logits.to(dtype), *labels, target, torch.tensor([2.0, 0.5, 1.5]))
    logits, *labels, target, weight = (tensor.to(device) for tensor in moved)
    return logits, labels, {"target": target, "weight": weight, "ignore_index": 7}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize(
    ("dtype", "temperature", "soft_weight", "hard_weight", "smoothing", "padded"),
    [
        (torch.float32, 1.0, 1.0, 0.5, 0.0, False),
        (torch.float32, 1.0, 0.7, 1.3, 0.1, True),
        (torch.float32, 2.0, 1.0, 0.5, 0.1, False),
        (torch.float32, 3.0, 0.7, 1.3, 0.0, True),
        (torch.bfloat16, 1.0, 0.7, 1.3, 0.1, True),
        (torch.float16, 2.0, 1.0, 0.5, 0.1, False),
    ],
    ids=str,
)
def test_both_parts_together_are_no_less_accurate(
    temperature,
    soft_weight,
    hard_weight,
    smoothing,
    padded,
    dtype,
    tail,
    backend,
    device,
    make_labels,
):
    logits, labels, options = mixed_case(
        make_labels, temperature=temperature, padded=padded, dtype=dtype, device=device
    )
    assert_accurate(
        logits,
        labels,
        backend=backend,
        tail=tail,
        temperature=temperature,
        num_classes=13,
        soft_weight=soft_weight,
        hard_weight=hard_weight,
        label_smoothing=smoothing,
        **options,
    )


@pytest.mark.parametrize("tail", TAILS)
def test_rows_loaded_ahead_come_out_the_same(tail, triton_device, triton_form, make_labels):
    torch.manual_seed(0)
    logits = torch.randn(9, 24, device=triton_device).bfloat16()
    labels = [label.to(triton_device) for label in make_labels(torch.randn(9, 20), 4)]
    labels[1][4] = -1
    options = {"tail": tail, "num_classes": 20, "backend": "triton", "hard_weight": 0.5}
    options["target"] = torch.arange(9, device=triton_device)
    options["weight"] = torch.tensor([1.0, 0.0, 2.0] * 3, device=triton_device)
    triton_form("resident")
    wanted = sparse_kl_grad(logits, *labels, **options)
    triton_form("prefetch")
    assert all(map(torch.equal, sparse_kl_grad(logits, *labels, **options), wanted))
    ours = sparse_kl_grad(logits, *labels, out=logits, **options)
    assert all(map(torch.equal, ours, wanted))


@pytest.mark.slow
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0, 0.5, 1.7])
def test_every_combination_of_options_is_accurate(
    temperature, dtype, tail, backend, device, make_labels
):
    for padded, weighted, hard, smoothing in itertools.product(
        (False, True), (False, True), (0.0, 0.8), (0.0, 0.1)
    ):
        logits, labels, options = mixed_case(
            make_labels, temperature=temperature, padded=padded, dtype=dtype, device=device
        )
        if not weighted:
            del options["weight"]
        options |= {"hard_weight": hard, "label_smoothing": smoothing, "num_classes": 13}
        assert_accurate(
            logits, labels, backend=backend, tail=tail, temperature=temperature, **options
        )


@pytest.mark.slow
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("classes", "width", "top_k"),
    [
        (1, 1, 1),
        (2, 2, 1),
        (10, 10, 10),
        (19, 19, 18),
        (64, 64, 63),
        (127, 128, 33),
        (250, 256, 100),
    ],
)
def test_the_large_sweep_is_accurate(
    classes, width, top_k, dtype, tail, backend, device, make_labels
):
    torch.manual_seed(classes)
    for temperature in (0.5, 1.0, 2.0, 4.0, 8.0):
        for scale in (0.1, 3.0, 30.0):
            labels = make_labels(scale * torch.randn(4, classes), top_k, temperature)
            assert_accurate(
                (scale * torch.randn(4, width)).to(dtype).to(device),
                [label.to(device) for label in labels],
                backend=backend,
                tail=tail,
                temperature=temperature,
                weight=torch.rand(4, device=device),
                num_classes=classes,
            )


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_autograd_gives_the_same_as_the_gradient_form(
    reduction, tail, backend, device, make_labels
):
    torch.manual_seed(0)
    logits = torch.randn(4, 20, device=device, requires_grad=True)
    labels = [label.to(device) for label in make_labels(torch.randn(4, 17), 5)]
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5], device=device)
    options = {"tail": tail, "weight": weight, "num_classes": 17, "backend": backend}
    rows, plain = sparse_kl_grad(logits, *labels, **options)
    share = torch.tensor(1 / 3.5 if reduction == "mean" else 1.0, device=device)
    scaled, grad = sparse_kl_grad(logits, *labels, grad_scale=share, **options)
    assert torch.equal(scaled, rows)
    loss = sparse_kl(logits, *labels, reduction=reduction, **options)
    loss.sum().backward()
    assert logits.grad is not None
    assert torch.allclose(loss, rows if reduction == "none" else rows.sum() * share, rtol=1e-6)
    assert torch.allclose(logits.grad, grad, rtol=1e-6, atol=0)
    assert torch.allclose(grad, plain * share, rtol=1e-6, atol=4 * torch.finfo(grad.dtype).eps)


def test_the_gradient_follows_the_upstream_gradient_of_each_row(backend, device, make_labels):
    torch.manual_seed(0)
    logits = torch.randn(3, 9, device=device, dtype=torch.float16, requires_grad=True)
    labels = [label.to(device) for label in make_labels(torch.randn(3, 9), 4)]
    _, grad = sparse_kl_grad(logits, *labels, backend=backend)
    loss = sparse_kl(logits, *labels, backend=backend)
    upstream = torch.tensor([2.0, 0.0, -1.0], device=device)
    for _ in range(2):
        logits.grad = None
        (loss * upstream).sum().backward(retain_graph=True)
        assert torch.equal(logits.grad, grad * upstream[:, None].half())
