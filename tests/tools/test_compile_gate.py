"""The gate on planted kernels and on the shipped ones.

It compiles in processes of its own: triton must not have been told to interpret.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from softlabel.shards.errors import UsageError
from softlabel.tools.compile_gate import cli, pool, rules, table, verdict
from softlabel.tools.compile_gate.cli import GateConfig
from softlabel.tools.compile_gate.report import Report

HERE = Path(__file__).parent
FINE = Report(
    registers=100,
    stack=0,
    local=0,
    shared=64,
    spill_stores=0,
    spill_loads=0,
    fp64=0,
    loads={16: 2, 128: 4},
    stores={16: 1, 128: 8},
    ex2=37,
    barriers=2,
    seconds=0.3,
)
SPEC = SimpleNamespace(
    signature={"logits_ptr": "*bf16", "dlogits_ptr": "*bf16"},
    constexprs={"C": 1000, "LOGITS_STRIDE": 1000, "DLOGITS_STRIDE": 1000, "TAIL": "bucket"},
    divisible=("logits_ptr", "dlogits_ptr"),
    options={"num_warps": 1},
)


def gate(*flags: object) -> subprocess.CompletedProcess[str]:
    """Run it as people do, even where tests have chosen the interpreter."""
    return subprocess.run(
        [sys.executable, "-m", "softlabel.tools.compile_gate", *map(str, flags)],
        env={**os.environ, "PYTHONPATH": str(HERE), "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> dict[str, str]:
    """What is said of each planted kernel."""
    no_table = tmp_path_factory.mktemp("gate") / "registers.csv"
    one = ("--arch", 90, "--dtype", "bf16")
    done = gate("--variants", "planted_kernels:wrong", *one, "--table", no_table)
    assert done.returncode == 1, done.stderr
    assert done.stdout.endswith("s\n")
    assert "6 variants, 5 failed, " in done.stdout
    blocks = re.split(r"^sm_90 +bf16 +", done.stdout, flags=re.MULTILINE)
    return {block.split()[0]: block for block in blocks[1:]}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("double", r"FAILED fp64 in the PTX, \d+ times"),
        ("spills", r"FAILED spills: [1-9]\d* bytes stored, [1-9]\d* loaded"),
        ("spills", r"FAILED [1-9]\d* bytes of stack"),
        ("dies", r"FAILED the compiler died \(exit code -6\): .*Assertion `layout' failed"),
        ("narrow", r"FAILED no 128-bit load although rows lie on multiples of 16 bytes"),
        ("narrow", r"FAILED 16 narrow stores beside 2 of 128 bits"),
        ("refused", r"FAILED CompileTimeAssertionFailure: .*no such class"),
    ],
)
def test_a_planted_fault_is_named(planted, name, said):
    assert re.search(said, planted[name])


def test_a_sound_kernel_passes_beside_them(planted):
    assert "FAILED" not in planted["right"]


def test_ten_of_the_shipped_kernels():
    done = gate("--fast")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 variants, 0 failed, " in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_shipped_kernels_are_as_the_table_says():
    done = gate()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "compared with registers.csv" in done.stdout, "make gate with --write"


@pytest.mark.slow
def test_compiled_code_is_kept_where_that_is_asked_for(tmp_path):
    flags = ("--variants", "planted_kernels:right", "--arch", 90, "--table", tmp_path / "none")
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    for out in (first, second):
        assert gate(*flags, "--cached", tmp_path / "cache", "--json", out).returncode == 0
    found = [json.loads(out.read_text())["variants"] for out in (first, second)]
    seconds = [sum(variant.pop("seconds") for variant in variants) for variants in found]
    assert found[0] == found[1]
    assert seconds[1] < seconds[0] / 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"spill_loads": 4}, ["spills: 0 bytes stored, 4 loaded"]),
        ({"stack": 8}, ["8 bytes of stack"]),
        ({"local": 16}, ["16 bytes of local memory"]),
        ({"loads": {16: 2}}, ["no 128-bit load although rows lie on multiples of 16 bytes"]),
        ({"loads": {256: 1}}, []),
        ({"stores": {64: 16}}, ["no 128-bit store although rows lie on multiples of 16 bytes"]),
        ({"stores": {16: 13, 128: 8}}, ["13 narrow stores beside 8 of 128 bits"]),
    ],
)
def test_the_rules(change, said):
    assert list(rules.complaints(SPEC, replace(FINE, **change))) == said


@pytest.mark.parametrize(
    "constexprs",
    [
        {"LOGITS_STRIDE": 1001},  # rows are not aligned
        {"C": 100},  # latency rules
        {"TAIL": "subset", "HARD": False},  # only the stored classes are read
    ],
)
def test_narrow_loads_are_right_where_rows_are_odd_or_short_or_not_read(constexprs):
    spec = SimpleNamespace(**{**vars(SPEC), "constexprs": {**SPEC.constexprs, **constexprs}})
    assert list(rules.complaints(spec, replace(FINE, loads={16: 32}))) == []


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command on reports that nothing was compiled for; (exit code, what it said)."""

    def run(reports: dict[str, Report | str], **flags: object) -> tuple[int, str]:
        def shipped(arch, dtype):
            return ((name, SPEC) for name in reports)

        def compile_all(variants, *, jobs):
            return ((variant, reports[variant.name]) for variant in variants)

        monkeypatch.setitem(sys.modules, "shipped", SimpleNamespace(shipped=shipped))
        monkeypatch.setattr(pool, "compile_all", compile_all)
        given = {"table": tmp_path / "registers.csv", "variants": "shipped:shipped", **flags}
        return cli.run(GateConfig(**given)), capsys.readouterr().out

    return run


