#!/usr/bin/env bash
# check_layers.sh: what the folders of darknet-kure/ promise each other.
#
#   math <- core <- backend <- adapter <- commands: nothing includes what stands to its right
#   (core calls the loops through backend/backend.h, the one exception); only adapter and
#   commands know Darknet; libraries do not exit; no fast-math; files of at most 400 lines.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0
complain() { echo "check_layers.sh: $*" >&2; failed=1; }

# files that `folder` must not include: headers that exist in one of the other folders
forbid() {
    local folder=$1 other header file
    shift
    for other in "$@"; do
        for header in darknet-kure/"$other"/*.h; do
            [ -e "$header" ] || continue
            header=$(basename "$header")
            [ "$other/$header" = backend/backend.h ] && [ "$folder" = core ] && continue
            [ -e "darknet-kure/$folder/$header" ] && continue
            file=$(grep -lE "#include [<\"](.*/)?$header[>\"]" darknet-kure/"$folder"/* 2>/dev/null | head -n 1) || true
            [ -z "$file" ] || complain "$file includes $other/$header"
        done
    done
}
forbid math core backend adapter commands
forbid include math core backend adapter commands
forbid core backend adapter commands
forbid backend adapter commands
forbid adapter commands

for folder in math include core backend; do
    grep -nE '#include [<"]darknet\.h[>"]' darknet-kure/$folder/* && complain "$folder includes Darknet's header"
    grep -nE '\b(exit|abort)\(' darknet-kure/$folder/* && complain "$folder ends the process"
done
grep -nE -e '-(Ofast|ffast-math)|--use_fast_math' Makefile darknet-kure/*.mk tests/unit/*.mk && complain "fast-math in our flags"

while read -r lines file; do
    [ "$file" = total ] || [ "$lines" -le 400 ] || complain "$file has $lines lines; 400 at most"
done < <(git ls-files -co --exclude-standard -- '*.c' '*.h' '*.py' '*.sh' 2>/dev/null | xargs -r wc -l)

[ $failed = 0 ] && echo "layers: ok"
exit $failed
