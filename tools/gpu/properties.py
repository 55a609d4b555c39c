"""What must hold on a GPU beyond small errors: no races, no syncs, graphs, far rows, bad rows.

Each property takes a device ("cuda", or "cpu" for a dry run in triton's interpreter) and raises
AssertionError where it does not hold, UnmeasuredError where the machine cannot tell.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from softlabel.kernels.sparse_kl import sparse_kl
from softlabel.tools.gpu.cases import Given, Problem, draw, exact, run, same_bits
from softlabel.tools.gpu.step import UnmeasuredError

REPEATS = 100


def repeats_are_bit_identical(device: str) -> None:
    """One launch's rows race with nothing: not with each other, nor with a busy second stream."""
    cuda = device == "cuda"
    widths = (100, 1000, 8000, 21_888, 151_936) if cuda else (20, 300)
    for width in widths:
        top_k = min(64, width // 2)
        given = Given(
            300 if cuda else 3, width, width, top_k, "bucket", 4.0, 0.5, 0.1, True, "bf16"
        )
        problem = draw(given, device, seed=width)
        first_loss, first = run(problem, backend="triton")
        out = torch.empty_like(first)
        with _busy(device):
            for number in range(REPEATS if cuda else 3):
                out.fill_(float("nan"))
                loss, grad = run(problem, backend="triton", out=out)
                same = same_bits(grad, first) and same_bits(loss.total, first_loss.total)
                assert same, f"width {width}: repeat {number} differs from the first"


@contextmanager
def _busy(device: str) -> Iterator[None]:
    """Other work on the GPU, so that blocks start in another order each time."""
    if device != "cuda":
        yield
        return
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    noise = torch.randn(2048, 2048, device=device)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(200):
            torch.tanh(noise @ noise)
    yield
    stream.synchronize()


def no_host_syncs(device: str) -> None:
    """Neither op reads the device's memory from the host."""
    _needs_cuda(device)
    problem = draw(_small("bucket"), device, seed=1)
    scale = torch.tensor(0.5, device=device)
    work = problem.logits.clone()

    def both() -> None:
        run(problem._replace(logits=work), backend="auto", out=work, grad_scale=scale)
        leaf = problem.logits.detach().requires_grad_()
        torch.autograd.backward(_mean(leaf, problem))

    both()  # compiles, which may wait
    torch.cuda.synchronize()
    with _sync_is_error():
        both()
        try:
            scale.item()
        except RuntimeError:
            return
    raise UnmeasuredError("torch.cuda.set_sync_debug_mode did not see a sync that was there")


@contextmanager
def _sync_is_error() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)


def _mean(logits: Tensor, problem: Problem) -> Tensor:
    targets = problem.targets
    loss = sparse_kl(
        logits,
        targets.topk_logit,
        targets.topk_class,
        targets.tail_lse,
        temperature=targets.temperature,
        tail=targets.tail,
        target=targets.target,
        hard_weight=targets.hard_weight,
        weight=targets.weight,
        num_classes=targets.num_classes,
        reduction="mean",
    )
    assert isinstance(loss, Tensor)
    return loss


def compiles_without_graph_breaks(device: str) -> None:
    """torch.compile(fullgraph=True) of the functional op gives eager's loss and gradient."""
    problem = draw(_small("uniform", dtype="fp32"), device, seed=2)

    def loss_and_grad(mean: Callable[[Tensor, Problem], Tensor]) -> tuple[Tensor, Tensor]:
        leaf = problem.logits.detach().requires_grad_()
        loss = mean(2 * leaf, problem)
        (grad,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), grad

    # A dry run is of the graph, not of the compiler that would come after it.
    backend = "inductor" if device == "cuda" else "aot_eager"
    compiled = torch.compile(_mean, fullgraph=True, backend=backend)
    for got, want in zip(loss_and_grad(compiled), loss_and_grad(_mean), strict=True):
        error = float((got - want).norm() / want.norm())
        assert error <= 1e-6, f"compiled is not eager: relative error {error:.1e}"


def replays_in_a_cuda_graph(device: str) -> None:
    """A captured call works on whatever its memory holds when it is replayed."""
    _needs_cuda(device)
    given = _small("bucket")
    problem = draw(given, device, seed=3)
    other = draw(given, device, seed=4)
    want_loss, want = run(other, backend="triton")
    out = torch.empty_like(problem.logits)
    run(problem, backend="triton", out=out)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, _ = run(problem, backend="triton", out=out)
    problem.logits.copy_(other.logits)
    for mine, its in zip(problem.targets, other.targets, strict=True):
        if isinstance(mine, Tensor) and isinstance(its, Tensor):
            mine.copy_(its)
    out.fill_(float("nan"))
    graph.replay()
    torch.cuda.synchronize()
    same = same_bits(out, want) and same_bits(loss.total, want_loss.total)
    assert same, "a replay is not the call"


