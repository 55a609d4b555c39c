"""Rows that break losses: extreme logits, garbage labels, odd memory."""

import math

import pytest
import torch

from softlabel.kernels.sparse_kl import sparse_kl, sparse_kl_grad

TAILS = ["bucket", "uniform", "renorm", "truncate", "subset"]


@pytest.fixture
def rows(backend, device, make_labels):
    """`rows(B, C, K, width=...)` -> (logits [B, width], labels), where the backend runs."""

    def make(num_rows, classes, top_k, *, width=None, temperature=1.0):
        torch.manual_seed(classes)
        logits = torch.randn(num_rows, width or classes, device=device)
        labels = make_labels(2 * torch.randn(num_rows, classes), top_k, temperature)
        return logits, [label.to(device) for label in labels]

    return make


def exact(logits, labels, **options):
    return sparse_kl_grad(logits.double(), *labels, backend="reference", **options)


def assert_close(ours, theirs, *, rtol=2e-6, atol=1e-6):
    for name, mine, other in zip(("loss", "gradient"), ours, theirs, strict=True):
        excess = (mine - other).abs() - rtol * other.abs() - atol
        assert excess.max() <= 0, f"{name}: error {excess.max():.1e} too large"


@pytest.mark.parametrize("tail", TAILS)
def test_logits_of_ten_thousand_are_as_good_as_any(tail, backend, rows):
    logits, labels = rows(3, 30, 4)
    logits = (logits * 1e4).clamp(-1e4, 1e4)
    logits[1, labels[1][1].long()] = 1e4
    logits[2, labels[1][2].long()] = -1e4
    ours = sparse_kl_grad(logits, *labels, tail=tail, backend=backend)
    assert_close(ours, exact(logits, labels, tail=tail))


