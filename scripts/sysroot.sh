# sysroot.sh: to be sourced at the repository's root by what runs programs of packages that
# setup.sh has unpacked into build/sysroot for want of root. Without that folder: nothing.
if [ -d build/sysroot ]; then
    _sysroot=$PWD/build/sysroot
    _libraries=$(find "$_sysroot/usr/lib" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
    export LD_LIBRARY_PATH="$_libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    export PYTHONPATH="$_sysroot/usr/lib/python3/dist-packages${PYTHONPATH:+:$PYTHONPATH}"
    if [ -d "$_sysroot/usr/share/matplotlib" ]; then # Debian's matplotlib looks for its data in /usr and /etc
        ln -sfn ../../../../share/matplotlib/mpl-data "$_sysroot/usr/lib/python3/dist-packages/matplotlib/mpl-data"
        export MATPLOTLIBRC="$_sysroot/etc/matplotlibrc"
    fi
fi