def rows_beyond_int32(device: str) -> None:
    """Rows that start beyond 2**31 elements are read and written where they are."""
    _needs_cuda(device)
    for classes, width in ((1000, 1024), (200, 256)):
        rows = 2**31 // width + 5
        free, _ = torch.cuda.mem_get_info()
        if free < 8 * rows * width:
            raise UnmeasuredError(f"{free / 1e9:.1f} GB of memory are free, too few")
        ends = torch.tensor([0, 1, 2, 3, rows - 4, rows - 3, rows - 2, rows - 1], device=device)
        given = Given(8, classes, width, 8, "uniform", 1.0, 0.0, 0.0, False, "bf16")
        few = draw(given, device, seed=5)
        want_loss, want = run(few, backend="triton")
        logits = torch.zeros(rows, width, dtype=torch.bfloat16, device=device)
        logits[ends] = few.logits
        targets = few.targets

        def everywhere(tensor: Tensor | None, rows: int = rows, ends: Tensor = ends) -> Tensor:
            assert tensor is not None
            full = tensor[:1].expand(rows, *tensor.shape[1:]).clone()
            full[ends] = tensor
            return full

        many = targets._replace(
            topk_logit=everywhere(targets.topk_logit),
            topk_class=everywhere(targets.topk_class),
            tail_lse=everywhere(targets.tail_lse),
        )
        loss, grad = run(Problem(logits, many), backend="triton", out=logits)
        same = same_bits(grad[ends], want) and same_bits(loss.total[ends], want_loss.total)
        assert same, f"{rows} rows of {width}: the last ones are not those of a small batch"
        del logits, grad, many, loss
        torch.cuda.empty_cache()


def bad_rows_stay_alone(device: str) -> None:
    """NaN, +inf and a class that does not exist make their own row NaN and no other."""
    widths = (100, 1000, 21_888, 50_304) if device == "cuda" else (20, 300)
    for width in widths:
        given = Given(8, width - 3, width, 5, "bucket", 2.0, 0.0, 0.0, True, "fp32")
        problem = draw(given, device, seed=width)
        clean_loss, clean = run(problem, backend="triton")
        logits, classes = problem.logits.clone(), problem.targets.topk_class.clone()
        logits[0, 7] = float("nan")
        logits[3, 1] = float("inf")
        classes[4, 2] = width - 3
        logits[2] = float("nan")
        assert problem.targets.weight is not None
        weight = problem.targets.weight.clone()
        weight[2] = 0
        targets = problem.targets._replace(topk_class=classes, weight=weight)
        loss, grad = run(Problem(logits, targets), backend="triton")
        for row in (0, 3, 4):
            bad = bool(loss.total[row].isnan()) and bool(grad[row, : width - 3].isnan().all())
            assert bad, f"width {width}: row {row} hides what is wrong with it"
        ignored = bool(loss.total[2] == 0) and bool((grad[2] == 0).all())
        assert ignored, f"width {width}: a row of weight 0 was looked at"
        good = [1, 5, 6, 7]
        same = same_bits(grad[good], clean[good]) and same_bits(
            loss.total[good], clean_loss.total[good]
        )
        assert same, f"width {width}: a bad row changed another"


def small_tails_are_exact(device: str) -> None:
    """A student whose tail is exp(-60) has the logarithm of it, not that of a rounded rest."""
    widths = (100, 1000, 21_888, 50_304) if device == "cuda" else (20, 300)
    for width in widths:
        given = Given(4, width, width, 5, "bucket", 1.0, 0.0, 0.0, False, "fp32")
        problem = draw(given, device, seed=width)
        classes = problem.targets.topk_class
        classes[:] = classes[:1]  # all entries exist
        problem.logits.scatter_(1, classes.long(), 60.0)
        want, want_grad = exact(problem)
        loss, grad = run(problem, backend="triton")
        error = float(((loss.total.double() - want.total) / want.total).abs().max())
        grad_error = float((grad.double() - want_grad).abs().max() / want_grad.abs().max())
        assert error <= 1e-5, f"width {width}: relative error of the loss {error:.1e}"
        assert grad_error <= 1e-5, f"width {width}: relative error of the gradient {grad_error:.1e}"


def _small(tail: str, *, dtype: str = "bf16") -> Given:
    return Given(16, 500, 512, 8, tail, 2.0, 0.5, 0.0, True, dtype)  # type: ignore[arg-type]


def _needs_cuda(device: str) -> None:
    if device != "cuda":
        raise UnmeasuredError("needs a GPU")


PROPERTIES: dict[str, Callable[[str], None]] = {
    check.__name__: check
    for check in (
        repeats_are_bit_identical,
        bad_rows_stay_alone,
        small_tails_are_exact,
        no_host_syncs,
        compiles_without_graph_breaks,
        replays_in_a_cuda_graph,
        rows_beyond_int32,
    )
}
