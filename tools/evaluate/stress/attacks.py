"""Images changed within an L-infinity ball so that a student errs: FGSM and PGD.

N images of H x W pixels, C classes.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from softlabel.tools.evaluate.models import Model

KINDS = ("fgsm", "pgd")
EPS = 8 / 255

Pixels = NDArray[np.uint8]
Classify = Callable[[Tensor], Tensor]
"""Pixels [N, H, W, 3] in 0..1 to logits [N, C], differentiable."""

_MADRY_STEP = 2.5
"""Steps of this many eps in all reach any corner of the ball from any start."""
_START, _NOISE = 0x73746172, 0x6E6F6973  # set these random numbers apart from each other


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One attack with its budget; lengths are of pixels in 0..1."""

    kind: Literal["fgsm", "pgd"]
    eps: float
    """Largest change of a value."""
    step_size: float
    steps: int
    restarts: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 / 255 <= self.eps <= 1:
            raise ValueError(f"eps: wanted 1/255 to 1 (a pixel value or more), found {self.eps:g}")
        if not self.step_size > 0 or self.steps < 1 or self.restarts < 1:
            raise ValueError(
                "wanted step_size above 0, steps and restarts of 1 or more, found "
                f"{self.step_size:g}, {self.steps}, {self.restarts}"
            )

    @property
    def levels(self) -> int:
        """The largest change in whole pixel values of 0..255."""
        return int(self.eps * 255 + 1e-6)

    def to_dict(self) -> dict[str, Any]:
        """All settings, as evaluation.json has them."""
        return asdict(self)


def make_attack(
    kind: Literal["fgsm", "pgd"],
    *,
    eps: float = EPS,
    steps: int = 10,
    step_size: float | None = None,
    restarts: int = 1,
    seed: int = 0,
) -> Attack:
    """An attack; `step_size` None is 2.5 eps / steps, and FGSM is one step of eps from the image.

    ValueError for a budget that can't be.
    """
    if kind == "fgsm":
        return Attack(kind=kind, eps=eps, step_size=eps, steps=1, restarts=1, seed=seed)
    step = _MADRY_STEP * eps / max(steps, 1) if step_size is None else step_size
    return Attack(kind=kind, eps=eps, step_size=step, steps=steps, restarts=restarts, seed=seed)


def craft(
    model: Model,
    pixels: Pixels,
    label: NDArray[np.int64],
    attack: Attack,
    *,
    key_hash: NDArray[np.uint64],
) -> Pixels:
    """Adversarial copies that make the model's cross-entropy with `label` large.

    FGSM: one step of eps along the gradient's sign (Goodfellow et al. 2015, arXiv:1412.6572). PGD:
    from a random point of the ball, `steps` such steps of `step_size`, each followed by a return
    into the ball; of `restarts` the one with the largest loss (Madry et al. 2018,
    arXiv:1706.06083). The result is rounded to whole pixel values inside ball and range, and losses
    are compared after that. Where the gradient is 0 a value stays as it is.

    Args:
        model: in evaluation mode, on any device.
        pixels: [N, H, W, 3] RGB at its size.
        label: [N] in 0..C-1.
        attack: kind and budget.
        key_hash: [N]; it and the attack's seed decide the random starts.

    Returns:
        [N, H, W, 3], no value farther than eps from `pixels`.
    """
    classify = classifier(model)
    x0 = torch.from_numpy(pixels).to(model.device).float() / 255
    labels = torch.from_numpy(label).to(model.device)
    best, best_loss = pixels, torch.full((len(pixels),), -torch.inf, device=model.device)
    for restart in range(attack.restarts):
        x = x0
        if attack.kind == "pgd":
            start = _uniform(pixels.shape[1:], key_hash, attack.seed, _START, restart)
            x = _inside(x0 + attack.eps * torch.from_numpy(start).to(model.device), x0, attack.eps)
        for _ in range(attack.steps):
            step = attack.step_size * _gradient(classify, x, labels).sign()
            x = _inside(x + step, x0, attack.eps)
        found = rounded(x.cpu().numpy(), pixels, attack.levels)
        loss = losses(model, found, labels)
        better = loss > best_loss
        best_loss = torch.where(better, loss, best_loss)
        best = np.where(better.cpu().numpy()[:, None, None, None], found, best)
    return best


def noisy(pixels: Pixels, attack: Attack, *, key_hash: NDArray[np.uint64]) -> Pixels:
    """What chance does within the same ball: whole-numbered uniform noise, [N, H, W, 3]."""
    drawn = _uniform(pixels.shape[1:], key_hash, attack.seed, _NOISE, 0)
    # From -1..1 to -levels..levels, each whole number as likely.
    whole = np.floor((drawn + 1) / 2 * (2 * attack.levels + 1)) - attack.levels
    whole = np.clip(whole, -attack.levels, attack.levels)
    found: Pixels = np.clip(pixels + whole, 0, 255).astype(np.uint8)
    return found


def classifier(model: Model) -> Classify:
    """The model on pixels in 0..1, with a gradient; its parameters get none."""

    def classify(x: Tensor) -> Tensor:
        logits: Tensor = model.module(model.normalise(x * 255))
        return logits.float()

    return classify


def losses(model: Model, pixels: Pixels, labels: Tensor) -> Tensor:
    """[N] cross-entropy of the model with the labels, on the model's device."""
    with torch.no_grad():
        logits = classifier(model)(torch.from_numpy(pixels).to(model.device).float() / 255)
        return F.cross_entropy(logits, labels, reduction="none")


def rounded(x: NDArray[np.float32], pixels: Pixels, levels: int) -> Pixels:
    """[N, H, W, 3] in 0..1 to whole values at most `levels` from `pixels`."""
    whole, original = np.rint(x * 255).astype(np.int32), pixels.astype(np.int32)
    near = np.clip(whole, original - levels, original + levels)
    return np.clip(near, 0, 255).astype(np.uint8)


def _gradient(classify: Classify, x: Tensor, labels: Tensor) -> Tensor:
    """Of each image's own loss; 0 for a model whose logits don't depend on the image."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        loss = F.cross_entropy(classify(leaf), labels, reduction="sum")
        if not loss.requires_grad:
            return torch.zeros_like(x)
        (found,) = torch.autograd.grad(loss, leaf, allow_unused=True)
    return torch.zeros_like(x) if found is None else torch.nan_to_num(found)


def _inside(x: Tensor, x0: Tensor, eps: float) -> Tensor:
    return torch.clamp(torch.minimum(torch.maximum(x, x0 - eps), x0 + eps), 0, 1)


def _uniform(
    shape: tuple[int, ...], key_hash: NDArray[np.uint64], seed: int, purpose: int, number: int
) -> NDArray[np.float32]:
    """[N, ...] in -1..1, each image's own whatever the batch."""
    out = np.empty((len(key_hash), *shape), np.float32)
    for row, key in zip(out, key_hash.tolist(), strict=True):
        bits = np.random.Philox(
            key=np.array([key, seed], np.uint64),
            counter=np.array([0, 0, number, purpose], np.uint64),
        )
        row[:] = 2 * np.random.Generator(bits).random(shape, np.float32) - 1
    return out
