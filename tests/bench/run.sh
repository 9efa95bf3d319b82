#!/usr/bin/env bash
# run.sh: all benchmarks, one after the other; every mark is a ratio measured in one run.
set -uo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-/usr/bin/python3}
passed=0 failed=0
bench() {
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}
"$python" scripts/prepare_fashion_mnist.py --out build/fashion-mnist || exit 1
bench "$python" tests/bench/bench_torch.py
bench "$python" tests/bench/bench_torch_quantize.py
bench "$python" tests/bench/bench_training.py
bench "$python" tests/bench/bench_quantization.py
bench "$python" tests/bench/bench_sweep.py
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
