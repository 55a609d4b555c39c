import itertools
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from softlabel.shards.errors import MachineError, UsageError
from softlabel.tools.experiments import mixed, students
from softlabel.tools.experiments.claims import Bound, Claim, shown, shown_bound
from softlabel.tools.experiments.data_sets import data_set, first_of_each_class
from softlabel.tools.experiments.intervals import Spread, spread
from softlabel.tools.experiments.material import Labels
from softlabel.tools.experiments.registry import EXPERIMENTS
from softlabel.tools.experiments.results import MissingError, Results
from softlabel.tools.experiments.run import Run
from softlabel.tools.experiments.runner import do
from softlabel.tools.experiments.scope import Scope
from softlabel.tools.experiments.settings import ExperimentsConfig
from softlabel.tools.experiments.tasks import finished, key_of
from softlabel.tools.realdata.split import Split

DATA = ("digits", "mnist", "cifar10")
EVERYTHING = [
    (data, name)
    for data, (name, experiment) in itertools.product(DATA, EXPERIMENTS.items())
    if data in experiment.data
]


# Intervals and verdicts


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=10))
def test_an_interval_is_students(values):
    found = spread(values)
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    half = stats.t.ppf(0.975, len(values) - 1) * error
    assert found.half == pytest.approx(half, rel=1e-6, abs=1e-9)


def test_one_value_has_no_interval_and_eleven_are_refused():
    assert spread([0.5]) == Spread(mean=0.5, half=None, count=1)
    for values in ([], [0.0] * 11):
        with pytest.raises(ValueError, match="1 to 10"):
            spread(values)


@pytest.mark.parametrize(
    ("relation", "below", "at", "above"),
    [
        (">=", False, True, True),
        (">", False, False, True),
        ("<=", True, True, False),
        ("<", True, False, False),
    ],
)
def test_a_bound_holds_on_its_side_only_and_never_for_nan(relation, below, at, above):
    bound = Bound(relation=relation, value=0.7)
    assert [bound.holds(value) for value in (0.69, 0.7, 0.71)] == [below, at, above]
    assert not bound.holds(math.nan)


def claim(mean: float, *, bound: Bound | None, binding: bool) -> Claim:
    return Claim(
        name="c",
        says="s",
        source="paper",
        figure=Spread(mean=mean, half=0.1, count=3),
        unit="share",
        bound=bound,
        binding=binding,
    )


@pytest.mark.parametrize(
    ("mean", "binding", "verdict"),
    [
        (0.81, True, "reproduced"),
        (0.79, True, "not reproduced"),
        (0.81, False, "reported: holds here"),
        (0.79, False, "reported: does not hold here"),
    ],
)
def test_the_verdict_is_the_means_against_the_bound(mean, binding, verdict):
    bound = Bound(relation=">=", value=0.8)
    assert claim(mean, bound=bound, binding=binding).verdict == verdict


def test_a_claim_without_a_bound_is_reported():
    assert claim(0.9, bound=None, binding=True).verdict == "reported"


def test_figures_are_printed_in_their_unit():
    value = Spread(mean=0.9084, half=0.0241, count=3)
    assert shown(value, "share") == "90.8 ± 2.4 %"
    assert shown(value, "points") == "90.8 ± 2.4 pt"
    assert shown(value, "ratio") == "0.91 ± 0.02x"
    assert shown(replace(value, half=None), "number") == "0.908"
    assert shown_bound(Bound(relation="<=", value=0.2), "share") == "<= 20 %"
    assert shown_bound(Bound(relation="<=", value=0.5), "ratio") == "<= 0.5x"
    assert shown_bound(None, "ratio") == "none"


def test_the_bounds_are_those_of_the_measurement_before():
    """Nobody tunes a bound without changing this table."""
    scope = Scope(data=data_set("digits"), seeds=3)
    found = {}
    for experiment in EXPERIMENTS.values():
        findings = experiment.findings(scope, all_alike(scope))
        for judged in findings.claims:
            if judged.bound is not None and judged.binding:
                found[judged.name] = f"{judged.bound.relation} {judged.bound.value:g}"
        assert not findings.left_out
    assert found == {
        "blind-main": ">= 0.8",
        "blind-shuffled": "<= 0.2",
        "blind-letters-over-patches": "> 0",
        "blind-patches-over-noise": "> 0",
        "finetune-gain": ">= 0.04",
        "finetune-over-alone": ">= 0",
        "mixed-balanced-faster": "<= 0.5",
        "mixed-balanced-end": ">= -0.01",
        "mixed-balanced-annealed-faster": "<= 0.5",
        "mixed-balanced-annealed-end": ">= -0.01",
        "mixed-confidence-p1": "< 0",
        "mixed-confidence-entropy": "< 0",
        "mixed-confidence-energy": "< 0",
        "mixed-classes-related-over-letters": "> 0",
        "mixed-classes-letters-over-patches": "> 0",
        "mixed-classes-patches-over-noise": "> 0",
        "fidelity-kl": "<= 0.7",
        "tails-bucket": "<= 1.05",
        "tails-renorm-2": ">= 1.3",
        "tails-renorm-3": ">= 1.3",
    }


