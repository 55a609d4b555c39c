"""A student's penultimate features: what goes into the layer that makes its logits."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


class Caught:
    """The features of one forward pass; None until there are any."""

    features: Tensor | None = None


@contextmanager
def features_of(student: nn.Module, num_classes: int) -> Iterator[Caught]:
    """Catch the input [N, D] of the last linear layer with C outputs that runs in this block.

    A student whose logits come from anything else (a 1x1 convolution, say) has none.

    Args:
        student: images to logits [N, C].
        num_classes: C.

    Yields:
        Where the features are after the student was called.
    """
    caught = Caught()

    def catch(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        caught.features = inputs[0] if inputs[0].ndim == 2 else None

    heads = [m for m in student.modules() if isinstance(m, nn.Linear)]
    hooks = [m.register_forward_pre_hook(catch) for m in heads if m.out_features == num_classes]
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()
