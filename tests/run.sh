#!/usr/bin/env bash
# run.sh [--quick]: everything that must hold; called by `make test` after the main build.
# --quick leaves out the instrumented build. Extra builds lie in build/ and are kept.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-/usr/bin/python3}
make=(make --no-print-directory)
quick=0
[ "${1:-}" = --quick ] && quick=1

if [ -d build/sysroot ]; then # packages unpacked by setup.sh without root
    export PYTHONPATH="$PWD/build/sysroot/usr/lib/python3/dist-packages${PYTHONPATH:+:$PYTHONPATH}"
    export LD_LIBRARY_PATH="$(find "$PWD/build/sysroot/usr/lib" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi

failed=()
part() { # part NAME COMMAND...
    local name=$1
    shift
    echo
    echo "==== $name"
    "$@" || failed+=("$name")
}

build_stock() { # Debian's tree without our patches
    local tree=build/stock/darknet-src
    [ build/stock/harness -nt tests/host/harness.c ] && [ -x build/stock/darknet ] && return
    rm -rf build/stock
    scripts/get_darknet.sh $tree
    mkdir -p $tree/obj
    make -C $tree -j"$(nproc)" darknet >build/stock/darknet.log 2>&1 || { tail -n 20 build/stock/darknet.log; return 1; }
    make -C $tree harness EXEC=harness EXECOBJA=harness.o VPATH="./src/:$PWD/tests/host" >build/stock/harness.log 2>&1 ||
        { tail -n 20 build/stock/harness.log; return 1; }
    cp $tree/darknet $tree/harness build/stock/
}

build_all() {
    "${make[@]}" -j"$(nproc)" build/harness || return 1
    build_stock || return 1
    "${make[@]}" BUILD=build/seam-off FIXES=0 BLAS=0 OPENMP=0 KURE=0 build/seam-off/harness || return 1
    "${make[@]}" BUILD=build/seam-on FIXES=0 BLAS=0 OPENMP=0 build/seam-on/harness || return 1
    [ $quick = 1 ] || "${make[@]}" BUILD=build/asan SANITIZE=address,undefined build/asan/harness
}

host_tests() { "$python" -m pytest -q -p no:cacheprovider tests "$@"; }

sanitized() {
    export ASAN_OPTIONS=detect_leaks=0:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 # Darknet itself leaks
    "${make[@]}" BUILD=build/asan SANITIZE=address,undefined unit || return 1
    host_tests -m sanitize --build build/asan
}

part "layers, file sizes, documentation" scripts/check_layers.sh
part "builds: main, stock, seam off, seam on$([ $quick = 1 ] || echo ', sanitized')" build_all
part "documentation of the keys" "$python" scripts/docs.py --check
part "unit tests" "${make[@]}" unit
part "host tests" host_tests
[ $quick = 1 ] || part "unit and host tests under ASan and UBSan" sanitized

echo
if [ ${#failed[@]} -gt 0 ]; then
    printf 'FAILED: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "All parts passed."
