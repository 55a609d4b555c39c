"""A campaign: the experiments of some data sets done, judged and written down."""

import datetime
import shutil
from collections.abc import Iterable, Mapping, Sequence

from softlabel.shards import durable
from softlabel.shards.errors import SoftLabelError, UsageError
from softlabel.tools.bench.machine import machine
from softlabel.tools.experiments import pages
from softlabel.tools.experiments.data_sets import data_set
from softlabel.tools.experiments.recipes import filled
from softlabel.tools.experiments.registry import EXPERIMENTS
from softlabel.tools.experiments.results import Results
from softlabel.tools.experiments.run import Run
from softlabel.tools.experiments.runner import Outcome, do
from softlabel.tools.experiments.scope import Scope
from softlabel.tools.experiments.settings import DataName, ExperimentName, ExperimentsConfig
from softlabel.tools.experiments.summary import Part, Summary, read_summary, write_summary
from softlabel.tools.experiments.tasks import Result, Task

_ALL: tuple[DataName, ...] = ("digits", "mnist", "cifar10")
_NOTE = ".experiments"
Chosen = Mapping[tuple[DataName, ExperimentName], Sequence[Task]]


class FailedError(SoftLabelError):
    """Some students went wrong; everything else is done and written."""

    exit_code = 1


def campaign(config: ExperimentsConfig) -> None:
    """Do what is not done yet, write the summaries and both pages.

    Raises:
        UsageError: --folder is something else, --only leaves nothing.
        FailedError: at the end, if a student went wrong.
    """
    if config.render:
        _write_pages(config)
        return
    _claim_folder(config)
    scopes = {
        name: Scope(data=data_set(name), seeds=config.seeds, scale=config.steps_scale)
        for name in config.data
    }
    chosen = _chosen(config, scopes)
    tasks = [task for found in chosen.values() for task in found]
    outcome = do(tasks, config.folder, jobs=config.jobs, say=_say)
    for name, scope in scopes.items():
        _sum_up(config, scope, chosen, outcome)
        _say(f"{name}: {pages.counts(_known(config, name))}")
    _write_pages(config)
    if outcome.failed:
        raise FailedError(
            f"{len(outcome.failed)} task(s) went wrong, see above; the same command tries again"
        )


def _say(line: str) -> None:
    print(line, flush=True)


def _claim_folder(config: ExperimentsConfig) -> None:
    """Make the folder, or empty it; it must be ours."""
    folder = config.folder
    note = folder / _NOTE
    if folder.exists() and not note.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--folder {folder}: wanted a new or empty folder, found something else")
    if config.fresh and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    note.touch()


def _chosen(config: ExperimentsConfig, scopes: Mapping[DataName, Scope]) -> Chosen:
    chosen = {
        (data, name): EXPERIMENTS[name].runs(scope)
        for data, scope in scopes.items()
        for name in config.only or EXPERIMENTS
        if data in EXPERIMENTS[name].data
    }
    if not chosen:
        raise UsageError(
            f"--only {' '.join(config.only)}: is not for --data {' '.join(config.data)}"
        )
    return chosen


def _sum_up(config: ExperimentsConfig, scope: Scope, chosen: Chosen, outcome: Outcome) -> None:
    """Judge a data set's experiments and put them beside those of earlier campaigns."""
    summary = read_summary(config.summary_folder, scope.data.name)
    summary = summary or Summary(data=scope.data.name, title=scope.data.title)
    results = Results(outcome.results)
    for (data, name), tasks in chosen.items():
        if data == scope.data.name:
            findings = EXPERIMENTS[name].findings(scope, results)
            summary.parts[name] = Part(
                findings=findings.to_dict(),
                date=datetime.datetime.now(datetime.UTC).date().isoformat(),
                seeds=scope.seeds,
                scale=scope.scale,
                students=sum(isinstance(task, Run) for task in set(tasks)),
                seconds=_seconds(tasks, outcome.results),
                machine=machine(),
                skipped=_titles(tasks, outcome.skipped),
                failed=_titles(tasks, outcome.failed),
            )
    summary.parts = {n: summary.parts[n] for n in map(str, EXPERIMENTS) if n in summary.parts}
    write_summary(config.summary_folder, summary)


def _seconds(tasks: Iterable[Task], results: Mapping[Task, Result]) -> float:
    return sum(float(results[task].get("seconds", 0.0)) for task in set(tasks) if task in results)


def _titles(tasks: Iterable[Task], ended: Mapping[Task, str]) -> list[str]:
    return [f"{task.title}: {ended[task]}" for task in dict.fromkeys(tasks) if task in ended]


def _known(config: ExperimentsConfig, data: str) -> Summary:
    summary = read_summary(config.summary_folder, data)
    assert summary is not None
    return summary


def _write_pages(config: ExperimentsConfig) -> None:
    found = [read_summary(config.summary_folder, data) for data in _ALL]
    summaries = [summary for summary in found if summary is not None]
    if not summaries:
        raise UsageError(f"--summaries {config.summary_folder}: holds no results to write pages of")
    report = config.folder / "report.html"
    config.folder.mkdir(parents=True, exist_ok=True)
    config.results_page.parent.mkdir(parents=True, exist_ok=True)
    durable.replace_all({config.results_page: pages.markdown(summaries).encode()})
    durable.replace_all({report: pages.report(summaries).encode()})
    if config.recipes.is_file() and not config.trial:
        text = filled(config.recipes.read_text(encoding="utf-8"), summaries)
        durable.replace_all({config.recipes: text.encode()})
    _say(f"look at {config.results_page} and {report}")
