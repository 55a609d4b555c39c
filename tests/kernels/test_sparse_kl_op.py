"""What the public face of sparse_kl refuses, chooses and leaves unloaded."""

import os
import subprocess
import sys

import pytest
import torch

from softlabel.kernels.sparse_kl import sparse_kl, sparse_kl_grad


@pytest.fixture
def arguments(make_labels):
    torch.manual_seed(0)
    names = ("topk_logit", "topk_class", "tail_lse")
    labels = dict(zip(names, make_labels(torch.randn(3, 8), 4), strict=True))
    return {"logits": torch.randn(3, 8), **labels}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(())}, "logits must be"),
        ({"logits": torch.zeros(8)}, r"topk_logit must be \[4\] .* got \[3, 4\]"),
        ({"logits": torch.zeros(3, 8, dtype=torch.int32)}, "int32"),
        ({"logits": torch.zeros(8, 3).T}, "next to each other"),
        ({"topk_logit": torch.zeros(3, 4, dtype=torch.float64)}, "topk_logit must be"),
        ({"topk_logit": torch.zeros(2, 4)}, "topk_logit must be"),
        ({"topk_logit": torch.zeros(3, 0)}, r"topk_class must be \[3, 0\]"),
        ({"topk_logit": torch.zeros(3, 9)}, "0 <= stored classes <= num_classes .* got 9, 8, 8"),
        ({"topk_class": torch.zeros(3, 5, dtype=torch.int32)}, "topk_class must be"),
        ({"topk_class": torch.zeros(3, 4)}, "int16 or int32 or int64 or uint16 or uint32"),
        ({"tail_lse": torch.zeros(3, 1)}, "tail_lse must be"),
        ({"tail_lse": None}, "needs tail_lse"),
        ({"tail_lse": torch.zeros(3, device="meta")}, "on meta"),
        ({"weight": torch.zeros(2)}, "weight must be"),
        ({"num_classes": 9}, "num_classes"),
        ({"num_classes": 3}, "num_classes"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
        ({"temperature": float("inf")}, "temperature must be positive"),
        ({"tail": "truncated"}, "tail must be one of bucket, uniform, renorm, truncate, subset"),
        ({"tail": "truncate", "tail_lse": None}, "needs tail_lse"),
        ({"target": torch.zeros(3)}, "target must be .* int32 or int64"),
        ({"target": torch.zeros(2, dtype=torch.int64)}, r"target must be \[3\]"),
        ({"hard_weight": 1.0}, "hard_weight 1.0 needs target, got None"),
        ({"hard_weight": float("nan")}, "soft_weight and hard_weight must be finite"),
        ({"soft_weight": float("inf")}, "soft_weight and hard_weight must be finite"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in"),
        ({"label_smoothing": -0.1}, "label_smoothing must be in"),
        ({"backend": "cuda"}, "backend must be one of"),
        ({"logits": torch.zeros(3, 8).double(), "backend": "triton"}, "float64"),
    ],
)
@pytest.mark.parametrize("function", [sparse_kl, sparse_kl_grad])
def test_what_cannot_be_right_is_refused_with_what_was_wanted(function, change, message, arguments):
    with pytest.raises(ValueError, match=message):
        function(**arguments | change)


@pytest.mark.parametrize(
    "out",
    [
        torch.zeros(3, 9),
        torch.zeros(3, 8).half(),
        torch.zeros(8, 3).T,
        torch.zeros(1, 8).expand(3, 8),
        torch.zeros(1, 3, 8),
    ],
)
def test_an_out_that_cannot_hold_the_gradient_is_refused(out, arguments):
    with pytest.raises(ValueError, match="out must be like logits"):
        sparse_kl_grad(**arguments, out=out)


def test_an_unknown_reduction_is_refused(arguments):
    with pytest.raises(ValueError, match="reduction must be none, mean or sum"):
        sparse_kl(**arguments, reduction="batchmean")


def test_renorm_needs_no_tail(arguments):
    wanted = sparse_kl(**arguments, tail="renorm")
    assert torch.equal(sparse_kl(**arguments | {"tail_lse": None}, tail="renorm"), wanted)