@pytest.mark.parametrize("log_tail", [-36.06, -69.1, -500.0])
def test_bucket_sees_a_students_tail_however_small(log_tail, backend, device):
    logits = torch.full((1, 64), log_tail - math.log(60), device=device)
    logits[0, [3, 9, 20, 63]] = math.log(0.25)
    topk_class = torch.tensor([[3, 9, 20, 63]], device=device)
    topk_logit, tail_lse = torch.zeros(1, 4, device=device), torch.zeros(1, device=device)
    # The teacher says 1/5 for each stored class and for the rest.
    loss, grad = sparse_kl_grad(logits, topk_logit, topk_class, tail_lse, backend=backend)
    wanted = 4 / 5 * math.log(4 / 5) + 1 / 5 * (math.log(1 / 5) - log_tail)
    assert loss.item() == pytest.approx(wanted, rel=1e-6)
    wanted_grad = torch.full((1, 64), -1 / 5 / 60, device=device)
    wanted_grad[0, [3, 9, 20, 63]] = 0.25 - 1 / 5
    assert torch.allclose(grad, wanted_grad, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("tail", ["bucket", "renorm", "truncate", "subset"])
def test_minus_infinity_outside_the_stored_classes_is_a_number(tail, backend, rows):
    logits, labels = rows(2, 24, 3)
    minus = [(row, c) for row in range(2) for c in range(24) if c not in labels[1][row].tolist()]
    for row, c in minus[::2]:
        logits[row, c] = -math.inf
    ours = sparse_kl_grad(logits, *labels, tail=tail, backend=backend)
    assert_close(ours, exact(logits, labels, tail=tail))


def test_renorm_allows_minus_infinity_everywhere_else(backend, rows):
    logits, labels = rows(2, 24, 3)
    alone = torch.full_like(logits, -math.inf)
    alone.scatter_(1, labels[1].long(), logits.gather(1, labels[1].long()))
    ours = sparse_kl_grad(alone, *labels, tail="renorm", backend=backend)
    assert_close(ours, exact(alone, labels, tail="renorm"))


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_row_is_nan_and_leaves_the_others_alone(bad, tail, backend, rows):
    logits, labels = rows(3, 24, 3)
    clean = sparse_kl_grad(logits, *labels, tail=tail, backend=backend)
    # The rule that reads the stored classes only has to be shown the badness there.
    logits[1, labels[1][1, 0].long() if tail == "subset" else 5] = bad
    loss, grad = sparse_kl_grad(logits, *labels, tail=tail, backend=backend)
    assert loss[1].isnan()
    assert grad[1].isnan().any()
    assert torch.equal(loss[::2], clean[0][::2])
    assert torch.equal(grad[::2], clean[1][::2])


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("top_k", [4, 20])
def test_a_row_of_weight_zero_is_not_looked_at(top_k, tail, backend, rows):
    logits, labels = rows(4, 20, top_k, width=24)
    clean = sparse_kl_grad(logits, *labels, tail=tail, num_classes=20, backend=backend)
    weight = torch.tensor([1.0, 0.0, 0.0, 1.0], device=logits.device)
    logits[1], labels[0][1], labels[1][1], labels[2][1] = math.nan, math.nan, 60000, math.nan
    for label in labels:
        label[2] = 0
    out = torch.full_like(logits, math.nan)
    options = {"tail": tail, "num_classes": 20, "weight": weight}
    loss, grad = sparse_kl_grad(logits, *labels, backend=backend, out=out, **options)
    assert torch.equal(loss, clean[0] * weight)
    assert torch.equal(grad[1:3], torch.zeros_like(grad[1:3]))
    assert torch.equal(grad[::3], clean[1][::3])
    mean = sparse_kl(logits, *labels, backend=backend, reduction="mean", **options)
    assert torch.allclose(mean, (clean[0][0] + clean[0][3]) / 2)
    assert_close((loss, grad), exact(logits, labels, **options))


def test_the_mean_over_no_weight_is_zero(backend, rows):
    logits, labels = rows(2, 9, 3)
    logits.requires_grad_()
    weight = torch.zeros(2, device=logits.device)
    loss = sparse_kl(logits, *labels, weight=weight, reduction="mean", backend=backend)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.eq(0).all()


def test_a_logit_clamped_by_float16_counts_as_impossible(backend, rows):
    logits, labels = rows(2, 12, 5)
    labels[0][:, 3:] = -65504.0
    ours = sparse_kl_grad(logits, *labels, backend=backend)
    assert_close(ours, exact(logits, labels))
    logits[:, 0] = torch.where((labels[1][:, 4] == 0), -math.inf, logits[:, 0])
    logits.scatter_(1, labels[1][:, 4:].long(), -math.inf)
    assert sparse_kl_grad(logits, *labels, backend=backend)[0].isfinite().all()


@pytest.mark.parametrize("tail", TAILS)
def test_a_teacher_without_a_tail_is_a_number(tail, backend, rows):
    for top_k in (3, 12):
        logits, labels = rows(2, 12, top_k)
        labels[2].fill_(-math.inf)
        ours = sparse_kl_grad(logits, *labels, tail=tail, backend=backend)
        assert_close(ours, exact(logits, labels, tail=tail))
        if tail != "subset" or top_k == 12:
            assert_close(ours, exact(logits, labels, tail="renorm"))


@pytest.mark.parametrize("tail", TAILS)
def test_with_every_class_stored_there_is_no_tail_whatever_is_said_of_it(tail, backend, rows):
    logits, labels = rows(2, 12, 12)
    wanted = sparse_kl_grad(logits, *labels, tail=tail, backend=backend)
    labels[2].fill_(3.0)
    ours = sparse_kl_grad(logits, *labels, tail=tail, backend=backend)
    assert all(map(torch.equal, ours, wanted))


@pytest.mark.parametrize("tail", TAILS)
def test_no_rows_are_no_loss(tail, backend, rows):
    logits, labels = rows(0, 12, 4)
    logits.requires_grad_()
    loss, grad = sparse_kl_grad(logits, *labels, tail=tail, backend=backend)
    assert loss.shape == (0,)
    assert grad.shape == (0, 12)
    sparse_kl(logits, *labels, tail=tail, backend=backend, reduction="mean").backward()
    assert logits.grad.shape == (0, 12)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_may_be_apart_and_labels_may_be_views(dtype, tail, backend, rows):
    logits, labels = rows(3, 20, 4, width=24)
    logits[1].scatter_add_(0, labels[1][1].long(), torch.full_like(logits[1, :4], 20.0))
    logits = logits.to(dtype)
    wanted = sparse_kl_grad(logits, *labels, tail=tail, num_classes=20, backend=backend)
    apart = torch.full((3, 40), math.nan, device=logits.device, dtype=dtype)
    apart[:, 3:27] = logits
    out = torch.full_like(apart, math.nan)
    views = [torch.stack([label * 0, label], dim=1)[:, 1] for label in labels]
    loss, grad = sparse_kl_grad(
        apart[:, 3:27], *views, tail=tail, num_classes=20, backend=backend, out=out[:, 5:29]
    )
    assert torch.equal(loss, wanted[0])
    assert torch.equal(grad, wanted[1])
    assert torch.equal(out[:, 5:29], wanted[1])
    assert out[:, :5].isnan().all()
    assert out[:, 29:].isnan().all()


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize(
    ("dtype", "top_k"), [(torch.float32, 4), (torch.bfloat16, 4), (torch.bfloat16, 20)], ids=str
)
def test_the_gradient_may_take_the_place_of_the_logits(top_k, dtype, tail, backend, rows):
    logits, labels = rows(3, 20, top_k, width=24)
    logits[1].scatter_add_(0, labels[1][1].long(), torch.full_like(logits[1, :top_k], 20.0))
    logits = logits.to(dtype)
    before = [tensor.clone() for tensor in (logits, *labels)]
    wanted = sparse_kl_grad(logits, *labels, tail=tail, num_classes=20, backend=backend)
    assert all(map(torch.equal, before, (logits, *labels)))
    ours = sparse_kl_grad(logits, *labels, tail=tail, num_classes=20, backend=backend, out=logits)
    assert torch.equal(ours[0], wanted[0])
    assert torch.equal(logits, wanted[1])


@pytest.mark.parametrize(
    "dtype", [torch.int16, torch.uint16, torch.uint32, torch.int32, torch.int64], ids=str
)
def test_class_ids_may_have_any_dtype_of_the_store_or_of_torch(dtype, triton_device, make_labels):
    torch.manual_seed(0)
    classes = {torch.int16: 32768, torch.uint16: 65536}.get(dtype, 70000)
    logits = torch.randn(1, classes)
    labels = make_labels(torch.randn(logits.shape), 3)
    labels[1][0, 1] = logits.shape[1] - 1
    wanted = exact(logits, labels)
    for backend, device in (("torch", "cpu"), ("triton", triton_device)):
        topk_logit, topk_class, tail_lse = (label.to(device) for label in labels)
        ours = sparse_kl_grad(
            logits.to(device), topk_logit, topk_class.to(dtype), tail_lse, backend=backend
        )
        assert_close([tensor.cpu() for tensor in ours], wanted)


@pytest.mark.parametrize("bad_class", [20, 23, 24, 2**31 - 1])
def test_a_class_that_does_not_exist_is_never_taken_for_one(bad_class, backend, rows):
    logits, labels = rows(3, 20, 4, width=24)
    labels[1][1, 2] = bad_class
    if backend == "torch":
        with pytest.raises(IndexError, match=f"class {bad_class} is stored, num_classes is 20"):
            sparse_kl_grad(logits, *labels, num_classes=20, backend=backend)
        return
    guard = torch.full((3, 72), 7.0, device=logits.device)
    loss, grad = sparse_kl_grad(
        logits, *labels, num_classes=20, backend=backend, out=guard[:, 24:48]
    )
    assert loss.isnan().tolist() == [False, True, False]
    assert grad[1, :20].isnan().any()
    assert grad[::2].isfinite().all()
    assert guard[:, :24].eq(7).all()
    assert guard[:, 48:].eq(7).all()


def test_a_row_may_begin_beyond_two_to_the_31_elements(backend, device, make_labels):
    torch.manual_seed(0)
    labels = [label.to(device) for label in make_labels(torch.randn(3, 20), 4)]
    logits = torch.randn(3, 20, device=device).half()
    wanted = sparse_kl_grad(logits, *labels, backend=backend)
    # 4 GiB of address space, of which three pages are touched.
    far = torch.empty(2**31 + 32, dtype=torch.float16, device=device)
    far = far.as_strided((3, 20), (2**30, 1)).copy_(logits)
    ours = sparse_kl_grad(far, *labels, backend=backend, out=far)
    assert torch.equal(ours[0], wanted[0])
    assert torch.equal(far, wanted[1])
