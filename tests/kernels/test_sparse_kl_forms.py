"""Each form of the triton kernels on drawn calls, all features mixed, against float64."""

import random

import pytest
import torch

from softlabel.kernels.sparse_kl import sparse_kl, sparse_kl_grad

TAILS = ["bucket", "uniform", "renorm", "truncate", "subset"]


def drawn(seed, make_labels):
    """Five rows (more than the interpreter's two multiprocessors) and what is asked of them."""
    rng, B = random.Random(seed), 5
    torch.manual_seed(seed)
    C = rng.choice([17, 37, 64])
    K, T = rng.choice([1, 2, 5]), rng.choice([1.0, 2.0, 4.0, 3.0, 8.0, 1.5, 0.5])
    logits = 3 * torch.randn(B, C + rng.choice([0, 3]))
    topk_logit, topk_class, tail_lse = make_labels(3 * torch.randn(B, C), K, T)
    logits[0].scatter_add_(0, topk_class[0].long(), torch.full((K,), rng.choice([0.0, 9.0, 30.0])))
    topk_class[1, K - 1] = -1
    topk_class[2] = -1
    target = torch.randint(0, C, (B,))
    target[0], target[3] = topk_class[0, 0], -100
    options = {
        "temperature": T,
        "tail": TAILS[seed % 5],
        "num_classes": C,
        "target": target,
        "soft_weight": rng.choice([1.0, 0.3, 0.0]),
        "hard_weight": rng.choice([0.7, 0.7, 0.0]),
        "label_smoothing": rng.choice([0.0, 0.1]),
        "weight": rng.choice([None, torch.tensor([1.0, 0.5, 2.0, 0.25, 0.0])]),
        "grad_scale": rng.choice([0.25, torch.tensor(4.0)]),
    }
    return logits, (topk_logit, topk_class, tail_lse), options


@pytest.mark.parametrize("form", ["rows", "resident", "prefetch", "stream"])
@pytest.mark.parametrize("seed", range(15))
def test_whatever_is_mixed_the_numbers_are_those_of_the_definition(
    seed, form, triton_form, triton_device, make_labels
):
    logits, labels, options = drawn(seed, make_labels)
    exact = sparse_kl_grad(
        logits.double(), *labels, backend="reference", return_parts=True, **options
    )
    triton_form(form)
    moved = {
        k: v.to(triton_device) if isinstance(v, torch.Tensor) else v for k, v in options.items()
    }
    work = logits.to(triton_device)
    # In place every other time: then nothing tells the gradient's memory from the logits'.
    out = work if seed % 2 else torch.full_like(work, torch.nan)
    losses, grad = sparse_kl_grad(
        work,
        *(label.to(triton_device) for label in labels),
        backend="triton",
        return_parts=True,
        out=out,
        **moved,
    )
    T, C = options["temperature"], options["num_classes"]
    # Losses are sums of logarithms as large as the logits' range, each rounded at its own size.
    scaled = logits[:, :C].double()
    size = T**2 * (1 + torch.log_softmax(scaled / T, 1).abs().max())
    size += torch.log_softmax(scaled, 1).abs().max()
    for name, ours, theirs in zip(("total", "soft", "hard"), losses, exact[0], strict=True):
        error = (ours.cpu() - theirs).abs().max() / size
        assert error <= 1e-6, f"{name}: error {error:.1e} of its size"
    scale = T * float(options["grad_scale"])
    error = (grad.cpu() - exact[1]).abs().max() / scale
    assert error <= 2e-6, f"gradient: error {error:.1e}"
    assert grad[:, C:].eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "factor", [[0.5, 1.0, -2.0], [4.0], [1.0]], ids=["rows", "one", "nothing to do"]
)
def test_saved_gradients_are_scaled_where_they_lie(factor, dtype, triton_device):
    from softlabel.kernels.sparse_kl.gpu.launch import scale_rows

    torch.manual_seed(0)
    memory = torch.randn(3, 9000, device=triton_device).to(dtype)
    factors = torch.tensor(factor, device=triton_device)
    wanted = memory.clone()
    wanted[:, :8500] *= factors.to(dtype)[:, None]
    scale_rows(memory[:, :8500], factors)
    assert torch.equal(memory, wanted)


@pytest.mark.parametrize("tail", TAILS)
def test_a_teacher_that_is_no_number_shows_in_the_loss(tail, backend, device, make_labels):
    torch.manual_seed(0)
    labels = [label.to(device) for label in make_labels(torch.randn(3, 20), 4)]
    labels[0][1, 2] = torch.nan
    logits = torch.randn(3, 20, device=device)
    loss, grad = sparse_kl_grad(logits, *labels, tail=tail, backend=backend)
    assert loss.isnan().tolist() == [False, True, False]
    assert grad[1].isnan().any()
    assert grad[::2].isfinite().all()


def test_a_mean_in_float16_waits_for_the_loss_scale(backend, device, make_labels):
    torch.manual_seed(0)
    labels = [label.to(device) for label in make_labels(torch.randn(3, 90), 4)]
    logits = torch.randn(3, 90, device=device, dtype=torch.float16, requires_grad=True)
    # Divided before, an entry of 1e-3 / 2**13 would be two units of float16's last place.
    normalizer = torch.tensor(2.0**13, device=device)
    loss = sparse_kl(logits, *labels, reduction="mean", normalizer=normalizer, backend=backend)
    (loss * 2.0**13).backward()
    assert logits.grad is not None
    _, exact = sparse_kl_grad(logits.double(), *labels, backend="reference")
    error = (logits.grad.double() - exact).norm() / exact.norm()
    assert error <= 2**-11


def test_a_loss_that_nobody_asks_for_has_no_gradient(backend, device, make_labels):
    class Dropped(torch.autograd.Function):
        @staticmethod
        def forward(ctx, loss):
            return loss.clone()

        @staticmethod
        def backward(ctx, upstream):
            return None

    labels = [label.to(device) for label in make_labels(torch.randn(3, 20), 4)]
    logits = torch.randn(3, 20, device=device, requires_grad=True)
    Dropped.apply(sparse_kl(logits, *labels, backend=backend, reduction="mean")).backward()
    assert logits.grad is None or logits.grad.eq(0).all()
