"""Has torch.compile compile the benchmark's peers, in several processes.

Its cache on the disk is where the benchmark then finds them. The JSON says how long each took.
"""

import time
from typing import Any

from softlabel.tools.bench.kernel.case import make_case
from softlabel.tools.bench.kernel.config import KernelBench
from softlabel.tools.bench.kernel.contestants import compiled_peers
from softlabel.tools.gpu.benchmark import benches
from softlabel.tools.gpu.step import Step, described, in_processes, parsed

_PROCESSES = 5


def main() -> None:
    """The step."""
    step = parsed("softlabel.tools.gpu.warm", __doc__)
    found = warm(step)
    step.write(found)
    print(f"warm: {len(found['seconds'])} compiled, {len(found['not_done'])} not done")


def warm(step: Step) -> dict[str, Any]:
    """Seconds by benchmark, and what did not come in time."""
    seconds: dict[str, float] = {}
    not_done: dict[str, str] = {}
    wanted = [bench for bench in benches(dry_run=step.dry_run) if bench.compile]
    jobs = {str(bench): (bench,) for bench in wanted}
    for name, answer in in_processes(_compile, jobs, processes=_PROCESSES, deadline=step.deadline):
        if isinstance(answer, Exception):
            not_done[name] = described(answer)
        else:
            seconds[name] = answer
    return {"seconds": seconds, "not_done": not_done}


def _compile(bench: KernelBench) -> float:
    start = time.monotonic()
    case = make_case(bench)
    for run in compiled_peers(case).values():
        run.run()
    return round(time.monotonic() - start, 1)


if __name__ == "__main__":
    main()
