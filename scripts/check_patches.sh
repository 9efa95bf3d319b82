#!/usr/bin/env bash
# check_patches.sh: for Debian's tree and for upstream's: the patches apply without
# fuzz, build with the plugin off, come out again, and leave the tree as it was.
# With darknet-kure/host.mk the plugin is built on both trees, too.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jobs=${JOBS:-$(nproc)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

# check WHAT COMMAND...: one line a step; the log is shown where it failed
check() {
    local what=$1
    shift
    if "$@" > "$work/log" 2>&1; then
        echo "ok      $what"
        passed=$((passed + 1))
    else
        echo "FAILED  $what"
        tail -n 15 "$work/log" | sed 's/^/        /'
        failed=$((failed + 1))
    fi
}

apply() { "$root/scripts/apply_patches.sh" "$@"; }

build() {
    local tree=$1
    shift
    find "$tree" \( -name '*.o' -o -name '*.a' -o -name '*.so' -o -path "$tree/darknet" \) -delete
    mkdir -p "$tree/obj"
    env -u MAKEFLAGS -u MAKELEVEL -u CFLAGS make -C "$tree" -j"$jobs" darknet OPTS=-O0 OPENMP=1 "$@" || return 1
    if grep -E 'warning: (implicit|unused|incompatible|.*discards)' "$work/log"; then return 1; fi
    find "$tree" \( -name '*.o' -o -name '*.a' -o -name '*.so' -o -path "$tree/darknet" \) -delete
    rmdir "$tree/obj"
}

seam_is_small() {
    local added removed
    added=$(grep -c '^+[^+]\|^+$' "$root/patches/0001-seam.patch") || true
    removed=$(grep -c '^-[^-]\|^-$' "$root/patches/0001-seam.patch") || true
    echo "$added lines added, $removed removed"
    [ "$added" -le 30 ] && [ "$removed" -eq 0 ]
}

headers_are_complete() {
    local patch line bad=0
    for patch in "$root"/patches/*.patch; do
        for line in 'Subject: \[PATCH\] ' 'For the user: ' 'Upstream: '; do
            grep -q "^$line" "$patch" || { echo "$patch has no line '$line'"; bad=1; }
        done
    done
    return $bad
}

refuses_twice() { ! apply "$1"; }

refuses_changed() {
    cp -r "$1" "$work/changed"
    sed -i 's/read_cfg(filename)/read_cfg( filename )/' "$work/changed/src/parser.c"
    cp -r "$work/changed" "$work/before"
    ! apply "$work/changed" && diff -r "$work/changed" "$work/before"
}

cat > "$work/blas.mk" <<'END'
COMMON+= -DKURE_BLAS $(if $(wildcard $(KURE_SYSROOT)/usr/include),-I$(KURE_SYSROOT)/usr/include)
LDFLAGS+= $(if $(KURE_SYSROOT),$(addprefix -L,$(dir $(firstword $(shell find $(KURE_SYSROOT) -name 'libopenblas.so' 2>/dev/null))))) -lopenblas
END
blas=(KURE_MK="$work/blas.mk" KURE_SYSROOT="$(if [ -d "$root/build/sysroot" ]; then echo "$root/build/sysroot"; fi)")

check "0001-seam adds at most 30 lines and removes none" seam_is_small
check "every patch says why, what changes for the user, and Upstream" headers_are_complete

for flavour in debian upstream; do
    tree=$work/$flavour
    check "$flavour: get" env UPSTREAM="$([ $flavour = debian ] || echo 1)" "$root/scripts/get_darknet.sh" "$tree"
    cp -r "$tree" "$tree.original"

    check "$flavour: apply the seam alone" apply --fixes 0 --blas 0 "$tree"
    check "$flavour: build, seam alone, plugin off" build "$tree"
    check "$flavour: take it out" apply -R "$tree"
    check "$flavour: apply seam and BLAS" apply --fixes 0 --blas 1 "$tree"
    check "$flavour: build, seam and BLAS, plugin off" build "$tree" "${blas[@]}"
    check "$flavour: take them out" apply -R "$tree"
    check "$flavour: apply all" apply "$tree"
    check "$flavour: refuse to apply twice" refuses_twice "$tree"
    check "$flavour: build, all, plugin off" build "$tree"
    check "$flavour: build, all, plugin off, BLAS" build "$tree" "${blas[@]}"
    check "$flavour: take all out" apply -R "$tree"
    check "$flavour: the tree is as it was" diff -r "$tree" "$tree.original"
    check "$flavour: refuse a changed tree and leave it alone" refuses_changed "$tree"
    rm -rf "$work/changed" "$work/before"

    if [ -f "$root/darknet-kure/host.mk" ] && [ -f "$root/Makefile" ]; then
        check "$flavour: build, plugin on" env -u MAKEFLAGS -u MAKELEVEL make -C "$root" --no-print-directory -j"$jobs" \
            BUILD="$work/on-$flavour" DARKNET="$tree" "$work/on-$flavour/darknet"
    fi
done

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
