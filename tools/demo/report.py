"""The demo's one page and its one table: kd-eval's, with the story and the seconds before them."""

from collections.abc import Mapping

from softlabel.shards import durable
from softlabel.shards.store import open_store
from softlabel.tools.demo.settings import DemoConfig
from softlabel.tools.evaluate.config import EvalConfig
from softlabel.tools.evaluate.evaluation import Evaluation
from softlabel.tools.evaluate.page import report_sections
from softlabel.tools.evaluate.run import evaluate, write_results
from softlabel.tools.evaluate.table import lines
from softlabel.tools.report.page import bullets, page, paragraph, section, table
from softlabel.tools.store_stats import stats_lines, store_stats


def compare(config: DemoConfig) -> Evaluation:
    """Student, teacher and baseline on the test images; writes kd-eval's own results too."""
    settings = EvalConfig(
        student=config.student,
        control=config.baseline,
        shards=(str(config.test_tars),),
        labels=config.test_labels,
        output=config.evaluation,
    )
    evaluation = evaluate(settings)
    write_results(evaluation, config.evaluation)
    return evaluation


def compare_blind(config: DemoConfig) -> Evaluation:
    """The student of foreign images on the test images."""
    settings = EvalConfig(
        student=config.blind,
        shards=(str(config.test_tars),),
        labels=config.test_labels,
        output=config.blind_evaluation,
    )
    evaluation = evaluate(settings)
    write_results(evaluation, config.blind_evaluation)
    return evaluation


def blind_line(config: DemoConfig, blind: Evaluation) -> str:
    """The student of foreign images, in a line."""
    own, teacher = blind.figures["student"], blind.figures["teacher"]
    images = blind.models[0].described.training["images"]
    return (
        f"blind: the same student, as many steps, on {images:,} images of other things only "
        f"(emoji, crops of two photographs): accuracy {own['accuracy'].value:.1%} of the teacher's "
        f"{teacher['accuracy'].value:.1%}, agreement {own['agreement'].value:.1%}; chance is 10%"
    )


def write_report(
    config: DemoConfig, evaluation: Evaluation, blind: Evaluation, seconds: Mapping[str, float]
) -> None:
    """report.html."""
    stats = store_stats(open_store(config.train_labels))
    told = section(
        "What was done",
        paragraph(
            f"A ResNet labelled CIFAR-10's 50,000 training images, whose own labels were taken "
            f"away, {config.views} shifted and flipped views each. A student of 70,000 parameters "
            f"saw nothing but these labels for {config.steps:,} steps of 128 images. The control "
            "is the same student, trained as long on the true classes. All three are compared on "
            "the 10,000 test images."
        ),
        paragraph(blind_line(config, blind)),
        table(["stage", "seconds"], [(name, f"{took:.0f}") for name, took in seconds.items()]),
    )
    labels = section("The store of the training images", bullets(list(stats_lines(stats))))
    document = page("softlabel: the demo", told, *report_sections(evaluation), labels)
    durable.replace_all({config.report: document.encode()})


def result_lines(
    config: DemoConfig, evaluation: Evaluation, blind: Evaluation, seconds: Mapping[str, float]
) -> list[str]:
    """The table, the seconds, and where to look."""
    took = ", ".join(f"{name} {s:.0f} s" for name, s in seconds.items())
    return [
        "",
        *lines(evaluation),
        "",
        "control: the same student, as many steps, on the true classes the student never saw",
        blind_line(config, blind),
        f"seconds: {took}; {sum(seconds.values()):.0f} s in all",
        f"look at {config.report}",
    ]
