#!/usr/bin/env bash
# clients.sh: the runtimes that exported models are proved on, and pycocotools, in a Python environment of
# their own: build/clients. Versions are pinned; a second call does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=build/clients
packages=(
    numpy==2.2.6
    onnx==1.19.1
    onnxruntime==1.23.2
    opencv-python-headless==4.11.0.86
    ai-edge-litert==1.4.0
    pycocotools==2.0.11
)
alone=(ncnn==1.0.20250916) # without what its model zoo needs: a second OpenCV in the place of the first

wanted=$(printf '%s\n' "${packages[@]}" "${alone[@]}")
if [ "$(cat "$folder/.installed" 2>/dev/null)" = "$wanted" ]; then exit 0; fi

mkdir -p build
log=build/clients.log
python=${PYTHON:-/usr/bin/python3}
rm -rf "$folder"
echo "Installing ${packages[*]} ${alone[*]} into $folder ..."
{ "$python" -m venv "$folder" && "$folder/bin/pip" install "${packages[@]}" && "$folder/bin/pip" install --no-deps "${alone[@]}"; } >"$log" 2>&1 || {
    rm -rf "$folder"
    tail -n 3 "$log" >&2
    echo "clients.sh: the runtimes could not be installed: see $log." >&2
    exit 1
}
echo "$wanted" >"$folder/.installed"