def test_a_written_table_is_what_the_next_run_is_compared_with(run, tmp_path):
    code, said = run({"one": FINE, "two": FINE})
    assert code == 0
    assert "registers NOT compared: registers.csv does not exist" in said
    assert run({"one": FINE, "two": FINE}, write=True)[0] == 0
    assert len(table.read(tmp_path / "registers.csv")) == 18
    code, said = run({"one": FINE, "two": FINE})
    assert code == 0
    assert "compared with registers.csv" in said
    assert said.endswith("18 variants, 0 failed, 0 s\n")
    assert run({"one": replace(FINE, registers=110), "two": FINE})[0] == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"registers": 111}, "registers 100 -> 111 (+11%)"),
        ({"registers": 89}, "registers 100 -> 89 (-11%)"),
        ({"loads": {16: 2, 128: 3}}, "ld128 4 -> 3"),
        ({"stores": {128: 7}}, "st128 8 -> 7"),
    ],
)
def test_what_moved_away_from_the_table_fails(run, change, said):
    run({"one": FINE}, write=True)
    code, printed = run({"one": replace(FINE, **change)}, arch=(90,), dtype=("bf16",))
    assert code == 1
    assert f"FAILED {said}" in printed
    assert "1 variants, 1 failed" in printed


def test_new_and_lost_variants_want_a_new_table(run):
    run({"one": FINE, "two": FINE}, write=True)
    code, said = run({"two": FINE, "three": FINE})
    assert code == 1
    assert said.count("FAILED not in the table") == 9
    assert "FAILED sm_90 bf16 one: in the table, no longer shipped" in said
    assert "18 variants, 18 failed" in said
    assert run({"two": FINE}, only="two")[0] == 0


def test_a_table_of_another_triton_is_not_compared_but_rules_hold(run, monkeypatch):
    monkeypatch.setattr(verdict, "TRITON", "3.6.0")
    run({"one": FINE}, write=True)
    monkeypatch.undo()
    code, said = run({"one": replace(FINE, registers=200)})
    assert code == 0
    assert "registers NOT compared: registers.csv is of triton 3.6.0" in said
    assert run({"one": replace(FINE, stack=8)})[0] == 1


def test_no_table_is_written_of_code_that_fails(run, tmp_path):
    assert run({"one": FINE, "two": "the compiler died"}, write=True)[0] == 1
    assert not (tmp_path / "registers.csv").exists()


def test_flags_that_cannot_be_meant(run):
    with pytest.raises(ValueError, match="--write: not with"):
        GateConfig(write=True, fast=True)
    with pytest.raises(ValueError, match="wanted bf16, fp16, fp32, found fp8"):
        GateConfig(dtype=("fp8",))
    with pytest.raises(UsageError, match="--only nothing: no variant's name holds that"):
        run({"one": FINE}, only="nothing")
