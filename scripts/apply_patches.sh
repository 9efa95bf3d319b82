#!/usr/bin/env bash
# apply_patches.sh [-R] [--fixes 0|1] [--blas 0|1] TREE: applies the series in patches/
# to a Darknet tree, in order and without fuzz, and records it in TREE/.kure-patches.
# -R takes out what the record names. The tree changes only if all patches go through.
#
#   --fixes 1              all of them (default)
#   --fixes 0 --blas 1     the seam, and a fast CPU: 0001-0003
#   --fixes 0 --blas 0     the seam alone: 0001
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
fail() { echo "apply_patches.sh: $*" >&2; exit 1; }

reverse=0 fixes=1 blas=1 tree=
while [ $# -gt 0 ]; do
    case $1 in
        -R) reverse=1 ;;
        --fixes) fixes=${2:-}; shift ;;
        --blas) blas=${2:-}; shift ;;
        -*) fail "unknown option $1" ;;
        *) [ -z "$tree" ] || fail "one tree at a time"; tree=$1 ;;
    esac
    shift
done
[[ $fixes =~ ^[01]$ && $blas =~ ^[01]$ && -n $tree ]] || fail "usage: apply_patches.sh [-R] [--fixes 0|1] [--blas 0|1] TREE"
[ -f "$tree/include/darknet.h" ] || fail "$tree is not a Darknet tree"
record=$tree/.kure-patches

names=()
if [ $reverse = 1 ]; then
    [ -f "$record" ] || fail "$tree has no record of patches (.kure-patches)"
    while read -r name; do names=("$name" "${names[@]}"); done < "$record"
else
    [ ! -e "$record" ] || fail "$tree is patched already: run make unpatch DARKNET=$tree first"
    for patch in "$root"/patches/[0-9]*.patch; do
        name=$(basename "$patch")
        number=$((10#${name%%-*}))
        case $fixes$blas in
            00) [ $number -le 1 ] || continue ;;
            01) [ $number -le 3 ] || continue ;;
        esac
        names+=("$name")
    done
fi
[ ${#names[@]} -gt 0 ] || fail "there are no patches to apply"
for name in "${names[@]}"; do
    [ -f "$root/patches/$name" ] || fail "patches/$name is missing"
done

# Work on a copy of the files that the patches touch
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
files=()
mapfile -t files < <(cd "$root/patches" && sed -n 's|^+++ b/||p' "${names[@]}" | sort -u)
for file in "${files[@]}"; do
    [ -f "$tree/$file" ] || fail "$tree has no $file: it is not of the pjreddie line"
    mkdir -p "$work/$(dirname "$file")"
    cp "$tree/$file" "$work/$file"
done

options=(-d "$work" -p1 -F0 -s --no-backup-if-mismatch -r -)
if [ $reverse = 1 ]; then options+=(-R --force); else options+=(-N); fi
for name in "${names[@]}"; do
    if ! patch "${options[@]}" < "$root/patches/$name" > "$work.log" 2>&1; then
        rm -f "$work.log"
        [ $reverse = 1 ] && fail "$name does not come out of $tree: the tree or the patch has changed since; nothing was changed"
        fail "$name does not apply to $tree; nothing was changed"
    fi
done
rm -f "$work.log"

for file in "${files[@]}"; do cat "$work/$file" > "$tree/$file"; done
if [ $reverse = 1 ]; then rm "$record"; else printf '%s\n' "${names[@]}" > "$record"; fi
