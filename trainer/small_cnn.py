"""softlabel/small-cnn: four convolutions for 32-pixel images, small enough for a laptop."""

from torch import Tensor, nn

_WIDTHS = (16, 32, 64, 80)
# Halved early: most of a convolution's time goes into large maps, most of its worth into wide ones.
_HALVED_AFTER = (0, 1, 2)


class SmallCNN(nn.Module):
    """Images [N, 3, H, W] to logits [N, C]; any H and W from 8, made for 32.

    70,746 parameters with 10 classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for number, wider in enumerate(_WIDTHS):
            layers += [
                nn.Conv2d(width, wider, 3, padding=1, bias=False),
                nn.BatchNorm2d(wider),
                nn.ReLU(inplace=True),
            ]
            if number in _HALVED_AFTER:
                layers.append(nn.MaxPool2d(2))
            width = wider
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(image).mean((2, 3)))
        return logits
