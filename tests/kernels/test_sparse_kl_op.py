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
        ({"logits": torch.zeros(8)}, "logits must be"),
        ({"logits": torch.zeros(3, 8, dtype=torch.int32)}, "int32"),
        ({"logits": torch.zeros(8, 3).T}, "next to each other"),
        ({"topk_logit": torch.zeros(3, 4, dtype=torch.float64)}, "topk_logit must be"),
        ({"topk_logit": torch.zeros(2, 4)}, "topk_logit must be"),
        ({"topk_logit": torch.zeros(3, 0)}, "1 <= stored classes"),
        ({"topk_class": torch.zeros(3, 5, dtype=torch.int32)}, "topk_class must be"),
        ({"topk_class": torch.zeros(3, 4)}, "uint16 or uint32 or int32 or int64"),
        ({"tail_lse": torch.zeros(3, 1)}, "tail_lse must be"),
        ({"tail_lse": None}, "needs tail_lse"),
        ({"tail_lse": torch.zeros(3, device="meta")}, "on meta"),
        ({"weight": torch.zeros(2)}, "weight must be"),
        ({"num_classes": 9}, "num_classes"),
        ({"num_classes": 3}, "num_classes"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
        ({"temperature": float("inf")}, "temperature must be positive"),
        ({"tail": "truncated"}, "tail must be one of bucket, uniform, renorm"),
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


def test_a_second_derivative_is_refused(arguments):
    arguments["logits"].requires_grad_()
    loss = sparse_kl(**arguments, reduction="sum")
    with pytest.raises(RuntimeError, match="no second derivative"):
        loss.backward(create_graph=True)


def test_autocast_does_not_change_the_numbers(arguments):
    wanted = sparse_kl_grad(**arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(map(torch.equal, sparse_kl_grad(**arguments), wanted))


def test_triton_is_loaded_only_where_it_runs_and_refuses_the_cpu():
    code = (
        "import sys, torch; from softlabel.kernels.sparse_kl import sparse_kl;"
        "rows = torch.zeros(1, 3), torch.zeros(1, 2), torch.tensor([[0, 1]]), torch.zeros(1);"
        "sparse_kl(*rows); print('triton' in sys.modules); sparse_kl(*rows, backend='triton')"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment
    )
    assert result.stdout == "False\n"
    assert "backend 'triton' needs CUDA tensors, got cpu" in result.stderr
