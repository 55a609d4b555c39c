"""What holds for any rows, whatever implements sparse_kl."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from softlabel.kernels.sparse_kl import sparse_kl_grad

EPS = torch.finfo(torch.float32).eps


@st.composite
def cases(draw, make_labels, with_hard):
    """Student and teacher logits [2, C] of one scale, and what is to be asked of them."""
    classes = draw(st.integers(2, 40))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([0.5, 3.0, 12.0]))
    temperature = draw(st.sampled_from([0.5, 1.0, 2.0, 4.0]))
    logits, teacher = scale * torch.randn(2, 2, classes)
    labels = make_labels(teacher, draw(st.integers(1, classes)), temperature)
    options = {"temperature": temperature, "tail": draw(st.sampled_from(TAILS))}
    hard = {"hard_weight": 1.0, "label_smoothing": draw(st.sampled_from([0.0, 0.1]))}
    hard["target"] = torch.randint(classes, (2,))
    # A row's terms, and so their rounding errors, are as large as this.
    size = temperature**2 * (1 + torch.log_softmax(logits / temperature, dim=1).abs().max().item())
    if with_hard and draw(st.booleans()):
        options |= hard
        size += 1 + torch.log_softmax(logits, dim=1).abs().max().item()
    return logits, teacher, labels, options, 16 * EPS * size


TAILS = ["bucket", "uniform", "renorm", "truncate", "subset"]


@pytest.fixture
def check(backend, device, make_labels):
    """Run `holds(call, logits, teacher, labels, options, tolerance)` on many cases."""

    def call(logits, labels, **options):
        labels = [label.to(device) for label in labels]
        options = {k: v.to(device) if torch.is_tensor(v) else v for k, v in options.items()}
        loss, grad = sparse_kl_grad(logits.to(device), *labels, backend=backend, **options)
        return loss.cpu(), grad.cpu()

    def run(holds, *, with_hard=False):
        @settings(
            max_examples=4 if backend == "triton" else 40,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],  # shrinking a failure would take minutes in the interpreter
            suppress_health_check=list(HealthCheck),
        )
        @given(cases(make_labels, with_hard))
        def each(case):
            holds(call, *case)

        each()

    return run


def test_a_gradient_row_sums_to_zero(check):
    def holds(call, logits, teacher, labels, options, tolerance):
        _, grad = call(logits, labels, **options)
        assert grad.sum(dim=1).abs().max() <= tolerance

    check(holds, with_hard=True)


def test_the_loss_is_never_negative_and_bucket_is_at_most_uniform(check):
    def holds(call, logits, teacher, labels, options, tolerance):
        bucket, uniform, renorm, _, subset = (
            call(logits, labels, **options | {"tail": tail})[0] for tail in TAILS
        )
        assert min(loss.min() for loss in (bucket, uniform, renorm, subset)) >= -tolerance
        assert (bucket <= uniform + tolerance).all()

    check(holds)


def test_with_every_class_stored_it_is_the_dense_kl(check, make_labels):
    def holds(call, logits, teacher, labels, options, tolerance):
        T = options["temperature"]
        labels = make_labels(teacher, teacher.shape[1], T)
        dense = torch.full_like(teacher, torch.nan).scatter(1, labels[1].long(), labels[0].float())
        log_p = torch.log_softmax(dense.double() / T, dim=1)
        log_q = torch.log_softmax(logits.double() / T, dim=1)
        exact = T**2 * F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(dim=1)
        assert (call(logits, labels, **options)[0] - exact).abs().max() <= tolerance

    check(holds)


def test_the_order_of_the_stored_classes_does_not_matter(check):
    def holds(call, logits, teacher, labels, options, tolerance):
        order = torch.randperm(labels[0].shape[1])
        permuted = (labels[0][:, order], labels[1][:, order], labels[2])
        for ours, theirs in zip(
            call(logits, labels, **options), call(logits, permuted, **options), strict=True
        ):
            assert (ours - theirs).abs().max() <= tolerance

    check(holds, with_hard=True)


def test_a_constant_added_to_a_row_changes_nothing(check):
    def holds(call, logits, teacher, labels, options, tolerance):
        # A power of two, so that the sums themselves are nearly exact.
        T, far = options["temperature"], 64.0
        shifted = (labels[0].float() + far, labels[1], labels[2] + far / T)
        tolerance += 8 * EPS * T * far
        for ours, theirs in zip(
            call(logits, labels, **options), call(logits - far, shifted, **options), strict=True
        ):
            assert (ours - theirs).abs().max() <= tolerance

    check(holds, with_hard=True)


def test_loss_and_gradient_are_linear_in_the_weight(check):
    def holds(call, logits, teacher, labels, options, tolerance):
        # Powers of two multiply exactly.
        weight = torch.tensor([8.0, -0.25])
        loss, grad = call(logits, labels, **options)
        weighted_loss, weighted_grad = call(logits, labels, weight=weight, **options)
        assert torch.equal(weighted_loss, loss * weight)
        assert torch.allclose(weighted_grad, grad * weight[:, None], rtol=0, atol=1e-36)

    check(holds, with_hard=True)


def test_temperature_divides_both_sides_and_multiplies_the_loss_twice(check):
    def holds(call, logits, teacher, labels, options, tolerance):
        T = options["temperature"]
        divided = (labels[0].float() / T, labels[1], labels[2])
        loss, grad = call(logits, labels, **options)
        at_one = options | {"temperature": 1.0}
        loss_at_one, grad_at_one = call(logits / T, divided, **at_one)
        assert (loss - T**2 * loss_at_one).abs().max() <= tolerance
        assert (grad - T * grad_at_one).abs().max() <= tolerance

    check(holds)


def test_a_student_that_says_what_is_stored_loses_nothing(check):
    def holds(call, logits, teacher, labels, options, tolerance):
        topk_logit, topk_class, tail_lse = labels
        T, others = options["temperature"], logits.shape[1] - topk_logit.shape[1]
        each = T * (tail_lse - torch.tensor(float(max(1, others))).log())
        student = each[:, None].expand_as(logits).clamp_min(-1e4)
        student = student.scatter(1, topk_class.long(), topk_logit.float())
        loss, grad = call(student, labels, **options)
        if options["tail"] not in ("renorm", "truncate") or others == 0:
            assert loss.abs().max() <= tolerance
            assert grad.abs().max() <= tolerance

    check(holds)
