"""Class labels beside stored ones, entries and rows that do not exist, duplicates."""

import math

import pytest
import torch
from torch.nn import functional as F

from softlabel.kernels.sparse_kl import native_rows, sparse_kl, sparse_kl_grad
from softlabel.kernels.sparse_kl.targets import merged

TAILS = ["bucket", "uniform", "renorm", "truncate", "subset"]


@pytest.fixture
def batch(device, make_labels):
    """`batch(K, T)` -> 4 rows: logits of 13 columns, labels over 11 classes, targets."""

    def make(top_k=4, temperature=1.0):
        torch.manual_seed(top_k)
        labels = make_labels(2 * torch.randn(4, 11), top_k, temperature)
        tensors = (2 * torch.randn(4, 13), *labels, torch.tensor([3, -100, 10, 0]))
        logits, *labels, target = (tensor.to(device) for tensor in tensors)
        return logits, labels, target

    return make


def assert_same(ours, wanted, atol=2e-6):
    for mine, other in zip(ours, wanted, strict=True):
        assert (mine - other).abs().max() <= atol


@pytest.mark.parametrize(
    ("top_k", "temperature", "smoothing"),
    [(0, 1.0, 0.1), (0, 3.0, 0.0), (4, 3.0, 0.1), (4, 1.0, 0.0)],
)
def test_alone_the_hard_part_is_cross_entropy(top_k, temperature, smoothing, backend, batch):
    logits, labels, target = batch(top_k)
    z = logits[:, :11].clone().requires_grad_()
    wanted = F.cross_entropy(z, target, label_smoothing=smoothing, reduction="none")
    wanted.sum().backward()
    losses, grad = sparse_kl_grad(
        logits, *labels, target=target, soft_weight=0.0, hard_weight=1.0, num_classes=11,
        label_smoothing=smoothing, temperature=temperature, return_parts=True, backend=backend,
    )  # fmt: skip
    assert_same((losses.total, losses.hard, grad[:, :11]), (wanted, wanted, z.grad))
    assert losses.soft.eq(0).all()
    assert grad[:, 11:].eq(0).all()
    assert grad[1].eq(0).all()


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_whole_is_the_sum_of_its_parts(temperature, tail, backend, batch):
    logits, labels, target = batch(4, temperature)
    weight = torch.tensor([1.0, 2.0, 0.0, 0.5], device=logits.device)
    options = {"temperature": temperature, "tail": tail, "target": target, "weight": weight}
    options |= {"num_classes": 11, "label_smoothing": 0.1, "backend": backend}

    def run(soft, hard):
        return sparse_kl_grad(
            logits, *labels, soft_weight=soft, hard_weight=hard, return_parts=True, **options
        )

    (soft, soft_grad), (hard, hard_grad), (both, grad) = run(1, 0), run(0, 1), run(0.7, 1.5)
    assert_same((both.soft, both.hard), (soft.total, hard.total), atol=5e-6)
    assert_same(
        (both.total, grad),
        (0.7 * soft.total + 1.5 * hard.total, 0.7 * soft_grad + 1.5 * hard_grad),
        atol=1e-5,
    )
    # A term that is switched on changes the gradient of every row that has it.
    assert (grad - 0.7 * soft_grad)[[0, 3]].abs().amax(dim=1).min() > 1e-3
    assert (grad - 1.5 * hard_grad)[[0, 1, 3]].abs().amax(dim=1).min() > 1e-3


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize(("temperature", "hard_weight"), [(1.0, 0.0), (2.0, 1.0)])
def test_an_entry_that_does_not_exist_might_as_well_not_be_stored(
    hard_weight, temperature, tail, backend, batch
):
    logits, labels, target = batch(4, temperature)
    options = {"tail": tail, "num_classes": 11, "backend": backend, "hard_weight": hard_weight}
    options |= {"temperature": temperature, "target": target}
    wanted = sparse_kl_grad(logits, *labels, **options)
    gap = torch.full((4, 1), math.nan, device=logits.device)
    for at in (0, 4):
        topk_logit = torch.cat([labels[0][:, :at], gap.half(), labels[0][:, at:]], dim=1)
        topk_class = torch.cat(
            [labels[1][:, :at], -7 * torch.ones_like(gap).int(), labels[1][:, at:]], 1
        )
        ours = sparse_kl_grad(logits, topk_logit, topk_class, labels[2], **options)
        assert_same(ours, wanted)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize(("top_k", "temperature"), [(0, 2.0), (4, 1.0)])
def test_a_row_without_entries_has_the_hard_part_only(top_k, temperature, tail, backend, batch):
    logits, labels, target = batch(top_k, temperature)
    rows = [1, 2] if top_k else [0, 1, 2, 3]
    labels[0][rows], labels[1][rows], labels[2][rows] = math.nan, -1, math.nan
    options = {"tail": tail, "num_classes": 11, "backend": backend, "target": target}
    options |= {"temperature": temperature, "hard_weight": 0.5, "label_smoothing": 0.1}
    out = torch.full_like(logits, math.nan)
    losses, grad = sparse_kl_grad(logits, *labels, return_parts=True, out=out, **options)
    hard, hard_grad = sparse_kl_grad(logits, *labels, soft_weight=0.0, **options)
    assert losses.soft[rows].eq(0).all()
    assert_same((losses.total[rows], grad[rows]), (hard[rows], hard_grad[rows]))
    # Without a target either, nothing is left.
    assert losses.total[1] == 0
    assert grad[1].eq(0).all()


