#!/usr/bin/env bash
# setup.sh [--check] GROUP...: installs the Debian packages of the groups that are missing;
# with --check only says what is missing. As root (or with passwordless sudo) by apt-get;
# otherwise the packages are unpacked into build/sysroot, which the build then uses.
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A packages=(
    [build]="gcc g++ make patch xz-utils libjansson-dev libxxhash-dev libnlopt-dev libssl-dev zlib1g-dev libprotobuf-c-dev protobuf-c-compiler libonnx-dev"
    [blas]="libopenblas-dev"
    [demo]="dataset-fashion-mnist python3 python3-numpy python3-matplotlib python3-pil"
    [test]="libcmocka-dev python3-pytest python3-pytest-xdist python3-xxhash python3-venv iverilog"
    [threads]="clang libomp-dev libclang-rt-dev"
    [fuzz]="clang libclang-rt-dev afl++"
    [browser]="chromium-headless-shell" # a smaller download than chromium, without its desktop
    [bench]="python3-torch python3-scipy"
)

check=0
if [ "${1:-}" = --check ]; then check=1; shift; fi

installed() {
    dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed || [ -e "build/sysroot/.installed/$1" ]
}

missing=()
for group in "$@"; do
    for package in ${packages[$group]?"setup.sh: no group '$group'"}; do
        installed "$package" || missing+=("$package")
    done
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ $check = 1 ]; then
    echo "Missing Debian packages: ${missing[*]}. Run 'make setup'$([[ " ${missing[*]} " == *" libopenblas-dev "* ]] && echo ", or build with BLAS=0")." >&2
    exit 1
fi

if ! command -v apt-get >/dev/null; then
    echo "This is not a Debian system: install what matches ${missing[*]} by hand." >&2
    exit 1
fi

mkdir -p build
log=build/setup.log
as_root=()
if [ "$(id -u)" != 0 ]; then as_root=(sudo -n); fi
if [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then
    echo "Installing ${missing[*]} ..."
    export DEBIAN_FRONTEND=noninteractive
    install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}")
    if ! "${install[@]}" >"$log" 2>&1; then
        { "${as_root[@]}" apt-get update && "${install[@]}"; } >"$log" 2>&1 || {
            tail -n 5 "$log" >&2
            echo "apt-get could not install ${missing[*]}: see $log." >&2
            exit 1
        }
    fi
    exit 0
fi

programs=$(printf '%s\n' "${missing[@]}" | grep -xE 'gcc|g\+\+|clang|make|patch|xz-utils|python3' | paste -sd' ') || true
if [ -n "$programs" ]; then
    echo "Not root, and these programs cannot be unpacked into build/: $programs. Ask root for 'apt-get install $programs'." >&2
    exit 1
fi

echo "Not root: unpacking ${missing[*]} into build/sysroot ..."
mkdir -p build/sysroot/.installed build/cache/deb
closure=$(apt-get -s install --no-install-recommends "${missing[@]}" 2>"$log" | sed -n 's/^Inst \([^ ]*\) .*/\1/p') || true
if [ -z "$closure" ]; then
    cat "$log" >&2
    echo "apt-get knows no way to get ${missing[*]}: run 'apt-get update' as root once." >&2
    exit 1
fi
# shellcheck disable=SC2086
(cd build/cache/deb && apt-get download $closure) >>"$log" 2>&1 || {
    tail -n 5 "$log" >&2
    echo "apt-get could not download the packages: see $log." >&2
    exit 1
}
for deb in build/cache/deb/*.deb; do dpkg -x "$deb" build/sysroot; done
# a -dev package's link, where the library itself is installed on the system
find build/sysroot/usr/lib -xtype l -name '*.so' | while read -r link; do
    installed="${link#build/sysroot}"
    installed=${installed%/*}/$(readlink "$link")
    [ ! -e "$installed" ] || ln -sfn "$installed" "$link"
done
for package in "${missing[@]}"; do : >"build/sysroot/.installed/$package"; done
