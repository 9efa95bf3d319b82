#!/usr/bin/env bash
# check_layers.sh [ROOT [OBJECTS]]: includes and symbols point one way only:
#
#   math, include <- core <- adapter <- commands,   math, include <- backend,   math, include <- runtime
#   core, runtime <- export <- commands;   the adapter fills export's structs and calls nothing of it
#
# The runtime, but for its program kure-run, is C99 for any device: three headers, no symbol
# of a library beyond memcpy and memset. core may include backend/backend.h, the table of loops, and nothing else of it; Darknet's
# headers are known to the adapter alone; core, backend, runtime, export and math never end the process. Also:
# no file above 400 lines, no flag that changes what floats mean. OBJECTS (default:
# ROOT/build/obj) holds the compiled layers; without it only the text is checked.
set -euo pipefail

root=${1:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
objects=${2:-$root/build/obj}
source=$root/darknet-kure
faults=0
fault() { echo "check_layers.sh: $*" >&2; faults=$((faults + 1)); }

declare -A allowed=(
    [include]="include"
    [math]="math include"
    [backend]="backend math include"
    [core]="core math include"
    [runtime]="runtime math include"
    [export]="export core runtime math include"
    [adapter]="adapter core backend math include export darknet"
    [commands]="commands adapter export core backend math include"
)

# The layer that a header belongs to, by its name; Darknet's are not in the list.
declare -A layer_of=()
for file in "$source"/*/*.{h,cuh,def}; do
    layer_of[${file##*/}]=$(basename "${file%/*}")
done

for layer in "${!allowed[@]}"; do
    [ -d "$source/$layer" ] || { fault "darknet-kure/$layer is missing"; continue; }
    while IFS=: read -r file line text; do
        header=${text#*\"}
        header=${header%%\"*}
        [ "$layer/${header##*/}" = core/backend.h ] && continue
        from=${layer_of[${header##*/}]:-darknet}
        [[ " ${allowed[$layer]} " == *" $from "* ]] || fault "${file#"$root"/}:$line: $layer includes $header of $from"
    done < <(grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$source/$layer" || true)
done

while IFS= read -r found; do
    fault "${found#"$root"/}: only the caller ends the process: return a status"
done < <(grep -rnE '\b(exit|_exit|_Exit|quick_exit|abort)[[:space:]]*\(' "$source"/{core,backend,runtime,export,math,include} || true)

while IFS= read -r found; do
    fault "${found#"$root"/}: the runtime has no such header on a small device"
done < <(grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*<' "$source"/runtime/*.[ch] "$source/include/kure_runtime.h" "$source/math/kure_intmath.h" \
    | grep -vE '/kure_run(_[a-z]+)?\.[ch]:|<(stddef|stdint|string)\.h>' || true)

while read -r lines file; do
    [ "$file" = total ] || [ "$lines" -le 400 ] || fault "${file#"$root"/} has $lines lines: split it (400 at most)"
done < <(find "$source" "$root"/tests "$root"/scripts -type f \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.def' -o -name '*.py' -o -name '*.sh' \) -exec wc -l {} +)

for file in "$root/Makefile" "$source/host.mk" "$root"/tests/unit/*.mk; do
    if [ -f "$file" ] && grep -nE -- '-Ofast|-ffast-math|-funsafe-math|-fassociative-math|--use_fast_math' "$file" >&2; then
        fault "${file#"$root"/}: such flags change what our floats mean"
    fi
done
grep -q -- '-ffp-contract=off' "$root/Makefile" || fault "Makefile: our own objects need -ffp-contract=off"

# ---- symbols of the compiled layers -----------------------------------------------

defined() { find "$objects/$1" -name '*.o' -exec nm -g --defined-only {} + | awk 'NF == 3 {print $3}' | sort -u; }
used() { find "$objects/$1" -name '*.o' -exec nm -g --undefined-only {} + | awk '$1 == "U" {print $2}' | sort -u; }

if [ -d "$objects" ]; then
    for pair in core:adapter core:commands core:runtime backend:core backend:adapter backend:commands adapter:commands \
        runtime:core runtime:backend runtime:adapter runtime:commands core:export backend:export runtime:export \
        export:adapter export:commands adapter:export; do
        both=$(comm -12 <(used "${pair%:*}") <(defined "${pair#*:}") | paste -sd ' ')
        [ -z "$both" ] || fault "${pair%:*} uses symbols of ${pair#*:}: $both"
    done
    for layer in core backend export; do
        both=$(used "$layer" | grep -xE 'exit|_exit|_Exit|quick_exit|abort' | paste -sd ' ' || true)
        [ -z "$both" ] || fault "$layer calls $both"
    done
    open=$(find "$objects/runtime" -name '*.o' ! -name 'kure_run*' -exec nm -g --undefined-only {} + | awk '$1 == "U" {print $2}' | sort -u \
        | grep -vE '^(kure_|_GLOBAL_OFFSET_TABLE_$|__(asan|ubsan|tsan|sanitizer|stack_chk)_)' | grep -vxE 'memcpy|memset' | paste -sd ' ' || true)
    [ -z "$open" ] || fault "runtime uses $open: memcpy and memset are all it may"
    # What core and backend leave open must come from the C library, OpenMP, jansson, xxhash or a sanitizer.
    open=$(comm -23 <({ used core; used backend; } | sort -u) <({ defined core; defined backend; } | sort -u) \
        | grep -E '^(kure_|load_network|free_network|get_network|layer|option_find|network_|gemm|error$|fatal_error)' | paste -sd ' ' || true)
    [ -z "$open" ] || fault "core and backend leave open: $open"
fi

[ $faults -eq 0 ] || { echo "check_layers.sh: $faults faults" >&2; exit 1; }
echo "check_layers.sh: the layers point one way"
