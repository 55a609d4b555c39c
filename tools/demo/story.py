"""The stages of the demo, in order: images, teacher, labels, students, comparison, report."""

import shutil
from pathlib import Path

from softlabel.shards.errors import MachineError, UsageError
from softlabel.shards.sealed import canonical
from softlabel.tools.demo import commands
from softlabel.tools.demo.settings import (
    NUM_FOREIGN_TARS,
    NUM_TEST_TARS,
    NUM_TRAIN_TARS,
    DemoConfig,
)
from softlabel.tools.demo.stages import StageTimes

_NOTE = "demo.json"


def tell(config: DemoConfig) -> None:
    """Do what is not done yet, then print the table and where the report is.

    Raises:
        SoftLabelError: what a stage could not do; the same command goes on from there.
    """
    _settle(config)
    times = StageTimes(config.folder / "stages.json")
    with times.stage("images and teacher") as done:
        teacher = _teacher()
        if not done:
            _write_images(config)
    with times.stage("label: the teacher, once"):
        commands.run(commands.label_train(config, teacher))
        commands.run(commands.label_foreign(config, teacher))
        commands.run(commands.label_test(config, teacher))
    with times.stage("baseline's true classes"):
        commands.run(commands.label_labelled(config, teacher))
    with times.stage("train: student, baseline and a student of foreign images, side by side"):
        commands.run(
            commands.train_student(config),
            commands.train_baseline(config),
            commands.train_blind(config),
        )
    with times.stage("compare on the test images"):
        from softlabel.tools.demo.report import compare, compare_blind, result_lines, write_report

        commands.show(commands.evaluate(config))
        evaluation = compare(config)
        commands.show(commands.evaluate_blind(config))
        blind = compare_blind(config)
    write_report(config, evaluation, blind, times.seconds())
    print(*result_lines(config, evaluation, blind, times.seconds()), sep="\n")


def _settle(config: DemoConfig) -> None:
    """Make the folder, or refuse to go on with one that was begun with other settings."""
    settings = {"steps": config.steps, "views": config.views, "seed": config.seed}
    note = config.folder / _NOTE
    if config.fresh and note.is_file():
        shutil.rmtree(config.folder)
    if note.is_file():
        if note.read_bytes() != canonical(settings):
            raise UsageError(
                f"{config.folder} was begun with {note.read_text()}, now it is "
                f"{canonical(settings).decode()}; add --fresh, or use another --folder"
            )
        print(f"demo: going on in {config.folder}/ (make demo-fresh starts over)")
        return
    if config.folder.exists() and any(config.folder.iterdir()):
        raise UsageError(f"--folder {config.folder}: wanted a new or empty folder, found files")
    config.folder.mkdir(parents=True, exist_ok=True)
    note.write_bytes(canonical(settings))
    print(f"demo: everything goes into {config.folder}/, downloads into the user's cache")


def _teacher() -> Path:
    from softlabel.tools.realdata import teachers

    return teachers.cifar10_resnet()


def _write_images(config: DemoConfig) -> None:
    from softlabel.tools.realdata import cifar10
    from softlabel.tools.realdata.image_tars import write_tars

    images = cifar10.load()
    train, test = images.train, images.test
    write_tars(
        train.images,
        None,
        config.train_tars,
        prefix="train",
        num_tars=NUM_TRAIN_TARS,
        key_prefix="train-",
    )
    write_tars(
        train.images,
        train.targets,
        config.labelled_tars,
        prefix="labelled",
        num_tars=NUM_TRAIN_TARS,
        key_prefix="train-",
    )
    write_tars(
        test.images,
        test.targets,
        config.test_tars,
        prefix="test",
        num_tars=NUM_TEST_TARS,
        key_prefix="test-",
    )
    foreign = _write_foreign(config)
    print(f"wrote {NUM_TRAIN_TARS} tars of training images without labels: {config.train_tars}")
    print(f"wrote the same with labels, for the baseline only: {config.labelled_tars}")
    print(f"wrote {NUM_TEST_TARS} tars of test images: {config.test_tars}")
    print(f"wrote tars of foreign images ({', '.join(foreign)}): {config.foreign_tars}")


def _write_foreign(config: DemoConfig) -> list[str]:
    """Emoji, and crops of two photographs; names and counts. Without emoji the crops alone."""
    from softlabel.tools.realdata import collections
    from softlabel.tools.realdata.image_tars import write_tars

    written = []
    for name in ("emoji", "patches"):
        try:
            images = collections.COLLECTIONS[name](32)
        except MachineError as error:
            print(f"left out: {name}: {error}")
            continue
        write_tars(
            images,
            None,
            config.foreign_tars,
            prefix=name,
            num_tars=NUM_FOREIGN_TARS,
            key_prefix=f"{name}-",
        )
        written.append(f"{len(images):,} {name}")
    return written