def all_alike(scope: Scope) -> Results:
    """The same result for everything."""
    names = ("accuracy", "agreement", "kl", "tv", "ece", "conf_slope")
    figures = dict.fromkeys(names, 0.5)
    found: dict[Any, Any] = {}
    for experiment in EXPERIMENTS.values():
        for task in experiment.runs(scope):
            curve = [[step, step / 3200] for step in getattr(task, "measured_at", ())]
            source = {"images": 9, "effective_classes": 5.0, "largest_share": 0.5}
            sources = {name: source for name in scope.data.mixture}  # noqa: C420
            roles = {"student": figures, "teacher": figures}
            found[task] = {"figures": roles, "curve": curve, "sources": sources}
    return Results(found)


# Experiments


@pytest.mark.parametrize(("data", "name"), EVERYTHING)
def test_every_student_has_flags_that_kd_train_takes(data, name, tmp_path):
    described = data_set(data)
    tasks = EXPERIMENTS[name].runs(Scope(data=described, seeds=2, scale=0.5))
    assert tasks
    for run in (task for task in tasks if isinstance(task, Run)):
        config = run._config(tmp_path)
        assert config.steps is not None
        assert config.student == described.student
        assert {pool for pool, _ in run.labels.pools} <= set(described.pools)
        assert {run.labels.teacher, run.judge} <= set(described.teachers)
        assert all(step <= config.steps for step in run.measured_at)


@pytest.mark.parametrize(("data", "name"), EVERYTHING)
def test_without_any_result_nothing_is_judged_and_all_of_it_is_named(data, name):
    findings = EXPERIMENTS[name].findings(Scope(data=data_set(data), seeds=2), Results({}))
    assert not findings.claims
    assert findings.left_out or data == "cifar10"
    json.dumps(findings.to_dict())


def test_students_have_the_parameters_they_are_known_by():
    built = {
        factory.__name__: sum(p.numel() for p in factory(10).parameters())
        for factory in (students.digits_small, students.digits_medium, students.mnist_small)
    }
    assert built == {"digits_small": 3680, "digits_medium": 14298, "mnist_small": 8978}


def test_ten_images_a_class_are_the_first_ones_in_their_order():
    targets = np.array([1, 0, 1, 1, 0, 0])
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    found = first_of_each_class(Split(images=images, targets=targets), 2)
    assert found.ravel().tolist() == [0, 1, 2, 4]


def test_steps_to_a_goal_lie_between_the_measured_ones():
    curve = {100: 0.5, 200: 0.8, 400: 1.0}
    assert mixed.steps_to(curve, 0.9) == pytest.approx(200 * math.sqrt(2))
    assert mixed.steps_to(curve, 0.4) == 100
    assert mixed.steps_to(curve, 0.8) == pytest.approx(200)
    assert mixed.steps_to({100: 0.5}, 0.9) is None


@pytest.mark.parametrize(
    ("own", "uniform", "ratio"),
    [
        ({100: 0.9, 400: 0.95}, {100: 0.1, 400: 0.9}, 0.25),
        ({100: 0.9, 400: 0.95}, {100: 0.1, 400: 0.2}, 0.25),
        ({100: 0.1, 400: 0.2}, {100: 0.9, 400: 0.95}, 4.0),
    ],
)
def test_a_student_that_never_gets_there_counts_by_its_last_step(own, uniform, ratio):
    assert mixed._step_ratio(own, uniform) == pytest.approx(ratio)
    with pytest.raises(MissingError, match="90%"):
        mixed._step_ratio({100: 0.1}, {100: 0.1})


# Keys


def run_of(**changes: Any) -> Run:
    labels = Labels(data="digits", teacher="teacher", pools=(("letters", None),))
    values = {"labels": labels, "training": (("steps", 5),), "seed": 0, "judge": "teacher"}
    return Run(**{"title": "t", **values, **changes})


def test_a_title_is_no_part_of_a_run():
    assert run_of() == run_of(title="other")
    assert key_of(run_of()) == key_of(run_of(title="other"))
    assert len({run_of(), run_of(title="other")}) == 1


