#!/usr/bin/env bash
# get_darknet.sh DEST [DIR]: puts an unpatched Darknet into the new folder DEST.
#
# Without DIR: Debian's source package, got with apt through a private source
# list that is derived from the machine's own. Downloads are kept in build/cache,
# so a second call needs no network. UPSTREAM=1 leaves Debian's patches out.
# With DIR: a copy of the sources in DIR, which is never changed.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${KURE_CACHE:-$root/build/cache}/darknet
upstream_sha256=ec536ae11853846aab96183d8ec18730a46cce71f7d935768d235029329f9e93

fail() { echo "get_darknet.sh: $*" >&2; exit 1; }

# Writes the machine's package sources as source-code sources into folder $1.
derive_sources() {
    local file list parts
    eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
    mkdir -p "$1"
    for file in "$list" "$parts"/*.list; do
        [ -f "$file" ] || continue
        sed -nE 's/^[[:space:]]*deb(-src)?[[:space:]]+/deb-src /p' "$file" > "$1/$(basename "$file" .list).list"
    done
    for file in "$parts"/*.sources; do
        [ -f "$file" ] || continue
        sed -E 's/^[Tt]ypes:.*/Types: deb-src/' "$file" > "$1/$(basename "$file")"
    done
}

# Downloads the package's files into the current folder.
download() {
    local log=$1/log options
    derive_sources "$1/sources"
    mkdir -p "$1/lists/partial" "$1/archives/partial"
    : > "$1/none.list"
    options=(-q -o Dir::Etc::sourcelist="$1/none.list" -o Dir::Etc::sourceparts="$1/sources"
        -o Dir::State::lists="$1/lists" -o Dir::Cache::archives="$1/archives"
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
        -o Debug::NoLocking=1 -o Acquire::Languages=none -o APT::Sandbox::User="$(id -un)")
    # A source without code of its own is no reason to stop
    apt-get "${options[@]}" update > "$log" 2>&1 || true
    if ! apt-get "${options[@]}" source --download-only darknet >> "$log" 2>&1; then
        grep -E '^[EW]:' "$log" | tail -n 3 >&2 || true
        fail "apt found no source package 'darknet': give your own tree, make DARKNET=DIR"
    fi
}

upstream_tarball() { find "$cache" -maxdepth 1 -name 'darknet_*.orig.tar.*' ! -name '*.asc' | sort | tail -n 1; }
debian_tarball() { find "$cache" -maxdepth 1 -name 'darknet_*.debian.tar.*' | sort | tail -n 1; }

get_package() {
    local work
    mkdir -p "$cache"
    if [ -z "$(upstream_tarball)" ] || [ -z "$(debian_tarball)" ]; then
        command -v apt-get > /dev/null || fail "there is no apt-get here: give your own tree, make DARKNET=DIR"
        work=$(mktemp -d "$cache/get.XXXXXX")
        # shellcheck disable=SC2064
        trap "rm -rf '$work'" EXIT
        mkdir "$work/files"
        (cd "$work/files" && download "$work")
        mv "$work"/files/darknet_* "$cache/"
        rm -rf "$work"
        trap - EXIT
    fi
    local tarball
    tarball=$(upstream_tarball)
    if ! echo "$upstream_sha256  $tarball" | sha256sum --check --status; then
        rm -f "$cache"/darknet_*
        fail "the upstream tarball is not the one that the patches are made for (sha256 $upstream_sha256); it was removed"
    fi
}

unpack_package() {
    local patches patch
    tar -xf "$(upstream_tarball)" -C "$1" --strip-components=1
    [ "${UPSTREAM:-0}" = 1 ] && return
    patches=$(mktemp -d)
    tar -xf "$(debian_tarball)" -C "$patches"
    while read -r patch _; do
        case $patch in ''|'#'*) continue ;; esac
        patch -d "$1" -p1 -F0 -N -s --no-backup-if-mismatch < "$patches/debian/patches/$patch" \
            || fail "Debian's patch $patch does not apply"
    done < "$patches/debian/patches/series"
    rm -rf "$patches"
}

check_tree() {
    [ -d "$1" ] || fail "$1 is not a folder"
    [ ! -d "$1/src-lib" ] || fail "$1 is hank-ai's Darknet, which is not supported yet: use the pjreddie line"
    [ ! -e "$1/include/yolo_v2_class.hpp" ] || fail "$1 is AlexeyAB's Darknet, which is not supported yet: use the pjreddie line"
    local file
    for file in Makefile include/darknet.h src/parser.c src/network.c examples/darknet.c; do
        [ -f "$1/$file" ] || fail "$1 is not a Darknet tree: it has no $file"
    done
    if [ -e "$1/.kure-patches" ] || grep -q kure_seam "$1/include/darknet.h"; then
        fail "$1 is patched already: run make unpatch DARKNET=$1 first"
    fi
}

copy_tree() {
    (cd "$1" && find . \( -name .git -o -path ./obj -o -path ./backup -o -path ./results -o -path ./build \) -prune \
        -o \( -type f -o -type l \) -size -4096k \
        ! -name '*.o' ! -name '*.a' ! -name '*.so' ! -name '*.weights*' ! -name '*.backup*' ! -path ./darknet -print0) \
        | tar -C "$1" --null --no-recursion -T - -cf - | tar -xf - -C "$2"
}

if [ $# -lt 1 ] || [ $# -gt 2 ]; then fail "usage: get_darknet.sh DEST [DIR]"; fi
dest=$1
if [ -e "$dest" ] && [ -n "$(ls -A "$dest")" ]; then fail "$dest is not empty"; fi

if [ $# -eq 2 ]; then
    check_tree "$2"
    mkdir -p "$dest"
    copy_tree "$2" "$dest"
else
    get_package
    mkdir -p "$dest"
    unpack_package "$dest"
fi