@pytest.mark.parametrize("tail", TAILS)
def test_all_classes_stored_but_some_entries_missing(tail, backend, batch):
    logits, labels, _ = batch(11)
    labels[1][0, 3:] = labels[1][2, 0] = -1
    options = {"tail": tail, "num_classes": 11}
    ours = sparse_kl_grad(logits, *labels, backend=backend, **options)
    wanted = sparse_kl_grad(logits.double(), *labels, backend="reference", **options)
    assert_same(ours, wanted)


@pytest.mark.parametrize("bad", [11, -1, 2**31 - 1])
def test_a_target_that_does_not_exist_is_never_taken_for_one(bad, backend, batch):
    logits, labels, target = batch()
    target[2] = bad
    options = {"target": target, "hard_weight": 1.0, "num_classes": 11, "backend": backend}
    if backend == "torch":
        with pytest.raises(IndexError, match=f"target {bad} is neither in"):
            sparse_kl_grad(logits, *labels, **options)
        return
    loss, grad = sparse_kl_grad(logits, *labels, **options)
    assert loss.isnan().tolist() == [False, False, True, False]
    assert grad[2, :11].isnan().any()
    assert grad[[0, 1, 3]].isfinite().all()


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_torch_backend_needs_no_look_at_values(temperature, tail, make_labels, monkeypatch):
    """As on a GPU, where a look would wait: the same numbers, and NaN in place of errors."""
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 13), make_labels(torch.randn(6, 11), 4, temperature)
    labels[1][0, 2] = -1
    labels[1][1] = -1
    options = {"target": torch.tensor([3, 4, -100, 0, 1, 2]), "tail": tail, "hard_weight": 0.5}
    options |= {"weight": torch.tensor([1.0, 2.0, 1.0, 1.0, 0.0, 1.0]), "num_classes": 11}
    options |= {"temperature": temperature, "backend": "torch"}
    wanted = sparse_kl_grad(logits, *labels, **options)
    monkeypatch.setattr(native_rows, "is_readable", lambda tensor: False)
    assert all(map(torch.equal, sparse_kl_grad(logits, *labels, **options), wanted))
    labels[1][0, 1] = labels[1][4, 0] = 11
    options["target"][1], options["target"][3] = 99, -2
    loss, grad = sparse_kl_grad(logits, *labels, **options)
    assert loss.isnan().tolist() == [True, True, False, True, False, False]
    assert grad.isnan().any(dim=1).tolist() == loss.isnan().tolist()
    assert torch.equal(grad[[2, 4, 5]], wanted[1][[2, 4, 5]])


def test_nothing_that_is_given_is_changed(backend, batch):
    logits, labels, target = batch()
    labels[1][0, 1] = -1
    weight = torch.tensor([1.0, 1.0, 0.0, 2.0], device=logits.device)
    given = [logits, *labels, target.long(), weight]
    before = [tensor.clone() for tensor in given]
    for tail in TAILS:
        sparse_kl_grad(
            *given[:4], target=given[4], weight=weight, hard_weight=1.0, num_classes=11, tail=tail,
            merge_duplicates=True, backend=backend,
        )  # fmt: skip
    assert all(map(torch.equal, given, before))


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.uint16], ids=str)
def test_duplicates_are_merged_into_the_sum_of_what_they_say(dtype, tail, backend, batch):
    logits, labels, _ = batch(3, 2.0)
    options = {"tail": tail, "temperature": 2.0, "num_classes": 11, "backend": backend}
    wanted = sparse_kl_grad(logits, *labels, **options)
    # Half of each class's mass in each of two entries, of which one comes last.
    half = labels[0].float() - 2.0 * math.log(2)
    ours = sparse_kl_grad(
        logits,
        torch.cat([half, half.flip(1)], dim=1),
        torch.cat([labels[1], labels[1].flip(1)], dim=1).to(dtype),
        labels[2],
        merge_duplicates=True,
        **options,
    )
    assert_same(ours, wanted)


def test_merging_leaves_padding_alone():
    topk_logit = torch.tensor([[0.0, math.nan, -1.0, -2.0, math.nan]])
    topk_class = torch.tensor([[4, -1, 2, 4, -1]])
    logit, classes = merged(topk_logit, topk_class, 1.0)
    assert classes.tolist() == [[4, -1, 2, -1, -1]]
    assert logit[0, 0].item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert logit[0, 2].item() == -1


@pytest.mark.parametrize("tail", ["bucket", "subset"])
def test_minus_infinity_where_the_teacher_has_mass_is_an_infinite_loss(tail, backend, batch):
    logits, labels, _ = batch()
    logits[1, labels[1][1, 2].long()] = -math.inf
    loss, grad = sparse_kl_grad(logits, *labels, tail=tail, num_classes=11, backend=backend)
    assert loss[1] == math.inf
    assert loss[[0, 2, 3]].isfinite().all()
    assert grad.isfinite().all()


def test_without_either_part_nothing_is_lost(backend, batch):
    logits, labels, _ = batch()
    logits.requires_grad_()
    loss = sparse_kl(
        logits, *labels, soft_weight=0.0, num_classes=11, reduction="sum", backend=backend
    )
    loss.backward()
    assert loss == 0
    assert logits.grad.eq(0).all()
