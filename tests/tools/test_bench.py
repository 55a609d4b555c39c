import json
from dataclasses import replace

import pytest
import torch

from softlabel.shards import commandline
from softlabel.tools.bench import cli
from softlabel.tools.bench.kernel import (
    bench,
    clock,
    contestants,
    linear,
    lines,
    memory,
    peers,
    plot,
)
from softlabel.tools.bench.kernel.case import make_case
from softlabel.tools.bench.kernel.checks import errors
from softlabel.tools.bench.kernel.config import KernelBench, padded

SMALL = KernelBench(
    rows=6, classes=40, top_k=5, repeats=2, device="cpu", compile=False, memory=False
)


@pytest.fixture(autouse=True)
def _small_copy(monkeypatch):
    """A copy of 256 MB is a benchmark's business."""
    monkeypatch.setattr(bench, "copy_bandwidth", lambda device: 1e10)


def kd_bench(*argv):
    with pytest.raises(SystemExit) as stop:
        commandline.main("kd-bench", cli.DESCRIPTION, cli.Command, cli.run, list(argv))
    return stop.value.code


def test_contestants_take_turns_each_on_fresh_logits():
    calls = []
    actions = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    times = clock.take_turns(
        actions,
        prepare=lambda: calls.append("-"),
        device=torch.device("cpu"),
        repeats=8,
        warmups=1,
    )
    assert calls[::2] == ["-"] * 27
    rounds = ["".join(calls[1::2][start : start + 3]) for start in range(0, 27, 3)]
    assert {"".join(sorted(one)) for one in rounds} == {"abc"}
    assert len(set(rounds)) > 2  # who follows whom changes
    assert {name: len(found.seconds) for name, found in times.items()} == dict.fromkeys("abc", 8)


def test_the_kernel_benchmark_writes_its_figures_and_its_machine(tmp_path, capsys):
    out, drawn = tmp_path / "k.json", tmp_path / "k.svg"
    flags = "--rows 8 --classes 300 --repeats 2 --no-compile --no-memory --device cpu --hard 0.5"
    assert kd_bench("kernel", *flags.split(), "--json", str(out), "--plot", str(drawn)) == 0
    result = json.loads(out.read_text())
    assert result["machine"]["cores"] >= 1
    assert result["width"] == 320
    assert result["times_ours"]["sparse_kl_grad"] == 1
    for name, row in result["contestants"].items():
        assert 0 < row["ms_p20"] <= row["ms"] <= row["ms_p80"], name
        share = row["gb_per_s"] / result["copy_gb_per_s"]
        assert row["share_of_copy"] == pytest.approx(share, abs=0.01)
    said = capsys.readouterr().out
    assert "x ours" in said
    assert "Liger kl_div: not measured (needs a GPU)" in said
    assert "torch.compile: not measured (--no-compile)" in said
    assert "unmeasured" in said  # the memory
    assert "300 (padded to 320), fp32, top 16, uniform, T = 1, hard labels x 0.5" in said
    assert "kl_div, dense teacher rebuilt" in drawn.read_text()


@pytest.mark.parametrize("tail", ["bucket", "uniform", "renorm", "truncate", "subset"])
@pytest.mark.parametrize(("temperature", "hard"), [(1.0, 0.0), (3.0, 0.7), (1.0, 0.7)])
def test_every_contestant_computes_the_definition(tail, temperature, hard):
    case = make_case(replace(SMALL, tail=tail, temperature=temperature, hard=hard))
    taking_part, _ = contestants.contestants(case)
    found, failed = errors(case, taking_part)
    assert not failed
    assert len(found) == (4 if tail in ("bucket", "subset") else 6)
    for name, error in found.items():
        assert max(error.values()) < 3e-6, name


@pytest.mark.parametrize(("dtype", "most"), [("bf16", 5e-3), ("fp16", 1e-3)])
def test_errors_are_those_of_the_dtype(dtype, most):
    case = make_case(replace(SMALL, dtype=dtype))
    found, _ = errors(case, contestants.contestants(case)[0])
    assert all(1e-5 < error["grad_error"] < most for error in found.values())


