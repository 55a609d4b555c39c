"""Every implementation of sparse_kl against the float64 definition."""

import math

import pytest
import torch

from softlabel.kernels.sparse_kl import reference, sparse_kl, sparse_kl_grad

TAILS = ["bucket", "uniform", "renorm"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
POISON = math.nan


def eager_error(logits, labels, exact, *, num_classes, tail, **options):
    """The largest errors that the definition itself makes in float32."""
    if labels[0].shape[1] == num_classes:
        tail = "renorm"
    labels = labels if tail != "renorm" else (*labels[:2], None)
    logits = logits.float().requires_grad_()
    loss = reference.sparse_kl(logits, *labels, num_classes=num_classes, tail=tail, **options)
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
    assert grad[:, options["num_classes"] :].eq(0).all()
    ulp = torch.finfo(torch.float32).eps * (1 if weight is None else weight.max().item())
    # A loss is made of logarithms as large as the logits' range, each rounded at its own size.
    size = temperature**2 * torch.log_softmax(logits.double() / temperature, dim=1).abs().max()
    budget = loss_error + 4 * ulp * size
    error = (loss - exact[0]).abs().max()
    assert error <= budget, f"loss: error {error:.2e}, budget {budget:.2e}"
    # The interpreter truncates to bfloat16 where hardware rounds.
    info, truncates = torch.finfo(logits.dtype), backend == "triton" and not logits.is_cuda
    rounding = info.eps * (1.0 if truncates and logits.dtype == torch.bfloat16 else 0.5)
    budget = grad_error + 4 * ulp * temperature + rounding * exact[1].abs() + info.tiny * info.eps
    excess = (grad - exact[1]).abs() - budget
    assert excess.max() <= 0, f"gradient: {excess.max():.2e} over budget"


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("temperature", "weighted"), [(1.0, False), (3.0, True)])
@pytest.mark.parametrize(
    ("classes", "width", "top_k"), [(37, 37, 1), (37, 40, 5), (11, 16, 11), (19, 19, 18)]
)
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
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("ahead", [16.0, 25.0, 2000.0])
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


@pytest.mark.slow
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("classes", "width", "top_k"),
    [(1, 1, 1), (2, 2, 1), (10, 10, 10), (64, 64, 63), (127, 128, 33), (250, 256, 100)],
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
    rows, grad = sparse_kl_grad(logits, *labels, **options)
    share = {"none": 1.0, "sum": 1.0, "mean": 1 / 3.5}[reduction]
    loss = sparse_kl(logits, *labels, reduction=reduction, **options)
    loss.sum().backward()
    assert logits.grad is not None
    assert torch.allclose(loss, rows if reduction == "none" else rows.sum() * share, rtol=1e-6)
    assert torch.allclose(logits.grad, grad * share, rtol=1e-6, atol=0)


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


def test_grad_scale_is_applied_before_rounding(backend, device, make_labels):
    torch.manual_seed(0)
    logits = torch.zeros(1, 500, device=device, dtype=torch.float16)
    labels = [label.to(device) for label in make_labels(torch.randn(1, 500), 1)]
    weight = torch.full((1,), 2.0**-14, device=device)
    options = {"tail": "renorm", "weight": weight}
    # Unscaled, a gradient of 2**-14 / 500 is two units of float16's last place.
    loss, grad = sparse_kl_grad(logits, *labels, backend=backend, grad_scale=2.0**14, **options)
    exact, exact_grad = sparse_kl_grad(logits.double(), *labels, backend="reference", **options)
    assert torch.allclose(loss.double(), exact, rtol=1e-6, atol=0)
    assert torch.allclose(grad.double(), exact_grad * 2**14, rtol=2**-10, atol=0)


@pytest.mark.parametrize("name", ["torch", "reference"])
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("top_k", [1, 4, 7])
def test_the_float64_gradient_is_that_of_central_differences(name, tail, top_k, make_labels):
    torch.manual_seed(top_k)
    labels = make_labels(2 * torch.randn(3, 7), top_k, 2.0)
    options = {"temperature": 2.0, "tail": tail, "num_classes": 7, "backend": name}
    options["weight"] = torch.tensor([0.5, 0.0, 2.0])
    logits = 2 * torch.randn(3, 9, dtype=torch.float64)
    _, grad = sparse_kl_grad(logits, *labels, **options)
    for column, step in enumerate(1e-5 * torch.eye(9, dtype=torch.float64)):
        above, below = (sparse_kl(logits + s, *labels, **options) for s in (step, -step))
        assert ((above - below) / 2e-5 - grad[:, column]).abs().max() <= 1e-8
