#!/usr/bin/env bash
# run.sh [--quick]: everything that must hold; called by `make test` after the main build.
# --quick leaves out the instrumented builds. Closes with the runners' own summary lines.
#
#   BUILD=DIR    the build under test (default: build); the extra builds lie in it and are kept
#   PYTHON=FILE  a python3 that has pytest, pytest-xdist, numpy and PIL (default: Debian's)
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build}
python=${PYTHON:-/usr/bin/python3}
quick=0
[ "${1:-}" = --quick ] && quick=1
logs=$build/tests
mkdir -p "$logs"
export PYTHONDONTWRITEBYTECODE=1

. scripts/sysroot.sh

failed=() summaries=()
part() { # part NAME COMMAND...: its output is shown and kept; the others run whatever becomes of it
    local name=$1 log start=$SECONDS status=0
    shift
    log=$logs/$((${#summaries[@]} + 1)).log
    printf '\n==== %s\n' "$name"
    "$@" 2>&1 | tee "$log" || status=$?
    [ $status = 0 ] || failed+=("$name")
    # pytest: "12 passed in 3.45s"; cmocka: "[  PASSED  ] 9 test(s)."
    summaries+=("$(printf '%s (%d s)' "$name" $((SECONDS - start)))"$'\n'"$(summary "$log" $status)")
}

summary() {
    local lines
    lines=$(grep -E '^([0-9]+ (passed|failed)|[0-9]+ .*(passed|failed).* in |\[  (PASSED|FAILED)  \] [0-9]+ test)' "$1" | sort | uniq -c \
        | sed -E 's/^ *1 /    /; s/^ *([0-9]+) /    \1 x /') || true
    if [ -n "$lines" ]; then echo "$lines"; elif [ "$2" = 0 ]; then echo "    ok"; else echo "    FAILED"; fi
}

make_build() { # make_build FOLDER FLAG...: darknet and harness
    local folder=$1
    shift
    make --no-print-directory -j"$(nproc)" BUILD="$folder" "$@" "$folder/harness"
}

make_stock() { # Debian's tree without our patches
    local folder=$build/stock
    [ "$folder/harness" -nt tests/host/harness.c ] && [ "$folder/harness" -nt scripts/get_darknet.sh ] && return
    rm -rf "$folder"
    scripts/get_darknet.sh "$folder/darknet-src"
    mkdir -p "$folder/darknet-src/obj"
    make -C "$folder/darknet-src" -j"$(nproc)" harness EXEC=harness EXECOBJA=harness.o VPATH="./src/:$PWD/tests/host" \
        > "$folder/harness.log" 2>&1 || { tail -n 20 "$folder/harness.log"; return 1; }
    cp "$folder/darknet-src/harness" "$folder/"
}

sanitize=(SANITIZE=address,undefined OPENMP=1 CFLAGS='-O2 -g') # -O3 compiles for twice as long and runs no faster
# ThreadSanitizer understands LLVM's OpenMP; gcc's makes it report every parallel loop.
threads_flags=(CC=clang SANITIZE=thread OPENMP=1 CFLAGS='-O2 -g')
threads=0
if [ $quick = 0 ] && echo 'int main(void) { return 0; }' | clang -x c -fopenmp -fsanitize=thread - -o "$logs/probe" 2>/dev/null; then threads=1; fi
builds() {
    make_build "$build" || return 1
    make_stock || return 1
    make_build "$build/seam-off" FIXES=0 BLAS=0 OPENMP=0 KURE=0 || return 1
    make_build "$build/seam-on" FIXES=0 BLAS=0 OPENMP=0 || return 1
    [ $quick = 1 ] || make_build "$build/asan" "${sanitize[@]}" || return 1
    [ $threads = 0 ] || make_build "$build/tsan" "${threads_flags[@]}"
}

# Darknet with GPU=1: for the CPU, which runs it; and for real GPUs by nvcc, compiled and linked
# for one kind, our kernels for two more. What does not depend on Darknet
# is that of the main build.
cuda=$(dirname "$(dirname "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)")")/include
gpu_on_cpu() {
    make_build "$build/gpu-on-cpu" OBJECTS="$build/obj" GPU=1 NVCC="$PWD/tests/host/cuda_on_cpu/nvcc" || return 1
    host_tests "$build" -m gpu || return 1
    KURE_TEST_GPU=1 "$python" -m pytest -q -n "$(nproc)" -p no:cacheprovider --builds="$build" --build="$build/gpu-on-cpu" \
        tests/test_update.py tests/test_learned.py tests/test_quantization.py tests/test_freeze.py \
        -k "test_update or outputs_and_gradients or one_update or folded_weights_are_learned or (rectified_methods and not (refused or resume))"
}
build_cuda() {
    local cudnn=0 kind
    [ ! -f "$cuda/cudnn.h" ] || cudnn=1
    echo "CUDNN=$cudnn, $(nvcc --version | grep -o 'release [0-9.]*')"
    make_build "$build/cuda" OBJECTS="$build/obj" GPU=1 CUDNN=$cudnn DEBUG=1 CFLAGS=-O0 ARCH='-gencode arch=compute_90,code=sm_90' || return 1
    for kind in 75 80; do
        make --no-print-directory BUILD="$build/cuda-$kind" GPU=1 ARCH="-gencode arch=compute_$kind,code=sm_$kind" "$build/cuda-$kind/obj/backend/cuda.o" || return 1
    done
}

unit_tests() { make --no-print-directory -j"$(nproc)" BUILD="$1" "${@:2}" unit; }
host_tests() { "$python" -m pytest -q -n "$(nproc)" --dist loadfile -p no:cacheprovider --builds="$build" --build="$1" "${@:2}" tests; }

part "layers and file sizes" scripts/check_layers.sh . "$build/obj"
part "builds: main, stock, seam off, seam on$([ $quick = 1 ] || echo ', sanitized')$([ $threads = 0 ] || echo ', threads')" builds
part "documentation of the keys" "$python" scripts/docs.py --check
part "unit tests" unit_tests "$build"
part "host tests" host_tests "$build" -m "not browser and not clients and not gpu"
if [ -f "$cuda/cuda_runtime.h" ]; then
    part "training on the GPU, whose kernels run on the CPU" gpu_on_cpu
else
    summaries+=("training on the GPU, whose kernels run on the CPU: NOT RUN, the headers of the CUDA toolkit are missing")
fi
if [ $quick = 0 ] && command -v nvcc >/dev/null; then
    part "Darknet by nvcc for sm_90, our kernels for sm_75 and sm_80 too" build_cuda
elif [ $quick = 0 ]; then
    summaries+=("Darknet and our kernels by nvcc: NOT RUN, there is no nvcc")
fi
if "$python" tests/browser.py >/dev/null; then
    part "the report in a browser" host_tests "$build" -m browser
else
    summaries+=("the report in a browser: NOT RUN, Debian's package chromium-headless-shell is missing")
fi
if scripts/clients.sh; then
    part "exported models on onnxruntime, OpenCV, ncnn, LiteRT" host_tests "$build" -m clients
else
    summaries+=("exported models on onnxruntime, OpenCV, ncnn, LiteRT: NOT RUN, the runtimes could not be installed: see build/clients.log")
fi
if [ $quick = 0 ]; then
    # Darknet itself leaks; whatever else the sanitizers find ends the program.
    export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
    part "unit tests under ASan and UBSan" unit_tests "$build/asan" "${sanitize[@]}"
    part "host tests under ASan and UBSan" host_tests "$build/asan" -m "sanitize and not long"
fi
if [ $threads = 1 ]; then
    export TSAN_OPTIONS=halt_on_error=1:ignore_noninstrumented_modules=1 # OpenBLAS has threads of its own
    part "host tests under ThreadSanitizer" host_tests "$build/tsan" -m threads
elif [ $quick = 0 ]; then
    summaries+=("host tests under ThreadSanitizer: NOT RUN, clang with libomp-dev and libclang-rt-dev is missing")
fi

printf '\n==== summary\n'
printf '%s\n' "${summaries[@]}"
[ ${#failed[@]} -eq 0 ] || { printf 'FAILED: %s\n' "${failed[@]}" >&2; exit 1; }
