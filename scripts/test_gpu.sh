#!/usr/bin/env bash
# test_gpu.sh: what `make test-gpu` runs on a machine with a GPU: the loops natively and under
# compute-sanitizer, then training on it against the CPU. Needs nvcc and the packages of `make`;
# a machine without network takes build/cache and build/sysroot along, as a rootless `make setup`
# leaves them. Status 1 where something failed; what could not run is said.
#
#   BUILD=DIR    its builds lie in DIR/gpu (default: build)
#   ARCH=FLAGS   for nvcc (default: the GPU that is here)
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build}/gpu
python=${PYTHON:-/usr/bin/python3}
logs=$build/tests
mkdir -p "$logs"
export PYTHONDONTWRITEBYTECODE=1
. scripts/sysroot.sh

fail() { echo "test_gpu.sh: $*" >&2; exit 1; }
command -v nvcc >/dev/null || fail "there is no nvcc in PATH: install the CUDA toolkit"
gpu=$(nvidia-smi --query-gpu=name,compute_cap,driver_version --format=csv,noheader 2>/dev/null | head -n 1) || true
[ -n "$gpu" ] || fail "nvidia-smi finds no GPU here"
kind=$(echo "$gpu" | cut -d, -f2 | tr -d ' .')
ARCH=${ARCH:--gencode arch=compute_$kind,code=sm_$kind}

failed=() summaries=()
part() { # part NAME COMMAND...
    local name=$1 log=$logs/$((${#summaries[@]} + 1)).log start=$SECONDS status=0
    shift
    printf '\n==== %s\n' "$name"
    "$@" 2>&1 | tee "$log" || status=$?
    [ $status = 0 ] || failed+=("$name")
    summaries+=("$name ($((SECONDS - start)) s): $(grep -E '^([0-9]+ (passed|failed)|[0-9]+ .*(passed|failed).* in |\[  (PASSED|FAILED)  \] [0-9]+ test|=+ (ERROR|RACECHECK) SUMMARY)' "$log" \
        | paste -sd ';' | sed 's/^$/-/')$([ $status = 0 ] || echo ' FAILED')")
}
make_it() { make --no-print-directory -j"$(nproc)" BUILD="$build" GPU=1 ARCH="$ARCH" "$@"; }
sanitizer() { compute-sanitizer --tool "$1" --error-exitcode 9 "$build/unit/test_cuda_native"; }

echo "GPU: $gpu; $(nvcc --version | grep -o 'release [0-9.]*')"
part "the loops against the CPU" bash -c "$(declare -f make_it); build='$build' ARCH='$ARCH'; make_it '$build/unit/test_cuda_native' && '$build/unit/test_cuda_native'"
if command -v compute-sanitizer >/dev/null; then
    part "the same under memcheck" sanitizer memcheck
    part "the same under racecheck" sanitizer racecheck
else
    summaries+=("compute-sanitizer: NOT RUN, it is not in PATH")
fi
if "$python" -c 'import numpy, pytest, PIL' 2>/dev/null; then
    part "Darknet with GPU=1" make_it "$build/harness"
    KURE_GPU=native NVIDIA_TF32_OVERRIDE=0 part "training against the CPU" "$python" -m pytest -q -p no:cacheprovider --builds="$build" --build="$build" -m gpu tests
else
    summaries+=("training against the CPU: NOT RUN, $python lacks numpy, pytest or PIL")
fi

printf '\n==== summary: %s\n' "$gpu"
printf '%s\n' "${summaries[@]}"
[ ${#failed[@]} -eq 0 ] || { printf 'FAILED: %s\n' "${failed[@]}" >&2; exit 1; }
