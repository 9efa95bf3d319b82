#!/usr/bin/env bash
# run.sh FOLDER ENGINE SECONDS TARGET...: fuzzes with FOLDER/fuzz_TARGET, from tests/fuzz/corpus/TARGET
# and what earlier runs have found, one target after the other; `make fuzz` calls it. New inputs stay in
# FOLDER/found/TARGET, what fails in FOLDER/failed/TARGET; a failure is exit status 1.
#
# run.sh FOLDER minimize - TARGET...: FOLDER is libFuzzer's: takes what was found into tests/fuzz/corpus,
# as few files as cover it.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$1 engine=$2 seconds=$3
shift 3

scratch=$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)/fuzz-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
export TMPDIR=$scratch UBSAN_OPTIONS=print_stacktrace=1

# The longest input: larger ones find nothing that smaller ones do not.
declare -A longest=([model]=4096 [bundle]=8192 [sidecar]=2048 [cfg]=2048)

run_libfuzzer() {
    "$folder/fuzz_$1" -max_len="${longest[$1]}" -timeout=20 -rss_limit_mb=3000 -max_total_time="$seconds" -print_final_stats=1 \
        -artifact_prefix="$folder/failed/$1/" "$folder/found/$1" "tests/fuzz/corpus/$1"
}

run_afl() {
    export AFL_SKIP_CPUFREQ=1 AFL_NO_AFFINITY=1 AFL_NO_UI=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_AUTORESUME=1
    export ASAN_OPTIONS=abort_on_error=1:symbolize=0:detect_leaks=0 UBSAN_OPTIONS=abort_on_error=1:symbolize=0
    afl-fuzz -i "tests/fuzz/corpus/$1" -o "$folder/found/$1" -m none -t 5000+ -G "${longest[$1]}" -V "$seconds" -- "$folder/fuzz_$1"
    local crashes=("$folder/found/$1"/default/{crashes,hangs}/id*)
    grep -E '^(run_time|execs_done|corpus_count|saved_crashes|saved_hangs|bitmap_cvg)' "$folder/found/$1/default/fuzzer_stats"
    for crash in "${crashes[@]}"; do [ ! -e "$crash" ] || { cp "$crash" "$folder/failed/$1/"; failed=1; }; done
}

run_minimize() {
    mkdir -p "$scratch/$1"
    "$folder/fuzz_$1" -merge=1 -max_len="${longest[$1]}" "$scratch/$1" "tests/fuzz/corpus/$1" "$folder/found/$1"
    find "tests/fuzz/corpus/$1" -type f -regextype posix-extended -regex '.*/[0-9a-f]{40}' -delete # the last ones
    for found in "$scratch/$1"/*; do
        local there=0
        for seed in "tests/fuzz/corpus/$1"/*; do ! cmp -s "$found" "$seed" || there=1; done
        [ $there = 1 ] || cp "$found" "tests/fuzz/corpus/$1/"
    done
}

failed=0
for target in "$@"; do
    mkdir -p "$folder/found/$target" "$folder/failed/$target"
    echo "== $target, $engine"
    "run_$engine" "$target" || failed=1
done
[ $failed = 0 ] || { echo "run.sh: what failed lies in $folder/failed" >&2; exit 1; }
