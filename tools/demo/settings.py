"""What the demo does, in numbers, and where it puts things."""

from dataclasses import dataclass
from pathlib import Path

NUM_TRAIN_TARS = 50
NUM_TEST_TARS = 10
NUM_FOREIGN_TARS = 12
"""Of each foreign collection."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The flags of the demo."""

    folder: Path = Path("demo")
    """Where tars, labels, students and the report go."""
    fresh: bool = False
    """Start over; downloads are kept. Without it the demo goes on where it stopped."""
    steps: int = 1250
    """Training steps of 128 images, the same for all three students."""
    views: int = 4
    """Labelled crop-flip views an image."""
    seed: int = 0
    """Of weights, order and views."""

    @property
    def train_tars(self) -> Path:
        """The unlabelled images."""
        return self.folder / "tars/train"

    @property
    def labelled_tars(self) -> Path:
        """The same images with their true classes: only the baseline sees them."""
        return self.folder / "tars/labelled"

    @property
    def test_tars(self) -> Path:
        """The test images with their true classes."""
        return self.folder / "tars/test"

    @property
    def foreign_tars(self) -> Path:
        """Images of none of the ten classes' kind: emoji and crops of two photographs."""
        return self.folder / "tars/foreign"

    @property
    def foreign_labels(self) -> Path:
        """What the teacher says of those."""
        return self.folder / "labels/foreign.zarr"

    @property
    def train_labels(self) -> Path:
        """What the teacher says of the unlabelled images."""
        return self.folder / "labels/train.zarr"

    @property
    def labelled_labels(self) -> Path:
        """The store beside the labelled tars: their index and true classes."""
        return self.folder / "labels/labelled.zarr"

    @property
    def test_labels(self) -> Path:
        """What the teacher says of the test images."""
        return self.folder / "labels/test.zarr"

    @property
    def student(self) -> Path:
        """The student of the stored labels."""
        return self.folder / "student"

    @property
    def baseline(self) -> Path:
        """The same student on the true classes."""
        return self.folder / "baseline"

    @property
    def blind(self) -> Path:
        """The same student, as long, on the foreign images' labels."""
        return self.folder / "blind"

    @property
    def evaluation(self) -> Path:
        """kd-eval's output."""
        return self.folder / "evaluation"

    @property
    def blind_evaluation(self) -> Path:
        """kd-eval's output for the student of foreign images."""
        return self.folder / "blind-evaluation"

    @property
    def report(self) -> Path:
        """The page to look at."""
        return self.folder / "report.html"
