"""linear_sparse_kl as an operator: refusals, memory, autocast and torch.compile."""

import pytest
import torch
from torch.nn import functional as F

from softlabel.kernels.sparse_kl.linear import _chunk_rows, linear_sparse_kl
from softlabel.kernels.sparse_kl.linear_op import linear_sparse_kl_op
from softlabel.kernels.sparse_kl.op import sparse_kl

B, D, W, C, K = 6, 8, 24, 21, 4


@pytest.fixture
def arguments(make_labels):
    torch.manual_seed(0)
    names = ("topk_logit", "topk_class", "tail_lse")
    labels = dict(zip(names, make_labels(torch.randn(B, C), K), strict=True))
    layer = {"hidden": torch.randn(B, D), "weight": torch.randn(W, D), "bias": torch.randn(W)}
    return {n: t.requires_grad_() for n, t in layer.items()} | labels | {"num_classes": C}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reduction": "none"}, "reduction must be mean or sum.*row_weight"),
        ({"hidden": torch.zeros(B, D + 1)}, r"wanted hidden \[\.\.\., D\].*\[6, 9\], \[24, 8\]"),
        ({"hidden": torch.tensor(1.0)}, "wanted hidden"),
        ({"bias": torch.zeros(W - 1)}, r"\[23\]"),
        ({"weight": torch.zeros(W, D).bfloat16()}, "of one dtype.*float32 on cpu, bfloat16 on cpu"),
        ({"hidden": torch.zeros(B, D, dtype=torch.int32)}, "floating point"),
        ({"weight": torch.zeros(W, D, device="meta")}, "on one device.*meta"),
        ({"topk_logit": torch.zeros(B + 1, K)}, "topk_logit must be"),
        ({"tail_lse": None}, "needs tail_lse"),
        ({"row_weight": torch.zeros(2)}, "weight must be"),
        ({"hard_weight": 1.0}, "needs target"),
        ({"num_classes": W + 1}, "num_classes"),
        ({"chunk_bytes": 0}, "chunk_bytes must be positive"),
        ({"reduction": "sum", "normalizer": 3.0}, "belongs to reduction 'mean'"),
        ({"normalizer": 0.0}, "normalizer must be positive"),
        ({"backend": "cuda"}, "backend must be one of"),
    ],
)
def test_what_cannot_be_right_is_refused_with_what_was_wanted(change, message, arguments):
    with pytest.raises(ValueError, match=message):
        linear_sparse_kl(**arguments | change)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_a_class_that_does_not_exist_is_an_error_in_any_chunk(backend, arguments):
    arguments["topk_class"][B - 1, 0] = C
    with pytest.raises((IndexError, RuntimeError)):
        linear_sparse_kl(**arguments, backend=backend, chunk_bytes=2 * W * 4)


def test_a_second_derivative_is_refused(arguments):
    loss = linear_sparse_kl(**arguments)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, arguments["hidden"], create_graph=True)


@pytest.mark.parametrize(
    ("rows", "most", "wanted"),
    [(0, 4, 1), (1, 4, 1), (10, 10, 10), (10, 9, 5), (10, 4, 4), (1000, 300, 256), (512, 200, 192)],
)
def test_chunks_are_even_and_whole_tiles_where_that_fits(rows, most, wanted):
    assert _chunk_rows(rows, 100, most * 100) == wanted
    assert _chunk_rows(5, 100, 1) == 1


def most_allocated(rows, chunk_bytes, dtype):
    """Bytes of the largest tensor made, with 1,000 classes and a layer that is small itself."""
    width, features = 1000, 4
    hidden, weight = (torch.randn(n, features).to(dtype).requires_grad_() for n in (rows, width))
    stored = torch.zeros(rows, K), torch.arange(rows * K).view(rows, K) % width, torch.zeros(rows)
    with torch.profiler.profile(profile_memory=True) as profile:
        linear_sparse_kl(hidden, weight, *stored, chunk_bytes=chunk_bytes).backward()
    return max(event.self_cpu_memory_usage for event in profile.events())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_never_in_memory_as_a_whole(dtype):
    logits = 256 * 1000 * dtype.itemsize
    chunk = logits // 16
    # On the CPU the kernel works in float32.
    assert most_allocated(256, chunk, dtype) <= chunk * 4 / dtype.itemsize
    # All at once they would be: what is measured is what is meant.
    assert most_allocated(256, logits, dtype) >= logits


@pytest.mark.parametrize("hidden_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk_bytes", [2 * W * 2, 1 << 20])
def test_autocast_computes_what_linear_would(hidden_dtype, chunk_bytes, arguments):
    """But gradients to float32 weights have not been bfloat16 on their way."""
    layer = [arguments.pop(name) for name in ("hidden", "weight", "bias")]
    layer[0] = layer[0].detach().to(hidden_dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_sparse_kl(*layer[:2], **arguments, bias=layer[2], chunk_bytes=chunk_bytes)
        logits = F.linear(*layer)
    whole = sparse_kl(logits, **arguments, reduction="mean")
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
    found, wanted = torch.autograd.grad(loss, layer), torch.autograd.grad(whole, layer)
    for one, other, tensor in zip(found, wanted, layer, strict=True):
        assert one.dtype == tensor.dtype
        assert torch.allclose(one, other, rtol=2**-6, atol=2**-8 * float(other.abs().max()))
    rounded = found[1].bfloat16().float()
    assert not torch.equal(found[1], rounded)


def test_autocast_leaves_float64_alone(arguments):
    layer = {n: arguments.pop(n).detach().double() for n in ("hidden", "weight", "bias")}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_sparse_kl(**layer, **arguments)
    assert loss.dtype == torch.float64
    assert torch.equal(loss, linear_sparse_kl(**layer, **arguments))


@pytest.mark.parametrize("normalizer", ["number", "tensor", "weights", "rows"])
def test_it_compiles_as_one_graph(normalizer, arguments):
    match normalizer:
        case "number":
            arguments["normalizer"] = 7.0
        case "tensor":
            arguments["normalizer"] = torch.tensor(7.0)
        case "weights":
            arguments["row_weight"] = torch.tensor([1.0, 0.0, 2.0, 1.0, 0.5, 1.0])
    names = ("hidden", "weight", "bias")
    layer = {name: arguments.pop(name) for name in names}

    def step(hidden, weight, bias):
        loss = linear_sparse_kl(
            hidden.relu(), weight, bias=bias, **arguments, chunk_bytes=2 * W * 4
        )
        return loss * 3

    eager = torch.autograd.grad(step(**layer), list(layer.values()))
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(**layer), list(layer.values()))
    for one, other in zip(found, eager, strict=True):
        assert torch.allclose(one, other, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # opcheck's own
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("wanted", [[True, True, True], [False, True, False]])
def test_the_operator_keeps_its_promises(dtype, wanted, arguments):
    layer = [arguments[n].detach().to(dtype) for n in ("hidden", "weight", "bias")]
    layer = [t.requires_grad_(w) for t, w in zip(layer, wanted, strict=True)]
    labels = [arguments[name] for name in ("topk_logit", "topk_class", "tail_lse")]
    options = [None, None, 1.0, "bucket", C, 1.0, 0.0, 0.0, -100, 0.5, None, 2, dtype, "torch"]
    torch.library.opcheck(linear_sparse_kl_op, (*layer, *labels, *options, wanted))