def test_every_setting_changes_the_key():
    labels = run_of().labels
    changed = [
        run_of(),
        run_of(seed=1),
        run_of(judge="own"),
        run_of(measured_at=(5,)),
        run_of(training=(("steps", 6),)),
        run_of(init=run_of()),
        run_of(labels=replace(labels, top_k=3)),
        run_of(labels=replace(labels, shuffled=True)),
        run_of(labels=replace(labels, pools=(("letters", 2000),))),
        run_of(labels=replace(labels, data="mnist")),
    ]
    assert len({key_of(run) for run in changed}) == len(changed)


def test_a_key_depends_on_settings_alone_so_old_results_are_found_again():
    assert key_of(run_of()) == "6aea60ecc4a9cc1a"


# The runner


@dataclass(frozen=True, kw_only=True)
class Fake:
    name: str
    after: tuple["Fake", ...] = ()
    cost: float = 1.0
    data: str = "digits"
    done: list[str] = field(default_factory=list, compare=False)
    error: BaseException | None = field(default=None, compare=False)

    @property
    def title(self) -> str:
        return f"fake {self.name}"

    def settings(self) -> Mapping[str, Any]:
        return {"name": self.name}

    def needs(self) -> Sequence["Fake"]:
        return self.after

    def execute(self, folder: Path) -> Mapping[str, Any]:
        if self.error is not None:
            raise self.error
        self.done.append(self.name)
        return {"name": self.name}


def perform(tasks: Sequence[Fake], folder: Path, lines: list[str] | None = None) -> Any:
    say = (lines if lines is not None else []).append
    return do(tasks, folder, jobs=1, say=say, pool=ThreadPoolExecutor)


def test_what_a_task_needs_is_done_before_it_and_once(tmp_path):
    done: list[str] = []
    tars = Fake(name="tars", done=done)
    labels = Fake(name="labels", after=(tars,), done=done)
    runs = [Fake(name=f"run {i}", after=(labels,), done=done) for i in range(3)]
    lines: list[str] = []
    outcome = perform(runs, tmp_path, lines)
    assert done == ["tars", "labels", "run 0", "run 1", "run 2"]
    assert outcome.results[runs[2]] == {"name": "run 2"}
    assert lines[-1].startswith("[  5/5] fake run 2: 0 s; about 0 min left")


def test_a_killed_campaign_goes_on_with_what_is_left(tmp_path):
    done: list[str] = []
    names = ("a", "b", "c")
    killed = [
        Fake(name=name, done=done, error=KeyboardInterrupt() if name == "b" else None)
        for name in names
    ]
    with pytest.raises(KeyboardInterrupt):
        perform(killed, tmp_path)
    assert done == ["a"]
    outcome = perform([Fake(name=name, done=done) for name in names], tmp_path)
    assert done == ["a", "b", "c"]
    assert {task.name for task in outcome.results} == {"a", "b", "c"}


def test_what_cannot_be_had_is_skipped_with_all_that_needs_it_and_said(tmp_path):
    missing = Fake(name="clip art", error=MachineError("no client"))
    run = Fake(name="run", after=(Fake(name="labels", after=(missing,)),))
    other = Fake(name="other")
    lines: list[str] = []
    outcome = perform([run, other], tmp_path, lines)
    assert {task.name for task in outcome.skipped} == {"clip art", "labels", "run"}
    assert outcome.skipped[run] == "no client"
    assert other in outcome.results
    assert "SKIPPED: no client" in lines[0]
    assert finished(missing, tmp_path) is None


def test_what_goes_wrong_is_logged_and_the_others_are_done(tmp_path):
    wrong, other = Fake(name="wrong", error=ZeroDivisionError("by 0")), Fake(name="other")
    outcome = perform([wrong, Fake(name="run", after=(wrong,)), other], tmp_path)
    assert outcome.failed[wrong] == "ZeroDivisionError: by 0"
    assert len(outcome.failed) == 2
    assert other in outcome.results
    (log,) = [path for path in tmp_path.rglob("log.txt") if path.read_text()]
    assert "ZeroDivisionError" in log.read_text()


# Flags


def test_a_trial_leaves_the_real_results_alone():
    trial, real = ExperimentsConfig(steps_scale=0.1), ExperimentsConfig()
    assert trial.results_page == Path("experiments/results.md")
    assert trial.summary_folder == Path("experiments")
    assert real.results_page == Path("docs/results.md")
    assert real.summary_folder == Path("benchmarks")


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"seeds": 11}, {"jobs": 0}, {"steps_scale": 0.0}])
def test_flags_that_can_not_be_right_are_refused(wrong):
    with pytest.raises(ValueError, match="wanted"):
        ExperimentsConfig(**wrong)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    from softlabel.tools.experiments.campaign import campaign

    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        campaign(ExperimentsConfig(folder=tmp_path, fresh=True))
    assert (tmp_path / "thesis.txt").exists()
