"""The suite's figures in a screenful, from the JSON of its steps."""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from softlabel.tools.bench.kernel.lines import title

_PEERS = {
    "kl_div": "kl_div, dense teacher rebuilt",
    "compiled": "kl_div, torch.compile",
    "sparse": "sparse algebra, torch.compile",
    "Liger": "Liger kl_div",
}


def main() -> None:
    """The step."""
    parser = argparse.ArgumentParser(
        prog="python -m softlabel.tools.gpu.summary", description=__doc__
    )
    parser.add_argument("folder", type=Path, help="what was OUT of gpu_suite.sh")
    print(*summary(parser.parse_args().folder), sep="\n")


def summary(folder: Path) -> Iterator[str]:
    """Lines; a step that left no file is named."""
    found = {name: _read(folder / f"{name}.json") for name in _STEPS}
    for name, tell in _STEPS.items():
        step = found[name]
        if step is None:
            yield f"{name}: unmeasured, no file"
        else:
            yield from tell(step)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _environment(found: Mapping[str, Any]) -> Iterator[str]:
    name = found["device"] if isinstance(found["device"], str) else found["device"]["name"]
    yield (
        f"{name}: torch {found.get('torch')}, triton {found.get('triton')}, copy "
        f"{found['copy_gb_per_s']} GB/s, bf16 matmul {found['matmul_tflop_per_s']} TFLOP/s"
    )


def _correctness(found: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"correctness: {found['green']} green, {len(found['red'])} red"
        + "".join(f"; RED {name}" for name in found["red"])
        + "".join(f"; unmeasured {name}" for name in found["unmeasured"])
    )


def _spills(found: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"spills: {len(found['spilling'])} of {len(found['variants'])} variants, "
        f"{len(found['failed'])} failed, {len(found['unmeasured'])} unmeasured"
    )


def _sweep(found: Mapping[str, Any]) -> Iterator[str]:
    for result in found["results"]:
        best = result["configs"][0]
        fields = " ".join(f"{value}" for value in best["fields"].values())
        yield (
            f"sweep {result['name']:28} best {best['us']:9.1f} us {best['share_of_copy']:6.1%}  "
            f"table {result['table_us'] or float('nan'):9.1f} us  [{fields}]"
        )
    if found["unmeasured"]:
        yield f"sweep unmeasured: {', '.join(found['unmeasured'])}"


def _kernel(found: Mapping[str, Any]) -> Iterator[str]:
    for result in found["results"]:
        rows, ratios = result["contestants"], result["times_ours"]
        out, inside = rows["sparse_kl_grad"], rows["sparse_kl_grad, in place"]
        others = "  ".join(
            f"{short} {ratios[name]:.1f}x" for short, name in _PEERS.items() if name in ratios
        )
        yield (
            f"{1e3 * out['ms']:8.1f} us {out['share_of_copy']:6.1%}  in place "
            f"{1e3 * inside['ms']:8.1f} us {inside['share_of_copy']:6.1%}  {others}  "
            f"{title(result)}"
        )
    if found["unmeasured"]:
        yield f"benchmark unmeasured: {', '.join(found['unmeasured'])}"


def _linear(found: Mapping[str, Any]) -> Iterator[str]:
    for result in found["results"]:
        parts = ", ".join(
            f"{name} {row['ms']:.2f} ms"
            + ("" if row["extra_mb"] is None else f" {row['extra_mb']:.0f} MB")
            for name, row in result["contestants"].items()
        )
        yield f"linear {title(result)}: {parts}"


_STEPS = {
    "environment": _environment,
    "correctness": _correctness,
    "spills": _spills,
    "sweep": _sweep,
    "kernel": _kernel,
    "linear": _linear,
}

if __name__ == "__main__":
    main()
