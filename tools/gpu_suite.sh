#!/usr/bin/env bash
# Everything that needs a GPU, in under nine minutes: gpu_suite.sh OUT [--dry-run]
# Correctness first; if it is red nothing is timed and the exit code is 1. A later step that fails or
# runs out of time costs its own figures only: exit code 2. OUT gets at most eight files, flat.
# Needed: bash, timeout, Python >= 3.11 with torch, triton and numpy (PYTHON=... chooses it). The
# card's settings are read and left alone. --dry-run: tiny shapes on the CPU. SUITE_SECONDS=... gives
# another total.
set -euo pipefail

usage="usage: $0 OUT [--dry-run]"
OUT=${1:?$usage}
DRY=${2:-}
if [[ $OUT == -* || $# -gt 2 || ( -n $DRY && $DRY != --dry-run ) ]]; then
    echo "$usage" >&2
    exit 64
fi
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-$([[ -x .venv/bin/python ]] && echo "$PWD/.venv/bin/python" || echo python3)}
export PYTHONPATH=$PWD/.src PYTHONUNBUFFERED=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
[[ -n $DRY ]] && export CUDA_VISIBLE_DEVICES="" TRITON_INTERPRET=1

TOTAL=${SUITE_SECONDS:-525}
LOG=$OUT/log.txt
: >"$LOG"
failed=()

left() { echo $((TOTAL - SECONDS)); }

# step NAME FILE LIMIT: runs a module for at most LIMIT seconds; it stops itself a little earlier.
step() {
    local name=$1 file=$2 limit=$3
    ((limit > $(left))) && limit=$(left)
    if ((limit < 10)); then
        echo "$name: unmeasured, no time left" | tee -a "$LOG"
        return 1
    fi
    echo "== $name, at second $SECONDS, $limit s at most" | tee -a "$LOG"
    timeout --kill-after=5 "$limit" "$PYTHON" -m "softlabel.tools.gpu.$name" \
        --out "$OUT/$file.json" --seconds $((limit - 8)) $DRY >>"$LOG" 2>&1
}

optional() {
    step "$@" || failed+=("$1")
}

optional environment environment 45

# The peers' compilers work while the kernels are checked: nothing is timed meanwhile.
warm=
if [[ -z $DRY ]]; then
    TORCHINDUCTOR_COMPILE_THREADS=2 timeout --kill-after=5 200 "$PYTHON" -m softlabel.tools.gpu.warm \
        --out "$OUT/warm.json" --seconds 190 >>"$LOG" 2>&1 &
    warm=$!
    trap 'kill "$warm" 2>/dev/null || true' EXIT
fi

if ! step correctness correctness 170; then
    tail -n 40 "$LOG"
    echo "gpu_suite: correctness is RED; nothing was timed"
    exit 1
fi
# This one needs the compiler, which the interpreter hides.
(unset TRITON_INTERPRET; step spills spills 60) || failed+=(spills)

if [[ -n $warm ]]; then
    wait "$warm" || failed+=(warm)
    rm -f "$OUT/warm.json"
fi
optional benchmark kernel 170
optional linear linear 45
optional sweep sweep 240  # last: what is left of the time is used, and what was not is named

"$PYTHON" -m softlabel.tools.gpu.summary "$OUT" | tee -a "$LOG"
echo "gpu_suite: $SECONDS s${failed:+, failed: ${failed[*]}; see log.txt}"
((${#failed[@]} == 0)) || exit 2