WRONG = {
    "dense_kl_div": "kl_div, dense teacher rebuilt",
    "dense_cross_entropy": "cross_entropy, dense teacher rebuilt",
}


@pytest.mark.parametrize("peer", list(WRONG))
def test_a_peer_that_computes_something_else_is_named(peer, monkeypatch):
    right = getattr(peers, peer)
    monkeypatch.setattr(peers, peer, lambda logits, labels: 1.01 * right(logits, labels))
    with pytest.raises(AssertionError, match=f"{WRONG[peer]} computes something else"):
        bench.bench_kernel(SMALL)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda loss, grad: (loss, grad.mul_(1.01)),
        lambda loss, grad: (loss * 1.01, grad),
        lambda loss, grad: (loss, grad.index_fill_(0, torch.tensor([5]), float("nan"))),
    ],
)
def test_our_own_mistakes_are_named_too(spoil, monkeypatch):
    right = contestants.sparse_kl_grad
    monkeypatch.setattr(
        contestants, "sparse_kl_grad", lambda *args, **options: spoil(*right(*args, **options))
    )
    with pytest.raises(AssertionError, match="sparse_kl_grad computes something else"):
        bench.bench_kernel(SMALL)


def test_a_peer_that_does_not_run_is_left_out_with_its_reason(monkeypatch):
    def broken(logits, labels):
        raise RuntimeError("no such instruction\nand more")

    monkeypatch.setattr(peers, "dense_kl_div", broken)
    found = bench.bench_kernel(SMALL)
    reason = found["not_measured"]["kl_div, dense teacher rebuilt"]
    assert reason == "RuntimeError: no such instruction"
    assert "kl_div, dense teacher rebuilt" not in found["ms"]


def test_without_a_compiler_torch_compile_is_left_out_with_the_reason(monkeypatch):
    monkeypatch.setattr(contestants.shutil, "which", lambda name: None)
    found = bench.bench_kernel(replace(SMALL, compile=True))
    assert "g++" in found["not_measured"]["torch.compile"]


def test_minimal_traffic_is_a_read_a_write_and_the_labels():
    case = make_case(replace(SMALL, hard=1.0, classes=300))
    logits, labels = 6 * 300 * 4, 6 * (5 * 2 + 5 * 4 + 4 + 8)
    assert case.minimal_bytes == 2 * logits + labels


def test_peak_memory_is_what_an_action_needs_at_most():
    megabyte = 1 << 20

    def action():
        torch.ones(96 * megabyte // 4)
        torch.ones(64 * megabyte // 4)

    assert memory.cpu_peak(action) == pytest.approx(96 * megabyte, abs=megabyte)
    assert memory.cpu_peak(lambda: None) < megabyte


def test_memory_that_the_system_does_not_tell_is_unmeasured(monkeypatch):
    def refuse(module, bench):
        raise memory.UnmeasuredError("the system keeps no peak to reset")

    monkeypatch.setattr(memory, "in_fresh_process", refuse)
    found = bench.bench_kernel(replace(SMALL, memory=True))
    assert found["not_measured"]["extra memory"] == "the system keeps no peak to reset"
    assert {row.get("extra_mb") for row in found["contestants"].values()} == {None}


def test_in_place_needs_no_memory_of_the_size_of_logits():
    found = bench.bench_kernel(replace(SMALL, rows=512, classes=4096, memory=True))
    megabytes = {name: row.get("extra_mb") for name, row in found["contestants"].items()}
    logits = 512 * 4096 * 4 / 1e6
    assert megabytes[contestants.IN_PLACE] < 0.3 * logits
    assert megabytes[contestants.OURS] < 1.3 * logits
    assert megabytes["kl_div, dense teacher rebuilt"] > 3 * logits


def test_tables_have_columns():
    head, *rows = [
        line for line in lines.lines(bench.bench_kernel(SMALL)) if line[38:].count(" us") > 1
    ] or [""]
    assert len(rows) >= 5
    assert {line.index("%") for line in (head, *rows)} == {head.index("%")}


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--classes 10", "top_k must be at least 1 and less than classes, got 16 and 10"),
        ("--width 10", "width must be at least classes"),
        ("--temperature 0", "temperature must be positive"),
        ("--repeats 0", "repeats must be at least 1"),
        ("--plot a.pdf", "must end in .png or .svg"),
    ],
)
def test_impossible_flags_are_usage_errors(flags, reason, capsys):
    assert kd_bench("kernel", *flags.split()) == 2
    said = capsys.readouterr()
    assert reason in " ".join((said.out + said.err).replace("│", " ").split())


