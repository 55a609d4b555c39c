"""report.html: the evaluation as a page to read, pictures included."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from softlabel.tools.evaluate.bootstrap import RESAMPLES
from softlabel.tools.evaluate.evaluation import Evaluation
from softlabel.tools.evaluate.examples import cards, strong_disagreements, unsure_agreements
from softlabel.tools.evaluate.groups import groups
from softlabel.tools.evaluate.metrics import ByClass
from softlabel.tools.evaluate.page_parts import part_sections
from softlabel.tools.evaluate.rows import columns, summary
from softlabel.tools.report.figures import class_bars, histogram, reliability_diagram, scatter
from softlabel.tools.report.gallery import gallery
from softlabel.tools.report.page import (
    Markup,
    bullets,
    facts,
    figure,
    folded,
    page,
    paragraph,
    section,
    side_by_side,
    table,
    tiles,
)
from softlabel.tools.report.training import training_curves
from softlabel.tools.stats.collect import collect
from softlabel.tools.store_stats import store_stats

_POINTS = 600
"""Images in a scatter diagram at most."""

_BARS = 20
"""Classes in the figure; with more, those on which student and teacher agree least."""


def report_page(evaluation: Evaluation) -> str:
    """The whole page."""
    name = evaluation.models[0].described.name
    return page(
        f"{name} against its teacher", *report_sections(evaluation), subtitle=summary(evaluation)
    )


def report_sections(evaluation: Evaluation) -> list[Markup]:
    """The parts of the page, for a larger report to take in."""
    return [
        section("Summary", _tiles(evaluation), *_tables(evaluation), *_notes(evaluation)),
        *_training(evaluation),
        section("Confidence", *_confidence(evaluation)),
        section("Classes", *_classes(evaluation)),
        *_examples(evaluation),
        *part_sections(evaluation),
        section("The teacher's labels", _labels(evaluation)),
        section("What was measured", _models(evaluation), _meaning(evaluation)),
    ]


def _tiles(evaluation: Evaluation) -> Markup:
    own = evaluation.figures["student"]
    teacher = evaluation.figures["teacher"]
    found = [
        (
            f"{own['agreement'].value:.1%}",
            "agreement with the teacher",
            "share of images with the same first class",
        )
    ]
    if "accuracy" in own:
        detail = f"the teacher {teacher['accuracy'].value:.1%}"
        found.append((f"{own['accuracy'].value:.1%}", "top-1 accuracy", detail))
    found.append((f"{own['kl'].value:.3f}", "nats of KL(teacher || student)", "0 is a copy"))
    if "ece" in own:
        detail = f"the teacher {teacher['ece'].value:.1%}"
        found.append((f"{own['ece'].value:.1%}", "calibration error", detail))
    return tiles(found)


def _tables(evaluation: Evaluation) -> Iterator[Markup]:
    for group in groups(evaluation):
        rows = [[row.title, f"{row.n:,}", *row.cells] for row in group.rows]
        yield table([group.title, "n", *columns(evaluation)], rows)
        if group.detail:
            yield paragraph(f"{group.title}: {group.detail}.")


def _notes(evaluation: Evaluation) -> list[Markup]:
    return [bullets(evaluation.notes)] if evaluation.notes else []


def _training(evaluation: Evaluation) -> list[Markup]:
    files = {model.role: model.folder / "metrics.csv" for model in evaluation.models}
    drawing = training_curves(files)
    if drawing is None:
        return []
    caption = (
        "From metrics.csv: means over training batches, not over the images of this page. Losses "
        "compare only between students of one objective and temperature."
    )
    return [section("Training", figure(drawing, caption))]


def _sureness(evaluation: Evaluation) -> Markup:
    """Each student's log-odds of the teacher's first class against the teacher's own."""
    chosen = np.argsort(evaluation.images.key_hash, kind="stable")[:_POINTS]
    teacher = evaluation.answers["teacher"].log_odds
    drawings = []
    for role in evaluation.agreement_by_class:
        slope = evaluation.figures[role].get("conf_slope")
        own = evaluation.answers[role].log_odds
        line = None
        if slope is not None:
            line = (slope.value, float(own.mean() - slope.value * teacher.mean()))
        drawing = scatter(
            role,
            x=teacher[chosen],
            y=own[chosen],
            line=line,
            x_label="teacher's log-odds",
            y_label="model's log-odds",
        )
        said = "" if slope is None else f"Slope {slope.value:.2f}"
        drawings.append(figure(drawing, said))
    return side_by_side(drawings)


def _confidence(evaluation: Evaluation) -> Iterator[Markup]:
    yield _sureness(evaluation)
    yield paragraph(
        "A dot an image: log(p / (1 - p)) of the teacher's first class, as the teacher and as the "
        "model have it. On the dashed line both are as sure; the full line is the least squares "
        "fit, and steeper than the dashed one it means that the model exaggerates."
    )
    values = {role: evaluation.answers[role].confidence for role in evaluation.roles}
    yield figure(
        histogram(values, label="confidence (probability of the first class)"),
        "How sure each is of its first class.",
    )
    if not evaluation.reliability:
        yield paragraph("Without targets nobody can say whether that confidence is earned.")
        return
    drawings = []
    for role in evaluation.roles:
        bins, error = evaluation.reliability[role], evaluation.figures[role]["ece"].value
        drawing = reliability_diagram(
            role, confidence=bins.confidence, accuracy=bins.accuracy, count=bins.count
        )
        drawings.append(figure(drawing, f"Calibration error {error:.1%}"))
    yield side_by_side(drawings)
    yield paragraph(
        "Bars: accuracy among images of similar confidence; dots lie at their mean confidence, the "
        "larger the more images. Below the dashed line a model is surer than it should be."
    )


