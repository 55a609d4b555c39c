"""docs/cli.md and docs/format.md, made from the code; a test compares them with the committed."""

import io
import os
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from softlabel.shards import commandline, invariants
from softlabel.shards.golden import golden_views
from softlabel.shards.schema import INNER_ROWS, VERSION, array_specs

ROOT = Path(__file__).resolve().parents[1]
_COLUMNS = "100"


def commands() -> list[tuple[str, str, Any, Sequence[str]]]:
    """Every command: name, description, its dataclass, its subcommands."""
    from softlabel.labeler import cli as label
    from softlabel.labeler import teacher_cli as teacher
    from softlabel.labeler.config import LabelConfig
    from softlabel.tools import doctor, store_cli
    from softlabel.tools.bench import cli as bench
    from softlabel.tools.evaluate import cli as evaluate
    from softlabel.tools.evaluate.config import EvalConfig
    from softlabel.trainer import cli as train
    from softlabel.trainer.config import TrainConfig

    return [
        ("kd-label", label.DESCRIPTION, LabelConfig, ()),
        ("kd-teacher", teacher.DESCRIPTION, teacher.Command, ("prepare", "check")),
        ("kd-train", train.DESCRIPTION, TrainConfig, ()),
        ("kd-eval", evaluate.DESCRIPTION, EvalConfig, ()),
        ("kd-bench", bench.DESCRIPTION, bench.Command, ("label", "kernel")),
        ("kd-store", store_cli.DESCRIPTION, store_cli.Command, ("stats", "verify", "show")),
        ("kd-doctor", doctor.DESCRIPTION, doctor.DoctorConfig, ()),
    ]


def cli_page() -> str:
    """docs/cli.md: the real --help of every command."""
    parts = [
        "# Commands",
        "Made by `make docs` from the programs' own `--help`. `--config FILE` gives any of a "
        "command's flags as YAML; flags on the line win.",
    ]
    for name, description, config, subcommands in commands():
        parts.append(f"## {name}\n\n{_help(name, description, config, [])}")
        parts += [
            f"### {name} {sub}\n\n{_help(name, description, config, [sub])}" for sub in subcommands
        ]
    return "\n\n".join(parts) + "\n"


def _help(name: str, description: str, config: Any, before: list[str]) -> str:
    said = io.StringIO()
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _COLUMNS
    try:
        with redirect_stdout(said), suppress(SystemExit):
            commandline.parse(name, description, config, [*before, "--help"])
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    text = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue())
    # Boxes differ with the terminal's encoding: keep their content.
    lines = [re.sub(r"^[│|] ?|\s*[│|]$", "", line).rstrip() for line in text.splitlines()]
    lines = [re.sub(r"^[╭╰][─ ]*|[─ ]*[╮╯]$", "", line) for line in lines]
    body = "\n".join(lines).strip()
    return f"```text\n{body}\n```"


def format_page() -> str:
    """docs/format.md: arrays from the schema, invariants from the checks, golden views."""
    rows = [
        f"| `{spec.name}` | {', '.join(('T', 'R', *spec.axes))} | {spec.dtype} | {spec.meaning} |"
        for spec in array_specs(1000, embedding=True)
    ]
    checks = (invariants.__doc__ or "").split("\n\n")[1]
    return _FORMAT.format(
        version=VERSION,
        arrays="\n".join(rows),
        inner=INNER_ROWS,
        invariants=_markdown_list(checks),
        views=_golden_table(),
    )


def _markdown_list(text: str) -> str:
    joined = re.sub(r"\n {4,}", " ", text)
    return "\n".join(line.strip() for line in joined.splitlines())


