from dataclasses import dataclass
from pathlib import Path

import pytest

from softlabel.shards.commandline import main, parse
from softlabel.shards.errors import IdentityError, UsageError


@dataclass(frozen=True, kw_only=True)
class ExampleConfig:
    """Flags."""

    out: Path
    """Where to."""
    sizes: tuple[int, ...] = (1, 2)
    """Some numbers."""
    name: str | None = None
    """A name."""
    fast: bool = False
    """Hurry."""

    def __post_init__(self) -> None:
        if self.sizes and self.sizes[0] < 0:
            raise ValueError(f"--sizes: wanted positive numbers, found {self.sizes}")


def run(*argv: str) -> ExampleConfig:
    return parse("kd-x", "Does x.", ExampleConfig, list(argv))


def test_flags_fill_the_dataclass():
    found = run("--out", "a/b", "--sizes", "3", "4", "--fast")
    assert found == ExampleConfig(out=Path("a/b"), sizes=(3, 4), fast=True)


def test_yaml_stands_between_defaults_and_flags(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("out: from/yaml\nsizes: [5]\nname: yaml\n")
    assert run("--config", str(file), "--name", "flag") == ExampleConfig(
        out=Path("from/yaml"), sizes=(5,), name="flag"
    )
    file.write_text("name: yaml\n")
    assert run(f"--config={file}", "--out", "o").name == "yaml"
    with pytest.raises(UsageError, match="--out"):
        run("--config", str(file))


@pytest.mark.parametrize(
    ("yaml", "message"),
    [("nam: x", "no such flag: nam"), ("[1]", "wanted `flag: value`"), ("a: [", "--config")],
)
def test_a_config_file_that_cannot_be_right_is_one_line(tmp_path, yaml, message):
    file = tmp_path / "c.yaml"
    file.write_text(yaml)
    with pytest.raises(UsageError, match=message):
        run("--config", str(file), "--out", "o")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--out"),
        (["--out", "o", "--sizes", "x"], "kd-x: --sizes: "),
        (["--out", "o", "--sizes", "-1"], "--sizes: wanted positive numbers"),
        (["--out", "o", "--slow"], "--slow"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_code_2(capsys, argv, message):
    with pytest.raises(SystemExit) as stop:
        main("kd-x", "Does x.", ExampleConfig, lambda config: 0, argv)
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.startswith("kd-x: ")
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"), [(IdentityError("not\n  yours"), 4), (KeyboardInterrupt(), 130)]
)
def test_an_error_of_the_users_is_one_line_with_its_exit_code(capsys, error, code):
    def fail(config: ExampleConfig) -> int:
        raise error

    with pytest.raises(SystemExit) as stop:
        main("kd-x", "Does x.", ExampleConfig, fail, ["--out", "o"])
    assert stop.value.code == code
    assert capsys.readouterr().err.count("\n") == 1


def test_our_own_bugs_keep_their_traceback():
    def fail(config: ExampleConfig) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main("kd-x", "Does x.", ExampleConfig, fail, ["--out", "o"])
