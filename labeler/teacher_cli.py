"""kd-teacher: give a teacher its recipe, and see whether the recipe is right."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import tyro

from softlabel.shards import commandline
from softlabel.shards.errors import MachineError, UsageError

if TYPE_CHECKING:
    from softlabel.labeler.check import Checked
    from softlabel.labeler.teacher import Teacher
    from softlabel.shards.recipe import Recipe

DESCRIPTION = """Prepare an ONNX teacher, and check its recipe on your images.

Examples:
  kd-teacher prepare --teacher t.onnx --recipe r.json --class-names names.txt --output ready.onnx
  kd-teacher check --teacher ready.onnx --shards 'train-{0000..0099}.tar' --output check.html

Exit codes: 0 done, whatever the verdict; 2 usage, or the file cannot be a teacher; 3 a damaged tar;
5 machine."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Write a copy of a teacher with its recipe and class names inside.

    The copy's graph and weights are the teacher's own; only its metadata changes (softlabel.recipe,
    softlabel.class_names), so that later commands need no --recipe. External data is copied along.
    Says what kd-label will do with the model: its input, classes, batch size and softmax.
    """

    teacher: Path
    """ONNX image classifier: one image input, output (N, C)."""

    output: Path
    """The copy to write."""

    recipe: Path | None = None
    """Preprocessing as JSON (timm's pretrained_cfg); default: what stands in the teacher."""

    class_names: Path | None = None
    """Class names, one a line, or a JSON list; default: what stands in the teacher."""

    teacher_output: str | None = None
    """The output that holds the logits, where the teacher has several (kd-label's --output)."""


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Show a few images as the teacher sees them, and try its recipe against the usual mistakes.

    Prints mean confidence, entropy, number of classes seen, consistency (same answer for an image
    and its mirror image, beyond chance) and, where the tars have targets, accuracy; then which
    recipe looks best. High confidence alone proves nothing: wrong scaling can saturate a network.
    """

    teacher: Path
    """ONNX image classifier: one image input, output (N, C)."""

    shards: tuple[str, ...]
    """WebDataset tars: braces, `::`, a folder, a list file, `-`; paths or fsspec URLs."""

    recipe: Path | None = None
    """Preprocessing as JSON (timm's pretrained_cfg); default: what stands in the teacher."""

    class_names: Path | None = None
    """Class names, one a line, or a JSON list; default: what stands in the teacher."""

    output: Path | None = None
    """HTML page to write: the images with their top-5, and the table."""

    teacher_output: str | None = None
    """The output that holds the logits, where the teacher has several (kd-label's --output)."""

    images: int = 16
    """Images to try; more tell finer differences."""

    decoder: Literal["auto", "torchvision", "pillow"] = "auto"
    """Image decoder; auto: torchvision where it is installed, then pillow."""

    max_image_pixels: int = 64_000_000
    """Larger images are passed over, before they are decoded."""

    image_ext: tuple[str, ...] = ("jpg", "jpeg", "png", "webp")
    """File name extensions that are images."""

    allow_pipe: bool = False
    """Allow `pipe:` tars, which run shell commands."""

    def __post_init__(self) -> None:
        if self.images < 2:
            raise ValueError(f"--images: wanted at least 2, found {self.images}")
        if self.max_image_pixels < 1:
            raise ValueError(
                f"--max-image-pixels: wanted at least 1, found {self.max_image_pixels}"
            )


Command = (
    Annotated[PrepareConfig, tyro.conf.subcommand("prepare")]
    | Annotated[CheckConfig, tyro.conf.subcommand("check")]
)


def run(command: PrepareConfig | CheckConfig) -> int:
    """Carry out one subcommand."""
    if isinstance(command, PrepareConfig):
        prepare(command)
    else:
        check(command)
    return 0


def prepare(command: PrepareConfig) -> None:
    """Write the copy and print what it is."""
    from softlabel.labeler.metadata import record
    from softlabel.labeler.teacher import open_teacher, read_model
    from softlabel.labeler.weights import copy_files, external_files, fingerprint, write_whole

    teacher = open_teacher(command.teacher, output=command.teacher_output)
    recipe = _recipe(command.recipe, teacher)
    names = _class_names(command.class_names, teacher)
    model = read_model(teacher.path)
    record(model, recipe, names)
    files = external_files(model, teacher.path)
    taken = {file.resolve() for file in files.values()}
    if command.output.resolve() in taken:
        raise UsageError(f"--output {command.output}: that file holds the teacher's weights")
    try:
        if teacher.path.parent.resolve() != command.output.parent.resolve():
            copies = copy_files(files, command.output.parent)
            if fingerprint(teacher.path, copies) != teacher.sha256:
                raise UsageError(
                    f"--output {command.output}: its folder has other files named like the "
                    f"teacher's weights ({', '.join(sorted(files))}); choose another folder"
                )
        write_whole(command.output, model.SerializeToString())
    except OSError as error:
        raise MachineError(f"--output {command.output}: can't be written: {error}") from None
    print("\n".join([*_facts(teacher, recipe, names), f"written  {command.output}"]))
    if command.teacher_output is not None:
        print(f"kd-label will need --output {command.teacher_output} as well")


def check(command: CheckConfig) -> None:
    """Print the table and the verdict; write the page if asked."""
    from softlabel.labeler.check import check as try_recipes
    from softlabel.labeler.samples import take_samples
    from softlabel.labeler.teacher import open_teacher
    from softlabel.labeler.verdict import findings, text_table
    from softlabel.shards.decoders import open_decoder, resolve_decoder
    from softlabel.shards.specs import expand

    teacher = open_teacher(command.teacher, output=command.teacher_output)
    recipe = _recipe(command.recipe, teacher)
    names = _class_names(command.class_names, teacher)
    tars = expand(command.shards, allow_pipe=command.allow_pipe)
    decoder = open_decoder(resolve_decoder(command.decoder), max_pixels=command.max_image_pixels)
    samples = take_samples(tars, count=command.images, decoder=decoder, image_ext=command.image_ext)
    checked = try_recipes(teacher, recipe, samples, decoder=decoder)
    facts = [*_facts(teacher, recipe, names), *_warnings(checked, command.images)]
    print("\n".join([*facts, "", text_table(checked.results), "", *findings(checked.results)]))
    if command.output is not None:
        _write_page(command.output, checked, facts, names)


def _write_page(
    path: Path, checked: "Checked", facts: list[str], names: tuple[str, ...] | None
) -> None:
    from softlabel.labeler.preview import page

    html = page(checked, title="kd-teacher check", facts=facts, class_names=names)
    try:
        # A key may hold bytes that are no UTF-8, kept as lone surrogates.
        path.write_text(html, encoding="utf-8", errors="replace")
    except OSError as error:
        raise MachineError(f"--output {path}: can't be written: {error}") from None
    print(f"written  {path}")


def _recipe(path: Path | None, teacher: "Teacher") -> "Recipe":
    from softlabel.shards.recipe import Recipe

    if path is not None:
        return Recipe.from_file(path)
    if teacher.recipe is not None:
        return teacher.recipe
    raise UsageError(
        f"{teacher.path}: wanted a preprocessing recipe, found none in its metadata; give "
        "--recipe R.json (timm's pretrained_cfg), since a wrong guess would label in silence"
    )


def _class_names(path: Path | None, teacher: "Teacher") -> tuple[str, ...] | None:
    from softlabel.labeler.metadata import read_class_names

    if path is None:
        return teacher.class_names
    return read_class_names(path, num_classes=teacher.num_classes)


def _facts(teacher: "Teacher", recipe: "Recipe", names: tuple[str, ...] | None) -> list[str]:
    """The teacher in a few lines."""
    size = " x ".join(str(side or "any") for side in (teacher.height, teacher.width))
    layout = "[N, H, W, 3]" if teacher.channels_last else "[N, 3, H, W]"
    batch = "any" if teacher.batch_size is None else f"{teacher.batch_size}, baked into the graph"
    known = "no names" if names is None else f"{names[0]} ... {names[-1]}"
    done = {
        "logits": "taken as logits",
        "softmax-removed": "a softmax: its input is taken as logits",
        "probabilities": "probabilities: log(max(p, 1e-30)) is taken as logits",
    }[teacher.output_kind]
    fields = ", ".join(f"{key} {value}" for key, value in recipe.to_dict().items())
    return [
        f"teacher  {teacher.path}, sha256 {teacher.sha256[:12]}",
        f"input    {teacher.input_name} {layout}, {size} pixels, batch {batch}",
        f"output   {teacher.output_name}, {done}",
        f"classes  {teacher.num_classes}, {known}",
        f"recipe   {fields}",
    ]


def _warnings(checked: "Checked", wanted: int) -> list[str]:
    lines = []
    if len(checked.shown) < wanted:
        lines.append(f"WARNING: only {len(checked.shown)} of {wanted} images could be had.")
    if checked.probabilities:
        lines.append(
            "WARNING: the output is taken as logits, but every row is positive and sums to 1: it "
            "looks like probabilities. Export the teacher without its softmax."
        )
    return lines


def main() -> NoReturn:
    """The command."""
    commandline.main("kd-teacher", DESCRIPTION, Command, run)