def _golden_table() -> str:
    """The golden views as aligned text: what goes in, then the box and the flip that come out."""
    titles = (
        *("recipe", "seed", "key hash", "number", "image", "crop_pct", "crop_mode", "target"),
        *("top", "left", "height", "width", "flip"),
    )
    lines: list[tuple[str, ...]] = [titles]
    for row in golden_views():
        drawn: Any = row["view"]
        lines.append(
            (
                str(row["recipe"]),
                str(row["seed"]),
                f"{row['key_hash']:016x}",
                str(row["number"]),
                f"{row['height']}x{row['width']}",
                f"{row['crop_pct']:.6f}",
                str(row["crop_mode"]),
                f"{row['target_height']}x{row['target_width']}",
                *(str(drawn[name]) for name in ("top", "left", "height", "width")),
                "yes" if drawn["flip"] else "no",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = ("  ".join(map(str.rjust, line, widths)) for line in lines)
    return "```text\n" + "\n".join(aligned) + "\n```"


_FORMAT = """# The label store, format version {version}

Made by `make docs` from `shards/schema.py`, `shards/invariants.py` and `shards/views.py`.

A store is a zarr v3 group: `zarr.open(path)` reads every array with no help from softlabel. T tars,
R rows a tar, V views an image, K stored classes, S temperatures, C classes, D embedding width. Row
(t, r) is member r of tar t. One tar is one zarr shard in each array, one writer and one commit.

## Arrays

| array | shape | dtype | what |
| --- | --- | --- | --- |
{arrays}

`topk_class` is uint32 above 65,536 classes; `embedding` is there if it was asked for. Where the
embedding is followed by one linear layer, `head_weight` [C, D] and `head_bias` [C], float32, stand
beside it once: embedding @ head_weight.T + head_bias gives all logits.

Probabilities at a stored temperature t: with h = sum of exp(topk_logit / t) and e = exp(tail_lse),
class i has exp(topk_logit_i / t) / (h + e), and all classes not stored have e / (h + e) together.
Between and above the stored temperatures, log-tail is a polynomial in 1/t through the stored
points and the exact point (0, log(C - K)); below the smallest it is not defined.

zarr shard (1, R, V, ...), inner chunk (1, {inner}, V, ...), R a multiple of {inner}; codecs of an
inner chunk: bytes (little endian), blosc (zstd, bitshuffle), crc32c. Chunk keys are separated by
dots: `topk_logit/c.7.0.0.0` is tar 7. A shard file is written whole even where it is all zeros, so
a missing file always means loss. A row believed by a reader has a commit for its tar, status 1, and
image bytes that hash to `image_hash`.

## Files beside the arrays

- `manifest.json`: immutable, what decides the labels. Its `checksum` is the **store id**.
- `tars/NNNN.json`: `names`, the ordered tars; T is how many there are.
- `commits/NNNNNN.json`: one a tar, written last: store id, generation, members, rows by status,
  size and sha256 of the tar, sha256 of its shard file in each array.
- `runs/*.log`: times and machines, one JSON object a line; outside every promise.

Each JSON file but the logs is canonical (sorted keys, no spaces, ASCII, a newline at the end) and
carries its own checksum: `checksum` is the sha256 of the same object without that field.

## Hashes

`key_hash` is xxh3-64 of the member's key: the file's path in the tar up to the first dot of its
base name, UTF-8. `image_hash` is xxh3-64 of the image's encoded bytes.

## Invariants

`kd-store verify` checks:

{invariants}

## Views

Box and flip are a pure function of (seed, key hash, view number, upright image size), in integers.
w0 to w3 are the words of Philox4x64-10 with key (seed, key hash) and counter (view number,
attempt, 0, 0), attempt 0 unless said otherwise; below(w, n) is w * n >> 64; flip is the lowest bit
of w1.

- `center`: timm's evaluation crop. The image is resized to cover floor(target / crop_pct)
  (`squash`: to be exactly that) and the target cut from the middle; each edge of that, taken back
  to the source and rounded to a pixel, gives the box.
- `crop-flip`: the whole image, moved by below(w0, 2 p + 1) - p rows and below(w2, 2 q + 1) - q
  columns, p and q an eighth of its height and width, rounded down; flipped. Where the box reaches
  outside, the nearest edge pixel stands.
- `rrc`, `rrc-flip`: area (8 + 92 w0 / 2^64) / 100 of the image, aspect number w1 >> 56 of the table
  in `shards/aspects.py` (256 steps, even in the logarithm, from 3/4 to 4/3); width and height are
  rounded roots of area * aspect and area / aspect. If they fit, top is below(w2, ...), left
  below(w3, ...); if not, the next attempt. After ten, the largest box in the middle within the
  aspects. `rrc-flip` flips.

The box is cut first, then resized to the model's input, then flipped. Golden vectors:

{views}
"""


def pages() -> dict[str, Callable[[], str]]:
    """The generated pages by path from the project's root."""
    return {"docs/cli.md": cli_page, "docs/format.md": format_page}


def main() -> None:
    """Write them."""
    for name, page in pages().items():
        (ROOT / name).write_text(page(), encoding="utf-8")
        print(f"wrote {name}")


if __name__ == "__main__":
    main()