def _classes(evaluation: Evaluation) -> Iterator[Markup]:
    agreement, accuracy = evaluation.agreement_by_class, evaluation.accuracy_by_class
    drawings = [
        _bars(evaluation, agreement, "agreement with the teacher", "By the teacher's first class")
    ]
    if accuracy:
        by_role = {role: accuracy[role] for role in evaluation.roles}
        drawings.append(_bars(evaluation, by_role, "accuracy", "By target"))
    yield side_by_side(drawings)
    yield folded("All classes in numbers", _class_table(evaluation))


def _bars(
    evaluation: Evaluation, by_role: Mapping[str, ByClass], label: str, caption: str
) -> Markup:
    """The classes that have images; with many, those where the student's share is least."""
    names, own = evaluation.class_names, by_role["student"]
    shown = seen = np.flatnonzero(own.count)
    if len(seen) > _BARS:
        shown = seen[np.lexsort((-own.count[seen], own.mean[seen]))[:_BARS]]
        caption += f"; the {_BARS} of {len(seen)} with the student's least {label}"
    # A role without an image of a class has no bar there, which is not a bar of 0 %.
    shares = {
        role: np.where(found.count[shown] > 0, found.mean[shown], np.nan)
        for role, found in by_role.items()
    }
    return figure(class_bars([names[c] for c in shown], shares, label=label), f"{caption}.")


def _class_table(evaluation: Evaluation) -> Markup:
    agreement, accuracy = evaluation.agreement_by_class, evaluation.accuracy_by_class
    head = ["class", "teacher's first", *(f"agreement, {role}" for role in agreement)]
    if accuracy:
        head += ["targets", *(f"accuracy, {role}" for role in evaluation.roles)]
    rows = []
    for c, name in enumerate(evaluation.class_names):
        columns = [agreement["student"].count[c]]
        row = [name, f"{columns[0]:,}", *(_share(found, c) for found in agreement.values())]
        if accuracy:
            row.append(f"{accuracy['student'].count[c]:,}")
            row += [_share(accuracy[role], c) for role in evaluation.roles]
        rows.append(row)
    return table(head, rows)


def _share(found: Any, number: int) -> str:
    return f"{found.mean[number]:.1%}" if found.count[number] else "-"


def _examples(evaluation: Evaluation) -> list[Markup]:
    parts = {
        "Strongest disagreements": (
            strong_disagreements(evaluation),
            "Student and teacher say different things, and both are sure.",
        ),
        "Least sure agreements": (
            unsure_agreements(evaluation),
            "Student and teacher say the same, and the student is least sure.",
        ),
    }
    found = []
    for title, (rows, said) in parts.items():
        if shown := cards(evaluation, rows):
            if evaluation.reliability:
                said += " The target is set in bold."
            found.append(section(title, paragraph(said), gallery(shown)))
    return found


def _labels(evaluation: Evaluation) -> Markup:
    store = evaluation.labelled.store
    stats = store_stats(store, collect(store, only=evaluation.labelled.urls.keys()))
    labels, classes, manifest = stats["labels"], stats["classes"], stats["manifest"]
    tails = ", ".join(f"{mass:.2%} at {t}" for t, mass in labels["mean_tail"].items())
    status = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in stats["status"].items())
    frequent = ", ".join(f"{name} {share:.1%}" for name, share in classes["most_frequent"].items())
    return facts(
        [
            ("store", f"{stats['store']}, id {stats['store_id'][:12]}"),
            ("teacher", f"sha256 {manifest['teacher_sha256'][:12]}"),
            ("images", f"{status}; {stats['duplicate_images']:,} exact duplicates"),
            ("stored", f"top {manifest['top_k']} of {manifest['num_classes']} classes"),
            ("mean probability of the first class", f"{labels['mean_p1']:.3f}"),
            ("mean entropy", f"{labels['mean_entropy_nats']:.3f} nats"),
            ("nearly hard labels (p > 0.999)", f"{labels['share_p1_over_0.999']:.1%}"),
            ("mean tail mass by temperature", tails),
            ("effective number of classes", f"{classes['effective_number']:.1f}"),
            ("most frequent first classes", frequent),
        ]
    )


def _models(evaluation: Evaluation) -> Markup:
    rows = []
    for model in evaluation.models:
        described = model.described
        rows.append(
            [
                model.role,
                described.name,
                f"{model.num_parameters:,}",
                f"{described.recipe.height} x {described.recipe.width}",
                model.folder,
            ]
        )
    return table(["model", "name", "parameters", "input", "folder"], rows, numbers=False)


def _meaning(evaluation: Evaluation) -> Markup:
    return facts(
        [
            *(meaning for group in groups(evaluation) for meaning in group.meanings),
            ("n", "images that the student's figure is of, or another model's where it has none"),
            (
                "intervals",
                f"95 %, by resampling images {RESAMPLES:,} times, the same for all; those of "
                "embeddings: fewer times, over some images",
            ),
            ("view", "each model sees the centre view of its own recipe"),
        ]
    )
