"""The definition itself: against sums written out by hand, and against its own differences."""

import itertools
import math

import pytest
import torch

from softlabel.kernels.sparse_kl import reference, sparse_kl, sparse_kl_grad
from softlabel.kernels.sparse_kl.targets import Targets, checked_targets

TAILS = ["bucket", "uniform", "renorm", "truncate", "subset"]


def log_sum(numbers):
    return math.log(math.fsum(math.exp(x) for x in numbers))


def soft_by_hand(z, stored, tail_lse, *, T, tail):
    """One row: z is a list of C numbers, stored a dict of class -> teacher's logit."""
    if not stored:
        return 0.0
    C = len(z)
    known = [v / T for v in stored.values()]
    whole = log_sum(
        known if tail in ("renorm", "subset") or len(stored) == C else [*known, tail_lse]
    )
    p = {c: math.exp(v / T - whole) for c, v in stored.items()}
    r = 1 - math.fsum(p.values())
    candidates = list(stored) if tail == "subset" else range(C)
    student = log_sum(z[c] / T for c in candidates)
    log_q = {c: z[c] / T - student for c in candidates}
    terms = [p[c] * (math.log(p[c]) - log_q[c]) for c in stored]
    others = [c for c in range(C) if c not in stored]
    if others and tail == "bucket":
        q = math.fsum(math.exp(log_q[c]) for c in others)
        terms.append(r * (math.log(r) - math.log(q)))
    elif others and tail == "uniform":
        each = r / len(others)
        terms += [each * (math.log(each) - log_q[c]) for c in others]
    return T**2 * math.fsum(terms)


def hard_by_hand(z, label, *, smoothing, ignore_index):
    if label == ignore_index:
        return 0.0
    wanted = [smoothing / len(z) + (1 - smoothing) * (c == label) for c in range(len(z))]
    return -math.fsum(w * (x - log_sum(z)) for w, x in zip(wanted, z, strict=True))


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize(("temperature", "smoothing"), [(1.0, 0.1), (2.5, 0.0), (0.5, 0.3)])
@pytest.mark.parametrize("top_k", [0, 1, 4, 7])
def test_the_definition_is_the_sum_written_out(top_k, temperature, smoothing, tail, make_labels):
    torch.manual_seed(top_k)
    C, weight = 7, [1.0, 0.5, 0.0, 3.0]
    logits = 2 * torch.randn(4, C + 2, dtype=torch.float64)
    topk_logit, topk_class, tail_lse = make_labels(2 * torch.randn(4, C), top_k, temperature)
    topk_class[1, ::2] = -1
    topk_class[3] = -1
    target = torch.tensor([3, 255, 2, 6])
    given = Targets(
        topk_logit, topk_class, tail_lse, target, torch.tensor(weight), temperature, tail, C,
        soft_weight=0.7, hard_weight=1.1, label_smoothing=smoothing, ignore_index=255,
    )  # fmt: skip
    losses = reference.sparse_kl(logits, checked_targets(given, logits.shape, logits.device))
    for row in range(4):
        z, classes = logits[row, :C].tolist(), topk_class[row].tolist()
        stored = dict(zip(classes, topk_logit[row].tolist(), strict=True))
        stored.pop(-1, None)
        rule = "renorm" if top_k == C else tail
        soft = soft_by_hand(z, stored, tail_lse[row].item(), T=temperature, tail=rule)
        hard = hard_by_hand(z, target[row].item(), smoothing=smoothing, ignore_index=255)
        wanted = [weight[row] * x for x in (0.7 * soft + 1.1 * hard, soft, hard)]
        found = [loss[row].item() for loss in losses]
        assert found == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", ["torch", "reference"])
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("top_k", [0, 1, 4, 7])
@pytest.mark.parametrize("hard_weight", [0.0, 0.6])
def test_the_float64_gradient_is_that_of_central_differences(
    hard_weight, top_k, tail, name, make_labels
):
    torch.manual_seed(top_k)
    labels = make_labels(2 * torch.randn(4, 7), top_k, 2.0)
    labels[1][3, 1::2] = -1
    options = {"temperature": 2.0, "tail": tail, "num_classes": 7, "backend": name}
    options |= {"hard_weight": hard_weight, "label_smoothing": 0.2}
    options |= {"target": torch.tensor([0, 3, 6, -100]), "soft_weight": 0.8}
    options["weight"] = torch.tensor([0.5, 0.0, 2.0, 1.0])
    logits = 2 * torch.randn(4, 9, dtype=torch.float64)
    _, grad = sparse_kl_grad(logits, *labels, **options)
    for column, step in enumerate(1e-5 * torch.eye(9, dtype=torch.float64)):
        above, below = (sparse_kl(logits + s, *labels, **options) for s in (step, -step))
        assert ((above - below) / 2e-5 - grad[:, column]).abs().max() <= 1e-8


@pytest.mark.parametrize("tail", TAILS)
def test_in_float64_the_torch_backend_is_the_definition(tail, make_labels, monkeypatch):
    from softlabel.kernels.sparse_kl import native

    torch.manual_seed(0)
    target = torch.tensor([0, -100, 10, 4, 4])
    for T, K, hard, smoothing, chunk, soft in itertools.product(
        (1.0, 2.0), (0, 1, 4, 11), (0.0, 0.7), (0.0, 0.1), (1, 2 << 20), (0.0, 1.3)
    ):
        monkeypatch.setattr(native, "_CHUNK_BYTES", chunk)
        labels = make_labels(2 * torch.randn(5, 11), K, T)
        labels[1][torch.rand(5, K) < 0.3] = -1
        labels[1][1] = -1
        options = {"temperature": T, "tail": tail, "num_classes": 11, "soft_weight": soft}
        options |= {"hard_weight": hard, "label_smoothing": smoothing, "target": target}
        logits = 3 * torch.randn(5, 13, dtype=torch.float64)
        for weight in (None, torch.tensor([1.0, 2.0, 0.0, 0.5, 3.0])):
            ours, exact = (
                sparse_kl_grad(
                    logits, *labels, backend=name, return_parts=True, weight=weight, **options
                )
                for name in ("torch", "reference")
            )
            for mine, other in zip((*ours[0], ours[1]), (*exact[0], exact[1]), strict=True):
                assert (mine - other).abs().max() <= 1e-12
