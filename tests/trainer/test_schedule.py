"""The learning rate over a run."""

import pytest
import torch

from softlabel.trainer.schedule import make_schedule


def rates(kind, num_steps, warmup_steps=None, peak=0.1):
    schedule = make_schedule(kind, peak=peak, num_steps=num_steps, warmup_steps=warmup_steps)
    return [schedule.learning_rate(step) for step in range(num_steps)]


def test_cosine_falls_from_the_peak_to_nearly_0_and_is_half_in_the_middle():
    found = rates("cosine", 100)
    assert found[0] == 0.1
    assert found[50] == pytest.approx(0.05)
    assert 0 < found[-1] < 1e-4
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("kind", ["cosine", "constant"])
def test_warmup_rises_in_even_steps_and_ends_at_the_peak(kind):
    found = rates(kind, 20, warmup_steps=4)
    assert found[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])


def test_constant_stays():
    assert set(rates("constant", 7)) == {0.1}


def test_onecycle_is_torchs_onecycle():
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=0.1, total_steps=101, cycle_momentum=False
    )
    wanted = []
    for _ in range(100):
        wanted.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    # torch counts its phases from step 0 to the step before; ours start half a step apart.
    found = rates("onecycle", 100)
    assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 0.1 * 0.06


@pytest.mark.parametrize("kind", ["cosine", "onecycle", "constant"])
@pytest.mark.parametrize("warmup_steps", [None, 0, 1, 5, 9])
def test_every_step_has_a_positive_rate_of_at_most_the_peak(kind, warmup_steps):
    for num_steps in (1, 2, 5):
        found = rates(kind, num_steps, warmup_steps)
        assert all(0 < rate <= 0.1 + 1e-12 for rate in found)
