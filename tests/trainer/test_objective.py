"""The loss and its gradient against a float64 re-derivation."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from softlabel.trainer.objective import Objective, Targets

B, C, K = 6, 11, 4


def no_scaler():
    return torch.amp.GradScaler("cpu", enabled=False)


def batch(temperature, *, weight=None, targets=None, seed=0):
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
        total_weight=float(B if weight is None else sum(weight)),
    )
    return torch.tensor(dense), made


def bucket_kl(logits, dense, classes, temperature):
    """KL over K stored classes and one more for all others, straight from the definition."""
    p, q = torch.softmax(dense / temperature, 1), torch.softmax(logits / temperature, 1)
    stored = torch.zeros_like(p).scatter_(1, classes.long(), 1).bool()

    def events(x):
        head = x.gather(1, classes.long())
        return torch.cat([head, torch.where(stored, 0, x).sum(1, keepdim=True)], 1)

    p, q = events(p), events(q)
    return temperature**2 * (p * (p.log() - q.log())).sum(1)


def run(objective, targets, seed=1):
    logits = torch.randn(B, C, generator=torch.Generator().manual_seed(seed)).mul(2)
    logits.requires_grad_()
    # As in training: the logits are no leaf.
    sums = objective.backward(logits * 1, targets, no_scaler())
    return logits, sums


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("weight", [None, [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]])
@pytest.mark.parametrize("task_weight", [0.0, 0.3])
def test_loss_and_gradient_are_the_definitions(temperature, weight, task_weight):
    labels = [3, -1, 0, 10, 4, -1]
    dense, targets = batch(temperature, weight=weight, targets=labels)
    objective = Objective(
        temperature=temperature, tail="bucket", distill_weight=0.7, task_weight=task_weight
    )
    logits, sums = run(objective, targets)

    exact = logits.detach().double().requires_grad_()
    w = torch.ones(B, dtype=torch.float64) if weight is None else torch.tensor(weight).double()
    kd = (w * bucket_kl(exact, dense, targets.topk_class, temperature)).sum()
    has = targets.target >= 0
    hard = -torch.log_softmax(exact, 1)[torch.arange(B), targets.target.clamp(min=0)]
    task = (w * torch.where(has, hard, 0)).sum()
    ((0.7 * kd + task_weight * task) / w.sum()).backward()
    assert logits.grad.double() == pytest.approx(exact.grad, abs=2e-7)
    assert sums[0].item() == pytest.approx(kd.item(), rel=1e-5)
    assert sums[1].item() == pytest.approx(task.item() if task_weight else 0.0, rel=1e-5)


def test_plain_supervision_is_cross_entropy():
    _, targets = batch(1.0, targets=[1, 2, 3, 4, 5, 6])
    objective = Objective(temperature=1.0, tail="bucket", distill_weight=0.0, task_weight=1.0)
    logits, sums = run(objective, targets)
    exact = logits.detach().clone().requires_grad_()
    loss = F.cross_entropy(exact, targets.target)
    loss.backward()
    assert torch.allclose(logits.grad, exact.grad, atol=1e-7)
    assert sums.tolist()[:2] == pytest.approx([0.0, loss.item() * B])


def test_agreement_counts_rows_by_weight():
    _, targets = batch(1.0, weight=[1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    logits = torch.full((B, C), -1.0)
    first = targets.topk_class[:, 0].long()
    # Rows 0, 1 and 5 agree; 5 does not count.
    for row in (0, 1, 5):
        logits[row, first[row]] = 1.0
    for row in (2, 3, 4):
        logits[row, (first[row] + 1) % C] = 1.0
    objective = Objective(temperature=1.0, tail="bucket", distill_weight=1.0, task_weight=0.0)
    sums = objective.backward(logits.requires_grad_() * 1, targets, no_scaler())
    assert sums[2].item() == 2


def test_the_loss_scale_multiplies_both_gradients():
    _, targets = batch(2.0, targets=[1, 2, 3, 4, 5, -1])
    objective = Objective(temperature=2.0, tail="uniform", distill_weight=1.0, task_weight=0.5)
    plain, _ = run(objective, targets)
    scaled = plain.detach().clone().requires_grad_()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    objective.backward(scaled * 1, targets, scaler)
    assert torch.allclose(scaled.grad, plain.grad * 1024, rtol=1e-6)
