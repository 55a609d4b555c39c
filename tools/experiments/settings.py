"""What the experiments can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DataName = Literal["digits", "mnist", "cifar10"]
ExperimentName = Literal["blind", "temperature", "finetune", "mixed", "fidelity", "tails"]

MOST_SEEDS = 10


@dataclass(frozen=True, kw_only=True)
class ExperimentsConfig:
    """The flags of the experiments."""

    data: tuple[DataName, ...] = ("digits", "mnist")
    """Data sets; cifar10 takes hours."""

    only: tuple[ExperimentName, ...] = ()
    """These experiments; default: all that the data set has."""

    seeds: int = 3
    """Students a figure, which differ in their first weights and in the order of images."""

    folder: Path = Path("experiments")
    """Where tars, labels, students and report.html go. What is finished there is not done again."""

    results: Path = Path("docs/results.md")
    """The page of results."""

    recipes: Path = Path("docs/recipes.md")
    """A page written by hand, whose figures are brought up to date; nothing if it is missing."""

    summaries: Path = Path("benchmarks")
    """Folder of experiments-DATA.json, of which the pages are made: a run of one data set leaves
    the others' figures on the page."""

    jobs: int = 2
    """Students trained side by side, a core each."""

    steps_scale: float = 1.0
    """Multiplies the steps of every student: 0.01 tries everything out. Its figures mean nothing,
    and stay in --folder."""

    fresh: bool = False
    """Delete --folder and start over; downloads are kept."""

    render: bool = False
    """Write the pages again from --summaries, run nothing."""

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise ValueError(f"--seeds: wanted 1 to {MOST_SEEDS}, found {self.seeds}")
        if self.jobs < 1:
            raise ValueError(f"--jobs: wanted at least 1, found {self.jobs}")
        if not 0 < self.steps_scale <= 1:
            raise ValueError(f"--steps-scale: wanted above 0 to 1, found {self.steps_scale}")

    @property
    def trial(self) -> bool:
        """Whether the figures mean nothing."""
        return self.steps_scale != 1

    @property
    def results_page(self) -> Path:
        """Where the page of results goes."""
        return self.folder / "results.md" if self.trial else self.results

    @property
    def summary_folder(self) -> Path:
        """Where the summaries are."""
        return self.folder if self.trial else self.summaries
