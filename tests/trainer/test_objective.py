"""The loss and its gradient against plain float64 operations on dense distributions."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from softlabel.trainer.objective import GradientBuffer, Objective, Targets

B, C, K = 6, 11, 4
TAILS = ("bucket", "uniform", "renorm", "truncate", "subset")


def scaler(scale=None):
    return torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)


def make(**changes):
    options = {"temperature": 1.0, "tail": "bucket", "distill_weight": 1.0, "task_weight": 0.0}
    return Objective(**{**options, "smoothing": 0.0, "num_classes": C, **changes})


def batch(temperature, *, weight=None, counted=None, targets=None, seed=0):
    """Dense float64 teacher logits and the targets made from them."""
    rng = np.random.default_rng(seed)
    z = np.sort(rng.normal(0, 3, (B, C)), axis=1)[:, ::-1]
    z = z - z[:, :1]
    # What float16 keeps is what the teacher said.
    z[:, :K] = z[:, :K].astype(np.float16)
    classes = np.stack([rng.permutation(C) for _ in range(B)])
    dense = np.empty((B, C))
    np.put_along_axis(dense, classes, z, axis=1)
    tail = np.log(np.exp(z[:, K:] / temperature).sum(1))
    weights = None if weight is None else torch.tensor(weight, dtype=torch.float32)
    made = Targets(
        topk_logit=torch.tensor(z[:, :K], dtype=torch.float16),
        topk_class=torch.tensor(classes[:, :K], dtype=torch.int32),
        tail_lse=torch.tensor(tail, dtype=torch.float32),
        target=torch.tensor(targets if targets is not None else [-1] * B),
        weight=weights,
        num_counted=counted or B,
    )
    return torch.tensor(dense), made


def kl(logits, dense, classes, temperature, tail):
    """[B] float64: what the tail rules mean, straight from the two dense distributions."""
    p, log_q = torch.softmax(dense / temperature, 1), torch.log_softmax(logits / temperature, 1)
    ids = classes.long()
    stored = torch.zeros_like(p).scatter_(1, ids, 1).bool()
    kept, log_kept = p.gather(1, ids), log_q.gather(1, ids)
    rest = torch.where(stored, 0, p).sum(1, keepdim=True)
    match tail:
        case "bucket":
            log_rest = log_q.masked_fill(stored, -torch.inf).logsumexp(1, keepdim=True)
            events, log_student = torch.cat([kept, rest], 1), torch.cat([log_kept, log_rest], 1)
        case "uniform":
            events, log_student = torch.where(stored, p, rest / (C - K)), log_q
        case "renorm":
            events, log_student = kept / kept.sum(1, keepdim=True), log_kept
        case "truncate":
            events, log_student = kept, log_kept
        case "subset":
            events = kept / kept.sum(1, keepdim=True)
            log_student = torch.log_softmax(logits.gather(1, ids) / temperature, 1)
    return temperature**2 * (events * (events.log() - log_student)).sum(1)


def expected(logits, dense, targets, objective):
    """Float64: (gradient [B, C], sum of KL, sum of cross-entropy)."""
    exact = logits.detach()[:, :C].double().requires_grad_()
    w = torch.ones(B).double() if targets.weight is None else targets.weight.double()
    soft = kl(exact, dense, targets.topk_class, objective.temperature, objective.tail)
    hard = F.cross_entropy(
        exact,
        targets.target,
        ignore_index=-1,
        reduction="none",
        label_smoothing=objective.smoothing,
    )
    soft, hard = (w * soft).sum(), (w * hard).sum()
    total = objective.distill_weight * soft + objective.task_weight * hard
    (gradient,) = torch.autograd.grad(total / targets.num_counted, exact)
    return gradient, soft.item(), hard.item()


def student_logits(width=C, dtype=torch.float32):
    made = torch.randn(B, width, generator=torch.Generator().manual_seed(1)).mul(2)
    return made.to(dtype).requires_grad_()


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize(
    ("temperature", "task_weight", "smoothing", "scale"),
    [(1.0, 0.0, 0.0, None), (4.0, 0.3, 0.0, None), (2.0, 0.3, 0.1, 1024.0)],
    ids=["soft", "both", "smoothed-amp"],
)
@pytest.mark.parametrize("width", [C, 16])
@pytest.mark.parametrize(
    "weight",
    [None, [1.0, 1.0, 1.0, 1.0, 0.0, 0.0], [0.25, 3.0, 1.0, 0.5, 7.0, 0.1]],
    ids=["all", "some", "weighted"],
)
def test_loss_and_gradient_are_the_definitions(
    tail, temperature, task_weight, smoothing, scale, width, weight
):
    dense, targets = batch(temperature, weight=weight, targets=[3, -1, 0, 10, 4, -1])
    objective = make(
        temperature=temperature,
        tail=tail,
        distill_weight=0.7,
        task_weight=task_weight,
        smoothing=smoothing,
    )
    logits = student_logits(width)
    # As in training: the logits are no leaf.
    sums = objective.backward(logits * 1, targets, scaler(scale))
    gradient, soft, hard = expected(logits, dense, targets, objective)
    found = logits.grad.double() / (scale or 1.0)
    assert found[:, :C] == pytest.approx(gradient, abs=3e-7)
    assert torch.count_nonzero(found[:, C:]) == 0
    assert sums[0].item() == pytest.approx(soft, rel=1e-5)
    assert sums[1].item() == pytest.approx(hard if task_weight else 0.0, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_plain_supervision_is_cross_entropy(smoothing):
    _, targets = batch(1.0, targets=[1, 2, 3, 4, 5, 6])
    logits = student_logits()
    objective = make(distill_weight=0.0, task_weight=1.0, smoothing=smoothing)
    sums = objective.backward(logits * 1, targets, scaler())
    exact = logits.detach().clone().requires_grad_()
    loss = F.cross_entropy(exact, targets.target, label_smoothing=smoothing)
    loss.backward()
    assert torch.allclose(logits.grad, exact.grad, atol=1e-7)
    assert sums.tolist()[:2] == pytest.approx([0.0, loss.item() * B])


def test_targets_are_not_looked_at_without_a_task():
    """They may count classes as the teacher does not."""
    _, targets = batch(1.0, targets=[C, 900, -7, 0, 0, 0])
    logits = student_logits()
    sums = make().backward(logits * 1, targets, scaler())
    assert logits.grad.isfinite().all()
    assert sums[1] == 0


@pytest.mark.parametrize("width", [C, 16])
def test_agreement_counts_each_row_of_any_weight_once_and_real_classes_only(width):
    _, targets = batch(1.0, weight=[0.1, 7.0, 1.0, 1.0, 1.0, 0.0])
    logits = torch.full((B, width), -1.0)
    logits[:, C:] = 9.0
    first = targets.topk_class[:, 0].long()
    # Rows 0, 1 and 5 agree; 5 does not count.
    for row in (0, 1, 5):
        logits[row, first[row]] = 1.0
    for row in (2, 3, 4):
        logits[row, (first[row] + 1) % C] = 1.0
    sums = make().backward(logits.requires_grad_() * 1, targets, scaler())
    assert sums[2].item() == 2


def test_small_gradients_of_float16_logits_are_scaled_before_they_are_rounded():
    """1 / 20,000 of a small probability: below float16's smallest number, were it not scaled."""
    dense, targets = batch(1.0, weight=[20_000.0, 1.0, 1.0, 1.0, 1.0, 1.0], counted=20_005)
    objective = make(tail="renorm")
    logits = student_logits(dtype=torch.float16)
    objective.backward(logits * 1, targets, scaler(65536.0))
    assert logits.grad.dtype == torch.float16
    gradient, _, _ = expected(logits, dense, targets, objective)
    wanted = gradient * 65536
    assert gradient[1:].abs().min() < 6e-8
    assert torch.allclose(logits.grad.double(), wanted, rtol=2**-10, atol=6e-8)


def test_the_gradient_buffer_is_used_again_and_made_anew_for_other_logits():
    buffer = GradientBuffer()
    first = buffer.like(torch.empty(4, 3))
    assert buffer.like(torch.zeros(4, 3)) is first
    assert buffer.like(torch.zeros(5, 3)).shape == (5, 3)
    assert buffer.like(torch.zeros(5, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_second_batch_overwrites_what_the_first_left_in_the_buffer():
    _, targets = batch(1.0, targets=[1, 2, 3, 4, 5, 6])
    reused, once = make(), make()
    other = student_logits().detach().neg().requires_grad_()
    reused.backward(other * 1, targets, scaler())
    one, two = student_logits(), student_logits()
    reused.backward(one * 1, targets, scaler())
    once.backward(two * 1, targets, scaler())
    assert torch.equal(one.grad, two.grad)
