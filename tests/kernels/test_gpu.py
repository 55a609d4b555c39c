"""The compiled kernels on a GPU; and that the checks they are held to can fail."""

from dataclasses import replace

import pytest
import torch

from softlabel.tools.bench.kernel.config import KernelBench
from softlabel.tools.gpu import cases, properties
from softlabel.tools.gpu.properties import PROPERTIES
from softlabel.tools.gpu.step import UnmeasuredError

TINY = list(cases.cases(tiny=True))


@pytest.fixture
def cuda():
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return "cuda"


@pytest.mark.gpu
@pytest.mark.parametrize("given", list(cases.cases()), ids=lambda given: given.name)
def test_compiled_kernels_are_exact_in_place_and_out_of_place(given, cuda):
    cases.check(given, cuda, seed=torch.seed() % 2**31)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(PROPERTIES))
def test_on_a_gpu_it_holds_that(name, cuda):
    try:
        PROPERTIES[name](cuda)
    except UnmeasuredError as reason:
        pytest.skip(f"NOT TESTED: {reason}")


def test_cases_cover_every_form_tail_and_dtype():
    full = list(cases.cases())
    assert len(full) >= 40
    assert len({given.name for given in full}) == len(full)
    for wide in (True, False):
        some = [given for given in full if (given.classes > 256) == wide]
        assert {given.dtype for given in some} == {"fp32", "bf16", "fp16"}
        assert len({given.tail for given in some}) == 5


@pytest.mark.parametrize("given", TINY[:8], ids=lambda given: given.name)
def test_the_check_passes_what_is_right(given):
    shares = cases.check(given, "cpu", backend="torch", seed=7)
    assert set(shares) == {"total", "soft", "hard", "gradient"}


def scaled(losses, grad):
    return losses, grad.mul_(1.02)


def wrong_loss(losses, grad):
    return losses._replace(total=losses.total + 1e-3), grad


def wrong_part(losses, grad):
    return losses._replace(soft=losses.soft + 1e-3), grad


def unwritten(losses, grad):
    grad[0, 0] = float("nan")
    return losses, grad


def dirty_padding(losses, grad):
    grad[-1, -1] = 1e-30
    return losses, grad


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (scaled, "error of gradient"),
        (wrong_loss, "error of total"),
        (wrong_part, "error of soft"),
        (unwritten, "error of gradient is inf"),
        (dirty_padding, "padding is not 0"),
    ],
)
def test_the_check_is_red_for(spoil, said, monkeypatch):
    given = next(case for case in TINY if case.width > case.classes)
    right = cases.sparse_kl_grad
    monkeypatch.setattr(
        cases, "sparse_kl_grad", lambda *args, **options: spoil(*right(*args, **options))
    )
    with pytest.raises(AssertionError, match=said):
        cases.check(given, "cpu", backend="torch", seed=7)


def test_the_check_is_red_where_in_place_is_something_else(monkeypatch):
    right = cases.sparse_kl_grad

    def wrong_in_place(logits, *args, out, **options):
        losses, grad = right(logits, *args, out=out, **options)
        return losses, grad.neg_() if out is logits else grad

    monkeypatch.setattr(cases, "sparse_kl_grad", wrong_in_place)
    with pytest.raises(AssertionError, match="in place is not out of place"):
        cases.check(TINY[0], "cpu", backend="torch", seed=7)


SWEPT = KernelBench(rows=3, classes=300, tail="bucket", hard=0.5, dtype="bf16", device="cpu")


def test_a_sweep_ends_in_lines_for_the_table(triton_device, monkeypatch):
    from softlabel.kernels.sparse_kl.gpu.configs import Config
    from softlabel.tools.gpu import sweep

    monkeypatch.setattr(sweep, "_MOST", 1)
    found = sweep._shape(replace(SWEPT, device=triton_device), 1e9, repeats=1)
    assert not found["failed"]
    assert len(found["configs"]) == 2
    assert found["configs"][0]["us"] <= found["configs"][1]["us"]
    ((width, dtype, config),) = eval(f"[{found['line'].partition('#')[0]}]", {"Config": Config})
    assert (width, dtype, str(config)) == (320, "bf16", found["configs"][0]["config"])


def test_a_sweep_times_no_configuration_that_computes_something_else(triton_device, monkeypatch):
    from softlabel.tools.gpu import sweep

    right = sweep.sparse_kl_grad
    calls = []

    def wrong_at_first(*args, out, config, **options):
        losses = right(*args, out=out, config=config, **options)
        calls.append(config)
        if config == calls[0]:
            out.mul_(1.1)
        return losses

    monkeypatch.setattr(sweep, "_MOST", 1)
    monkeypatch.setattr(sweep, "sparse_kl_grad", wrong_at_first)
    found = sweep._shape(replace(SWEPT, device=triton_device), 1e9, repeats=1)
    assert list(found["failed"]) == [str(calls[0])]
    assert "computes something else" in found["failed"][str(calls[0])]
    assert found["table_us"] is None
    assert [row["config"] for row in found["configs"]] == [str(calls[1])]


def another_bit(call, losses, grad):
    return (losses, grad.mul_(1.5)) if call == 2 else (losses, grad)


def hidden_nan(call, losses, grad):
    return losses._replace(total=losses.total.nan_to_num()), grad.nan_to_num_()


def changed_neighbour(call, losses, grad):
    if call:
        grad[5] *= 1.5
    return losses, grad


def looked_at(call, losses, grad):
    grad[2, 0] = 1e-3
    return losses, grad


def rounded_tail(call, losses, grad):
    return losses._replace(total=losses.total * 1.001), grad


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("repeats_are_bit_identical", another_bit, "repeat 1 differs from the first"),
        ("bad_rows_stay_alone", hidden_nan, "row 0 hides what is wrong"),
        ("bad_rows_stay_alone", changed_neighbour, "a bad row changed another"),
        ("bad_rows_stay_alone", looked_at, "a row of weight 0 was looked at"),
        ("small_tails_are_exact", rounded_tail, "relative error of the loss"),
    ],
)
def test_a_property_that_does_not_hold_is_red(name, spoil, said, triton_device, monkeypatch):
    right = properties.run
    calls = []

    def spoiled(*args, **options):
        calls.append(args)
        return spoil(len(calls) - 1, *right(*args, **options))

    monkeypatch.setattr(properties, "run", spoiled)
    with pytest.raises(AssertionError, match=said):
        PROPERTIES[name](triton_device)
