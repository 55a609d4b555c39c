"""The experiments by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from softlabel.tools.experiments import blind, fidelity, finetune, mixed, tails, temperature
from softlabel.tools.experiments.claims import Findings
from softlabel.tools.experiments.results import Results
from softlabel.tools.experiments.scope import Scope
from softlabel.tools.experiments.settings import ExperimentName
from softlabel.tools.experiments.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One claim or a few that share their students."""

    title: str
    runs: Callable[[Scope], Sequence[Task]]
    findings: Callable[[Scope, Results], Findings]
    data: tuple[str, ...] = ("digits", "mnist", "cifar10")


EXPERIMENTS: Mapping[ExperimentName, Experiment] = {
    "blind": Experiment(title="Blind distillation", runs=blind.runs, findings=blind.findings),
    "temperature": Experiment(
        title="Temperature",
        runs=temperature.runs,
        findings=temperature.findings,
        data=("digits", "mnist"),
    ),
    "finetune": Experiment(title="Phase two", runs=finetune.runs, findings=finetune.findings),
    "mixed": Experiment(title="Mixed pools", runs=mixed.runs, findings=mixed.findings),
    "fidelity": Experiment(
        title="Fidelity", runs=fidelity.runs, findings=fidelity.findings, data=("digits",)
    ),
    "tails": Experiment(
        title="Tail rules", runs=tails.runs, findings=tails.findings, data=("digits",)
    ),
}