def test_heads_are_padded_where_it_pays():
    assert [padded(c) for c in (10, 255, 256, 1000, 21_841)] == [10, 255, 256, 1024, 21_888]


def test_the_last_layer_and_its_loss_in_one():
    found = linear.bench_linear(replace(SMALL, linear=True, classes=300, features=8))
    assert {linear.OURS, linear.WHOLE, linear.PRODUCTS} <= set(found["ms"])
    assert "8 features" in lines.lines(found)[0]


def test_a_last_layer_that_computes_something_else_is_named(monkeypatch):
    right = linear._ours
    monkeypatch.setattr(linear, "_ours", lambda *given: [1.01 * t for t in right(*given)])
    with pytest.raises(AssertionError, match="linear_sparse_kl computes something else"):
        linear.bench_linear(replace(SMALL, linear=True, features=8))


@pytest.mark.slow
@pytest.mark.parametrize("tail", ["bucket", "uniform"])
@pytest.mark.filterwarnings("ignore")
def test_compiled_peers_compute_the_definition(tail):
    found = bench.bench_kernel(replace(SMALL, tail=tail, compile=True, hard=0.5))
    assert "sparse algebra, torch.compile" in found["ms"]
    assert ("kl_div, torch.compile" in found["ms"]) == (tail == "uniform")


def test_on_a_gpu_the_time_is_between_events_after_a_flush(monkeypatch):
    said = []

    class Event:
        def __init__(self, *, enable_timing):
            assert enable_timing

        def record(self):
            said.append("event")

        def elapsed_time(self, end):
            assert end is not self
            return 2.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: said.append("wait"))
    found = {name: clock.Times() for name in "ab"}
    actions = {name: (lambda name=name: said.append(name)) for name in "ab"}
    clock._cuda_round(actions, lambda: said.append("copy"), lambda: said.append("flush"), found)
    each = ["copy", "flush", "event", None, "event"]
    assert said == [step or name for name in "ab" for step in each] + ["wait"]
    assert {times.median for times in found.values()} == {0.002}
    assert all(times.host_median >= 0 for times in found.values())


def test_all_shapes_are_measured_against_one_copy(monkeypatch, tmp_path):
    copies = []
    monkeypatch.setattr(bench, "copy_bandwidth", lambda device: copies.append(device) or 1e10)
    monkeypatch.setattr(bench, "STANDARD_SHAPES", ((4, 30), (3, 300)))
    found = bench.bench_kernel(replace(SMALL, all_shapes=True))
    assert [(r["rows"], r["classes"], r["width"]) for r in found["results"]] == [
        (4, 30, 30),
        (3, 300, 320),
    ]
    assert len(copies) == 1
    assert sum("x ours" in line for line in lines.lines(found)) == 2
    monkeypatch.setattr(linear, "LINEAR_SHAPES", ((4, 8, 30), (3, 16, 300)))
    found = linear.bench_linear(replace(SMALL, all_shapes=True, linear=True))
    assert [r["features"] for r in found["results"]] == [8, 16]
    plot.plot(found, {"cpu": "a processor"}, tmp_path / "linear.svg")
    assert "three matrix products" in (tmp_path / "linear.svg").read_text()
