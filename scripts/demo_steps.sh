# demo_steps.sh: steps that are shown, resumed and not done twice; sourced by demo.sh and demo_detector.sh, which set
#
#   out          folder of this run, begun by begin_run
#   darknet      the program
#   trainer      classifier or detector, its command that trains
#   data         the .data file of the training
#   images_mark  a file that changes whenever the images do
#   seed         of every training
#   images       to evaluate on; 0: all
# shellcheck shell=bash disable=SC2154

fail() { echo "$(basename "$0" .sh): $*" >&2; exit 1; }
number() { [[ "$2" =~ ^[0-9]+$ ]] || fail "$1 $2: must be a whole number"; }

# options --seed N --out DIR --images N: of the whole script; count: --images for the evaluations
options() {
    while [ $# -gt 0 ]; do
        [ $# -gt 1 ] || [ "$1" = --help ] || fail "$1: unknown option or its value is missing (--help)"
        case $1 in
        --seed) number "$1" "$2"; seed=$2 ;;
        --images) number "$1" "$2"; images=$2 ;;
        --out) out=${2%/}; [[ "$out" != *[[:space:]\#]* && -n "$out" ]] || fail "--out '$2': Darknet cannot read such a path" ;;
        --help) sed -n '2,/^set/{/^set/d; s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        *) fail "$1: unknown option (--help)" ;;
        esac
        shift 2
    done

    count=()
    [ "$images" = 0 ] || count=(--images "$images")
}

begin_run() {
    [ -x "$darknet" ] || fail "$darknet is missing: run 'make' first"
    . scripts/sysroot.sh
    mkdir -p "$out"/{backup,stamps,points,logs}
    exec 9>"$out/stamps/lock" # held by the trainings as well, should this script die before them
    flock -n 9 || fail "another run is at work in $out"
}

# ---- progress, interruption ------------------------------------------------

elapsed() { printf '%d:%02d' $((SECONDS / 60)) $((SECONDS % 60)); }
stage() { echo "[$(elapsed)] $*"; }

child=
stopped=
trap 'stopped=130' INT # reaches the child as well: the terminal sends it to both
trap 'stopped=143; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM

# run SHOW LOG COMMAND...: waits for the command's end, also under Ctrl-C. Its messages go to
# LOG; on a terminal all of them go there (SHOW = all) or only the progress (SHOW = progress).
run() {
    local show=$1 log=$2 status
    shift 2
    if ! [ -t 1 ] || ! [ -t 2 ]; then
        (trap - INT TERM; exec "$@") >>"$log" 2>&1 &
    elif [ "$show" = all ]; then
        (trap - INT TERM; exec "$@") &
    else
        (trap - INT TERM; exec "$@") >>"$log" &
    fi
    child=$!
    while :; do
        status=0
        wait "$child" || status=$?
        kill -0 "$child" 2>/dev/null || break
    done
    child=
    if [ -n "$stopped" ]; then
        echo "[$(elapsed)] Stopped. Run the same command again to go on from here." >&2
        exit "$stopped"
    fi
    [ $status = 0 ] && return
    [ -t 2 ] || tail -n 3 "$log" >&2
    fail "'$*' failed (status $status)$([ -t 2 ] || echo "; its messages are in $log")"
}

# ---- steps -----------------------------------------------------------------

# Hash of words and of the files among them.
key_of() {
    local word
    for word in "$@"; do
        echo "$word"
        [ ! -f "$word" ] || sha256sum <"$word"
    done | sha256sum | cut -c1-32
}

is_done() { [ -e "$3" ] && [ "$(cat "$out/stamps/$1" 2>/dev/null)" = "$2" ]; }
mark_done() { echo "$2" >"$out/stamps/$1.tmp" && mv "$out/stamps/$1.tmp" "$out/stamps/$1"; }

# The cfg of a model with this run's seed and log.
write_cfg() {
    sed -e "s#^seed=.*#seed=$seed#" -e "s#^log=.*#log=$out/$1.log.csv#" "$2" >"$out/$1.cfg.tmp"
    cmp -s "$out/$1.cfg.tmp" "$out/$1.cfg" || cp "$out/$1.cfg.tmp" "$out/$1.cfg"
    rm "$out/$1.cfg.tmp"
}

value_of() { sed -n "s/^$1=//p" "$2" | head -n 1; }

# newest_checkpoint PATH CFG: of those that have updates left; Darknet refuses one of the last update.
newest_checkpoint() {
    local file images
    images=$(($(value_of batch "$2") * $(value_of max_batches "$2")))
    # shellcheck disable=SC2012
    ls -t "$1".backup "$1".weights "$1"_*.weights 2>/dev/null | while read -r file; do
        # bytes 12 to 19 of a weights file: how many images were trained on
        [ "$(od -An -tu8 -j12 -N8 "$file")" -ge "$images" ] || { echo "$file"; break; }
    done || true
}

# train NAME WHAT [WEIGHTS]: from nothing, or a new schedule from WEIGHTS, by $trainer (classifier or detector)
train() {
    local name=$1 what=$2 weights=${3:-} key checkpoint=
    local made=$out/backup/$name final=$out/backup/$name.weights
    [ "$trainer" = classifier ] || final=${made}_final.weights
    key=$(key_of "$darknet" "$out/$name.cfg" "$images_mark" ${weights:+"$weights"})
    if is_done "$name" "$key" "$out/$name.weights"; then
        stage "$what: already trained"
        return
    fi
    if [ "$(cat "$out/stamps/$name.begun" 2>/dev/null)" = "$key" ]; then
        checkpoint=$(newest_checkpoint "$made" "$out/$name.cfg")
    fi
    if [ -n "$checkpoint" ]; then
        stage "$what: going on from $checkpoint"
        run all "$out/$name.out" "$darknet" "$trainer" train "$data" "$out/$name.cfg" "$checkpoint"
    else
        stage "$what"
        rm -f "$made".* "$made"_* "$out/$name".{out,log.csv,weights,weights.kure}
        mark_done "$name.begun" "$key"
        run all "$out/$name.out" "$darknet" "$trainer" train "$data" "$out/$name.cfg" ${weights:+"$weights" -clear}
    fi
    cp "$final.kure" "$out/$name.weights.kure"
    cp "$final" "$out/$name.weights.tmp" && mv "$out/$name.weights.tmp" "$out/$name.weights"
    mark_done "$name" "$key"
    rm -f "$made".* "$made"_*
}

# table STEP FILE COMMAND...: a command that writes a table with --csv
table() {
    local step=$1 file=$2 key
    shift 2
    key=$(key_of "$@" "$images_mark")
    is_done "$step" "$key" "$file" && return
    run progress "$out/logs/$step.out" "$@" --csv "$file"
    mark_done "$step" "$key"
}

# sweep STEP FILE COMMAND...: the same for a sweep, which goes on from what its file holds
sweep() {
    local step=$1 file=$2 key
    shift 2
    key=$(key_of "$@" "$images_mark")
    is_done "$step" "$key" "$file" && return
    [ "$(cat "$out/stamps/$step.begun" 2>/dev/null)" = "$key" ] || rm -f "$file"
    mark_done "$step.begun" "$key"
    run progress "$out/logs/$step.out" "$@" --csv "$file"
    mark_done "$step" "$key"
}

# cell FILE COLUMN: of a table's first row
cell() { awk -F, -v column="$2" 'NR == 1 { for (i = 1; i <= NF; ++i) if ($i == column) n = i } NR == 2 { print $n }' "$1"; }
