"""One configuration through Triton and ptxas to machine code, and what that code holds.

Nothing is run: the compiler that Triton carries needs neither a GPU nor a driver.
"""

import importlib
import io
import re
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from softlabel.tools.compile_gate.report import Report, Specialization


def compile_one(spec: Specialization, arch: int) -> Report:
    """Compile for sm_`arch` and read the result; cached where TRITON_CACHE_DIR says.

    Raises:
        TypeError: triton was imported with TRITON_INTERPRET=1, which leaves nothing to compile.
    """
    if not isinstance(spec.kernel, triton.JITFunction):
        raise TypeError(f"{spec.kernel!r} is not compiled code; unset TRITON_INTERPRET")
    start = time.perf_counter()
    binary, log = _compiled(spec, arch)
    seconds = time.perf_counter() - start
    ptx = binary.asm["ptx"]
    spill = _only(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    usage = _usage(binary.asm["cubin"])
    registers, stack, local = _only(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    return Report(
        registers=registers,
        stack=stack,
        local=local,
        shared=binary.metadata.shared,
        spill_stores=spill[0],
        spill_loads=spill[1],
        fp64=len(re.findall(r"\.f64\b", ptx)),
        loads=dict(_widths("ld", ptx) + _copies(ptx)),
        stores=dict(_widths("st", ptx)),
        ex2=len(re.findall(r"\bex2\.", ptx)),
        barriers=len(re.findall(r"\bbar(?:rier)?\.", ptx)),
        seconds=round(seconds, 3),
    )


def prepare() -> None:
    """Do once, before a process forks, what each compiling process would do for itself."""
    with suppress(ImportError, AttributeError):  # neither is a promise of Triton's
        importlib.import_module("triton.compiler.code_generator")
        importlib.import_module("triton.runtime.cache").triton_key()  # a hash of all its files


def _compiled(spec: Specialization, arch: int) -> tuple[Any, str]:
    """Triton's binary, and the log of the very ptxas run that made it."""
    names = spec.kernel.arg_names
    source = ASTSource(
        fn=spec.kernel,
        signature={name: spec.signature.get(name, "constexpr") for name in names},
        constexprs=dict(spec.constexprs),
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in spec.divisible},
    )
    said = io.StringIO()
    with knobs.nvidia.scope(), redirect_stdout(said):
        knobs.nvidia.dump_ptxas_log = True
        target = GPUTarget("cuda", arch, 32)
        binary = triton.compile(source, target=target, options=dict(spec.options))
    # A binary that comes from the cache comes without a log: that is kept beside it.
    kept = Path(knobs.cache.dir) / f"{binary.hash}.ptxas"
    if said.getvalue():
        kept.write_text(said.getvalue())
    return binary, kept.read_text()


def _usage(cubin: bytes) -> str:
    """What cuobjdump says of the binary's resources."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _widths(name: str, ptx: str) -> Counter[int]:
    """Bits of each global `ld` or `st`: ld.global.L1::evict_first.v4.b32 moves 128."""
    pattern = rf"\b{name}(?:\.[\w:]+)*?\.global(?:\.[\w:]+)*?(?:\.v(\d))?\.[bfsu](\d+)\s"
    return Counter(int(lanes or 1) * int(bits) for lanes, bits in re.findall(pattern, ptx))


def _copies(ptx: str) -> Counter[int]:
    """Bits of each asynchronous copy to shared memory: their bytes are the third operand."""
    pattern = r"\bcp\.async\.c[ag]\.shared\.global[^\[]*\[[^]]*\],\s*\[[^]]*\],\s*(0x)?(\w+)"
    return Counter(8 * int(n, 16 if prefix else 10) for prefix, n in re.findall(pattern, ptx))


def _only(pattern: str, text: str) -> tuple[int, ...]:
    """The numbers in the one place where `pattern` stands: Triton compiles one kernel a time."""
    (found,) = re.finditer(pattern, text)
    return tuple(map(int, found.groups()))