def test_tensors_on_the_cpu_take_the_torch_backend(arguments):
    wanted = sparse_kl_grad(**arguments, backend="torch")
    assert all(map(torch.equal, sparse_kl_grad(**arguments), wanted))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "sum", "normalizer": 2.0}, "normalizer belongs to reduction 'mean'"),
        ({"reduction": "mean", "normalizer": 0.0}, "normalizer must be positive and finite"),
        ({"reduction": "mean", "normalizer": torch.ones(2)}, r"one float32 element .* got \[2\]"),
        ({"reduction": "mean", "normalizer": torch.ones((), dtype=torch.int32)}, "int32"),
    ],
)
def test_an_impossible_normalizer_is_refused(options, message, arguments):
    with pytest.raises(ValueError, match=message):
        sparse_kl(**arguments, **options)


def test_an_impossible_grad_scale_is_refused(arguments):
    with pytest.raises(ValueError, match="grad_scale must be a number or one float32 element"):
        sparse_kl_grad(**arguments, grad_scale=torch.ones(3))


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


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("given", [4.0, torch.tensor(4.0), torch.tensor([4.0])])
def test_a_normalizer_takes_the_place_of_the_weights(given, backend, arguments):
    arguments |= {"weight": torch.tensor([1.0, 2.0, 0.5]), "backend": backend}
    arguments["logits"].requires_grad_()
    losses = sparse_kl(**arguments, reduction="mean", normalizer=given, return_parts=True)
    rows, grad = sparse_kl_grad(**arguments, grad_scale=0.25)
    losses.total.backward()
    assert losses.total.item() == pytest.approx(rows.sum().item() / 4)
    assert losses.soft.item() == losses.total.item()
    assert torch.allclose(arguments["logits"].grad, grad, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_rows_may_have_any_number_of_dimensions(backend, make_labels):
    torch.manual_seed(0)
    logits = torch.randn(6, 8)
    rows = [*make_labels(torch.randn(6, 8), 4), torch.arange(6), torch.rand(6)]
    wanted = call(logits, rows, backend=backend)
    shaped = [tensor.reshape(2, 3, *tensor.shape[1:]) for tensor in rows]
    for given in (logits.reshape(2, 3, 8), logits.reshape(3, 2, 8).transpose(0, 1)):
        loss, grad = call(given, shaped, backend=backend)
        assert loss.shape == (2, 3)
        assert grad.shape == (2, 3, 8)
    loss, grad = call(logits.reshape(2, 3, 8), shaped, backend=backend)
    assert torch.equal(loss.reshape(6), wanted[0])
    assert torch.equal(grad.reshape(6, 8), wanted[1])
    loss, grad = call(logits[1], [tensor[1] for tensor in rows], backend=backend)
    assert torch.allclose(loss, wanted[0][1])
    assert torch.allclose(grad, wanted[1][1])
    out = logits.reshape(2, 3, 8).clone()
    assert call(out, shaped, backend=backend, out=out)[1] is out
    assert torch.equal(out.reshape(6, 8), wanted[1])


def call(logits, rows, **options):
    topk_logit, topk_class, tail_lse, target, weight = rows
    return sparse_kl_grad(
        logits, topk_logit, topk_class, tail_lse, target=target, weight=weight, hard_weight=0.5,
        **options,
    )  # fmt: skip


def test_autocast_does_not_change_the_numbers(arguments):
    wanted = sparse_kl_grad(**arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(map(torch.equal, sparse_kl_grad(**arguments), wanted))


def test_triton_and_the_compiler_are_loaded_only_where_they_run():
    code = (
        "import sys, torch; from softlabel.kernels.sparse_kl import sparse_kl;"
        "rows = torch.zeros(1, 3), torch.zeros(1, 2), torch.tensor([[0, 1]]), torch.zeros(1);"
        "sparse_kl(rows[0].requires_grad_(), *rows[1:]).sum().backward();"
        "print('triton' in sys.modules, 'torch._dynamo' in sys.modules);"
        "sparse_kl(*rows, backend='triton')"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment
    )
    assert result.stdout == "False False\n"
    assert "backend 'triton' needs CUDA tensors, got cpu" in result.stderr
