"""sparse_kl under torch.compile, and the ways in which autograd may run its backward."""

import pytest
import torch

from softlabel.kernels.sparse_kl import sparse_kl, sparse_kl_grad

TARGETS = ("topk_logit", "topk_class", "tail_lse", "target", "weight")


@pytest.fixture
def options(make_labels):
    torch.manual_seed(0)
    labels = make_labels(torch.randn(4, 8), 3)
    labels[1][1, 2] = -1
    target, weight = torch.tensor([1, 7, -100, 0]), torch.tensor([1.0, 0.5, 2.0, 0.0])
    given = dict(zip(TARGETS, (*labels, target, weight), strict=True))
    return given | {"tail": "uniform", "temperature": 2.0, "hard_weight": 0.5, "num_classes": 8}


@pytest.fixture
def compiled():
    """`compiled(function, backend)`, of one graph, with nothing left behind."""
    torch.compiler.reset()
    yield lambda function, backend="aot_eager": torch.compile(
        function, fullgraph=True, backend=backend
    )
    torch.compiler.reset()


def loss_and_gradient(function, logits):
    logits = logits.clone().requires_grad_()
    loss = function(logits)
    (3 * loss.sum()).backward()
    return loss.detach(), logits.grad


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_one_graph_gives_the_same_numbers(reduction, options, compiled):
    def function(logits):
        return sparse_kl(2 * logits, reduction=reduction, **options)

    logits = torch.randn(4, 9)
    wanted = loss_and_gradient(function, logits)
    assert all(map(torch.equal, loss_and_gradient(compiled(function), logits), wanted))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["mean", "rows"])
def test_inductor_gives_the_same_numbers(mode, options, compiled):
    if mode == "mean":
        options["normalizer"] = torch.tensor(7.0)

    def function(logits):
        return sparse_kl(2 * logits, reduction="none" if mode == "rows" else "mean", **options)

    logits = torch.randn(4, 9)
    wanted = loss_and_gradient(function, logits)
    for ours, other in zip(
        loss_and_gradient(compiled(function, "inductor"), logits), wanted, strict=True
    ):
        assert torch.allclose(ours, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("in_place", [False, True])
def test_the_gradient_form_compiles_too(in_place, options, compiled):
    def function(logits):
        logits = 2 * logits
        return sparse_kl_grad(logits, out=logits if in_place else None, **options)

    logits = torch.randn(4, 9)
    wanted = function(logits)
    assert all(map(torch.equal, compiled(function)(logits), wanted))


def test_another_batch_size_needs_no_other_answer(options, compiled):
    function = compiled(lambda logits, options: sparse_kl(logits, reduction="mean", **options))
    for rows in (4, 3, 2):
        some = {k: v[:rows] if isinstance(v, torch.Tensor) else v for k, v in options.items()}
        logits = torch.randn(rows, 9)
        assert torch.equal(function(logits, some), sparse_kl(logits, reduction="mean", **some))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own doing
def test_torch_finds_nothing_wrong_with_the_operators(options):
    targets = [options[name] for name in TARGETS]
    settings = [2.0, "uniform", 8, 1.0, 0.5, 0.1, -100]
    for reduction in ("none", "mean"):
        logits = torch.randn(4, 9, requires_grad=True)
        torch.library.opcheck(
            torch.ops.softlabel.sparse_kl.default,
            (logits, *targets, *settings, "torch", reduction, None, None),
        )
    for logits in (torch.randn(4, 9), None):
        torch.library.opcheck(
            torch.ops.softlabel.sparse_kl_grad_.default,
            (logits, *targets, *settings, "torch", 1.0, None, torch.randn(4, 9)),
        )


def test_backward_may_be_repeated_and_adds_up(options):
    logits = torch.randn(4, 9, requires_grad=True)
    loss = sparse_kl(logits, reduction="sum", **options)
    (first,) = torch.autograd.grad(5 * loss, logits, retain_graph=True)
    (again,) = torch.autograd.grad(5 * loss, logits, retain_graph=True)
    assert torch.equal(first, again)
    (alone,) = torch.autograd.grad(loss, logits)
    assert torch.equal(first, 5 * alone)


def test_the_last_backward_scales_what_was_saved_in_place(options):
    logits = torch.randn(4, 9, requires_grad=True)
    for factor in (1.0, 5.0):
        loss = sparse_kl(logits, reduction="sum", **options)
        (saved,) = loss.grad_fn.saved_tensors
        (gradient,) = torch.autograd.grad(factor * loss, logits)
        assert gradient.data_ptr() == saved.data_ptr()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_second_derivative_is_refused(reduction, options):
    logits = torch.randn(4, 9, requires_grad=True)
    loss = sparse_kl(logits, reduction=reduction, **options)
    with pytest.raises(RuntimeError, match="no second derivative"):
        loss.backward(create_graph=True)


def test_the_gradient_comes_from_the_total_only(options):
    logits = torch.randn(4, 9, requires_grad=True)
    losses = sparse_kl(logits, return_parts=True, **options)
    assert losses.total.requires_grad
    assert not losses.soft.requires_grad
    assert not losses.hard.requires_grad
