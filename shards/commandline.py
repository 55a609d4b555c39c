"""What all commands share: flags from a frozen dataclass, --config, one-line errors, exit codes.

It stands here because shards is the ground that labeler, trainer and tools have in common.
"""

import contextlib
import io
import itertools
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn

from softlabel.shards.errors import SoftLabelError, UsageError

_BOX = "│ "


def main(
    prog: str,
    description: str,
    config: Any,
    run: Callable[[Any], int],
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Parse flags into `config` (a frozen dataclass, or a union of them: subcommands), run, exit.

    A `SoftLabelError` prints as one line and gives its exit code; anything else is our bug and
    keeps its traceback (exit 1).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = run(parse(prog, description, config, arguments))
    except SoftLabelError as error:
        print(f"{prog}: {one_line(error)}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print(f"{prog}: interrupted; rerun the same command to go on", file=sys.stderr)
        code = 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.stdout.flush()
    raise SystemExit(code)


def one_line(error: BaseException) -> str:
    """An error's message, on one line whatever a library put into it."""
    return " ".join(str(error).split())


def parse(prog: str, description: str, config: Any, argv: Sequence[str]) -> Any:
    """An instance of `config` from flags over `--config FILE` over defaults.

    Raises:
        UsageError: flags that don't parse, a value that the dataclass itself refuses, or a
            --config that can't be read.
        SystemExit: 0 for --help.
    """
    import tyro

    argv, defaults = _split_config_flag(list(argv))
    default = {}
    if defaults is not None:
        default["default"] = _from_yaml(config, defaults)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                config,
                prog=prog,
                description=description,
                args=argv,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
                **default,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(f"{_unboxed(said.getvalue())} (see {prog} --help)") from None


def _unboxed(text: str) -> str:
    """What tyro says in a box, as one line: the title goes, and the hints after the first rule."""
    boxed = text.startswith("╭")  # else stdout is not UTF-8, and the title is a part of its own
    lines = [line.strip(_BOX) for line in text.splitlines() if not line.startswith("╭")]
    parts = [list(part) for rule, part in itertools.groupby(lines, _is_rule) if not rule]
    said = " ".join(" ".join(parts[0 if boxed else 1]).split())
    return re.sub(r"^(Error parsing )?(\w+Config: )?", "", said)


def _is_rule(line: str) -> bool:
    return not line.strip("─-")


def _split_config_flag(argv: list[str]) -> tuple[list[str], Path | None]:
    for i, argument in enumerate(argv):
        if argument == "--config" and i + 1 < len(argv):
            return argv[:i] + argv[i + 2 :], Path(argv[i + 1])
        if argument.startswith("--config="):
            return argv[:i] + argv[i + 1 :], Path(argument.removeprefix("--config="))
    return argv, None


def _from_yaml(config: Any, path: Path) -> Any:
    """A dataclass whose missing fields tyro still asks for; flag spelling or field spelling."""
    import tyro
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"--config {path}: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"--config {path}: wanted `flag: value` lines, found {content!r}")
    if not (isinstance(config, type) and is_dataclass(config)):
        raise UsageError(f"--config {path}: not for a command with subcommands; give its flags")
    given = {str(name).replace("-", "_"): value for name, value in content.items()}
    known = {field.name: field for field in fields(config)}
    if unknown := sorted(set(given) - set(known)):
        raise UsageError(
            f"--config {path}: no such flag: {', '.join(unknown)}; there are {', '.join(known)}"
        )
    instance: Any = object.__new__(config)
    for name, field in known.items():
        value = given.get(name, field.default)
        if value is not None and name in given:
            value = _coerced(value, str(field.type))
        missing = name not in given and value.__class__.__name__ == "_MISSING_TYPE"
        object.__setattr__(instance, name, tyro.MISSING if missing else value)
    return instance


def _coerced(value: Any, annotation: str) -> Any:
    """YAML knows no paths and no tuples."""
    if "tuple" in annotation and isinstance(value, list | str | int | float):
        return tuple(value) if isinstance(value, list) else (value,)
    if "Path" in annotation and isinstance(value, str):
        return Path(value)
    return value
