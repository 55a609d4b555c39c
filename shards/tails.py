"""The stored tail at any temperature: exact where stored, a polynomial in 1/t between and above.

log-tail is smooth in x = 1/t, and its value at x = 0 is known without storing it: log(C - K). The
polynomial goes through that point and the stored ones. Below the smallest stored temperature
nothing bounds it, so that is refused.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.errors import UsageError


def tail_weights(
    temperatures: Sequence[float], temperature: float
) -> tuple[NDArray[np.float64], float]:
    """Lagrange weights at 1 / `temperature`: of the stored log-tails, and of log(C - K).

    Raises:
        UsageError: `temperature` lies below the smallest stored one.
    """
    if not temperature >= min(temperatures):
        raise UsageError(
            f"temperature {temperature:g} is below the smallest stored one, {min(temperatures):g}; "
            "label again with it among --temperatures"
        )
    nodes = np.array([0.0, *(1.0 / t for t in temperatures)])
    x = 1.0 / temperature
    weights = np.ones_like(nodes)
    for i, node in enumerate(nodes):
        others = np.delete(nodes, i)
        weights[i] = np.prod((x - others) / (node - others))
    return weights[1:], float(weights[0])


def tail_at(
    tail_lse: NDArray[np.float32],
    *,
    temperatures: Sequence[float],
    temperature: float,
    num_not_stored: int,
) -> NDArray[np.float32]:
    """Log-tail at one temperature.

    Args:
        tail_lse: [..., S] as stored: log of the sum over the classes not stored of
            exp((z_j - z_max) / t), for each stored temperature t.
        temperatures: the S stored temperatures.
        temperature: the one wanted, at least the smallest stored.
        num_not_stored: C - K.

    Returns:
        [...] float32; -inf everywhere if no class was left out.

    Raises:
        UsageError: `temperature` lies below the smallest stored one.
    """
    weights, constant = tail_weights(temperatures, temperature)
    if num_not_stored == 0:
        return np.full(tail_lse.shape[:-1], -np.inf, np.float32)
    if temperature in temperatures:
        return tail_lse[..., list(temperatures).index(temperature)]
    value = tail_lse.astype(np.float64) @ weights + constant * np.log(num_not_stored)
    return np.asarray(value, np.float32)


def interpolation_error(temperatures: Sequence[float], temperature: float) -> float:
    """What to expect of `tail_at`, in nats: the worst over model tails whose answer is known.

    The models are tails of 1,000 classes with Gaussian logits of spread 1 to 6, far wider than
    teachers have; a stored temperature has error 0.
    """
    if temperature in temperatures:
        return 0.0
    quantiles = (np.arange(1000) + 0.5) / 1000
    shape = np.sqrt(2) * _erfinv(2 * quantiles - 1)
    worst = 0.0
    for spread in (1.0, 2.0, 4.0, 6.0):
        z = spread * (shape - shape.max()) - 1.0
        exact = {t: float(np.log(np.exp(z / t).sum())) for t in (*temperatures, temperature)}
        stored = np.array([exact[t] for t in temperatures], np.float32)
        found = tail_at(
            stored, temperatures=temperatures, temperature=temperature, num_not_stored=len(z)
        )
        worst = max(worst, abs(float(found) - exact[temperature]))
    return worst


def _erfinv(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse error function by Winitzki's formula (2008), good to 2e-3: it only shapes a model."""
    a = 0.147
    log = np.log1p(-(y**2))
    half = 2 / (np.pi * a) + log / 2
    return np.asarray(np.sign(y) * np.sqrt(np.sqrt(half**2 - log / a) - half))
