"""Students small enough to be trained by the dozen on one core."""

from collections.abc import Sequence

from torch import Tensor, nn


class PlainCNN(nn.Module):
    """Images [N, 3, side, side] to logits [N, C]: convolutions with BatchNorm, one linear layer."""

    def __init__(
        self, num_classes: int, *, side: int, widths: Sequence[int], stride: int = 1
    ) -> None:
        """`stride` is the first convolution's; after each of the others the side is halved."""
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for number, wider in enumerate(widths):
            layers += [
                nn.Conv2d(width, wider, 3, stride if number == 0 else 1, padding=1, bias=False),
                nn.BatchNorm2d(wider),
                nn.ReLU(inplace=True),
            ]
            if number:
                layers.append(nn.MaxPool2d(2))
            side = -(-side // stride) if number == 0 else side // 2
            width = wider
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(width * side * side, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(image))
        return logits


def digits_small(num_classes: int) -> nn.Module:
    """For 8 x 8: 3,680 parameters with 10 classes, S of the tables."""
    return PlainCNN(num_classes, side=8, widths=(8, 12, 17))


def digits_medium(num_classes: int) -> nn.Module:
    """For 8 x 8: 14,298 parameters with 10 classes, M of the tables."""
    return PlainCNN(num_classes, side=8, widths=(16, 24, 40))


def mnist_small(num_classes: int) -> nn.Module:
    """For 28 x 28: 8,978 parameters with 10 classes."""
    return PlainCNN(num_classes, side=28, widths=(8, 16, 32), stride=2)
