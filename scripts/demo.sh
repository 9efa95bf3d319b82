#!/usr/bin/env bash
# demo.sh [--seed N] [--out DIR] [--images N]: the whole story on Fashion-MNIST.
#
# Trains a float baseline, fine-tunes it with KURE and, as a fair control, without
# (same updates, rate and seed), evaluates the three over bits and step size, writes
# DIR/report.html, and exports the KURE model as integers: DIR/kure.edge with 8-bit
# weights, DIR/kure-4bit.edge with 4-bit weights. Called by `make demo` (DIR: build/demo)
# and, per seed, by paper.py.
#
# May be interrupted and run again: a step is skipped when its output is there and was
# made from the same inputs (DIR/stamps holds their hash); a training goes on from its
# last checkpoint.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/demo_steps.sh

build=${BUILD:-build}
seed=1
out=$build/demo
images=3000 # 0: all 10000 test images
python=${PYTHON:-/usr/bin/python3}
darknet=$build/darknet
pictures=$build/fashion-mnist

bits=8,6,5,4,3,2
ratios=0.8,0.9,1.0,1.1,1.2,1.4
low_bits=4,3,2
wide_ratios=0.5,0.6,0.7,0.8,1.0,1.2,1.4,1.7,2.0
narrow_mse=weight_truncation=mse,weight_grid=narrow
declare -A settings=(
    [raw]="$narrow_mse,weight_granularity=tensor,batchnorm=train"
    [channel]="$narrow_mse,weight_granularity=channel,batchnorm=fold"
)
models="baseline control kure"

options "$@"

trainer=classifier
data=$out/fashion.data
images_mark=$pictures/complete.json
begin_run

# ---- steps -----------------------------------------------------------------

prepare_images() {
    local result
    stage "Preparing the images"
    result=$("$python" scripts/prepare_fashion_mnist.py --out "$pictures") || exit
    echo "       $result"
    sed "s#^backup=.*#backup=$out/backup#" "$pictures/fashion.data" >"$data"
}

evaluate() {
    local name=$1 setting
    local network=("$out/$name.cfg" "$out/$name.weights")
    stage "Evaluating $name at $bits bits and step ratios 0.5 to 2, per tensor and per channel"
    table "stats-$name" "$out/$name.stats.csv" "$darknet" kure stats "${network[@]}" --weight-truncation mse --weight-granularity tensor
    for setting in raw channel; do
        sweep "bits-$name-$setting" "$out/points/$name-$setting-bits.csv" "$darknet" kure sweep "${network[@]}" "$data" \
            --quantize "${settings[$setting]}" --weight-bits $bits --weight-step-ratio $ratios "${count[@]}"
        sweep "steps-$name-$setting" "$out/points/$name-$setting-steps.csv" "$darknet" kure sweep "${network[@]}" "$data" \
            --quantize "${settings[$setting]}" --weight-bits $low_bits --weight-step-ratio $wide_ratios "${count[@]}"
    done
}

# All points in one table, the model in its first column.
write_sweep() {
    local name setting part
    {
        sed -n '1s/^/model,/p' "$out/points/baseline-raw-bits.csv"
        for name in $models; do
            for setting in raw channel; do
                for part in bits steps; do sed "1d; s/^/$name,/" "$out/points/$name-$setting-$part.csv"; done
            done
        done
    } >"$out/sweep.csv.tmp"
    mv "$out/sweep.csv.tmp" "$out/sweep.csv"
}

write_report() {
    local name files=("$out/sweep.csv")
    for name in $models; do
        files+=("$out/$name.log.csv" "$out/$name.stats.csv" "$name=$out/$name.cfg,$out/$name.weights")
    done
    echo
    "$python" scripts/report.py "${files[@]}" -o "$out/report.html"
}

# bundle FOLDER BITS: the KURE model as integers for onnxruntime, with weights of that many bits; its row of edge.csv
bundle() {
    local folder=$out/$1 name=kure-${2}bit key file
    local network=("$out/$name.cfg" "$out/$name.weights")
    { cat "$out/kure.cfg"; printf '\n[quantization]\nprofile=onnx\nweight_bits=%d\n' "$2"; } >"${network[0]}"
    cp "$out/kure.weights" "${network[1]}"
    key=$(key_of "$darknet" "${network[@]}" "$images_mark")
    if ! is_done "$1" "$key" "$folder"; then
        rm -f "${network[1]}.kure"
        run progress "$out/logs/$1.out" "$darknet" kure calibrate "${network[@]}" "$data"
        run progress "$out/logs/$1.out" "$darknet" kure export "${network[@]}" --data "$data" --force -o "$folder"
        run progress "$out/logs/$1.out" "$darknet" kure verify "$folder"
        mark_done "$1" "$key"
    fi
    file=$out/points/$name
    table "$name-simulated" "$file-simulated.csv" "$darknet" kure eval "${network[@]}" "$data" --simulate "${count[@]}"
    table "$name-integer" "$file-integer.csv" "$darknet" kure eval "${network[@]}" "$data" --integer "${count[@]}"
    echo "$1,$(cell "$file-integer.csv" weight_bits),$(cell "$file-integer.csv" activation_bits),$(cell "$out/points/kure-float.csv" top1),$(
        cell "$file-simulated.csv" top1),$(cell "$file-integer.csv" top1),$(stat -c %s "$out/kure.weights"),$(stat -c %s "$folder/model.kure")" >>"$out/edge.csv.tmp"
}

# The KURE model as float, as simulated and as integers; bytes of kure.weights and of model.kure.
export_kure() {
    stage "Exporting the KURE model as integers, weights of 8 and of 4 bits"
    table kure-float "$out/points/kure-float.csv" "$darknet" kure eval "$out/kure.cfg" "$out/kure.weights" "$data" "${count[@]}"
    echo "bundle,weight_bits,activation_bits,float_top1,simulated_top1,integer_top1,weights_bytes,model_bytes" >"$out/edge.csv.tmp"
    bundle kure.edge 8
    bundle kure-4bit.edge 4
    mv "$out/edge.csv.tmp" "$out/edge.csv"
    echo
    tr , ' ' <"$out/edge.csv" | awk '{ printf "%-14s", $1; for (i = 2; i <= NF; ++i) printf "  %15s", $i; print "" }'
}

# ---- the story -------------------------------------------------------------

prepare_images
write_cfg baseline cfg/fashion.cfg
write_cfg control cfg/fashion-control.cfg
write_cfg kure cfg/fashion-kure.cfg
train baseline "Training the float baseline"
train control "Fine-tuning without KURE (control)" "$out/baseline.weights"
train kure "Fine-tuning with KURE" "$out/baseline.weights"
for model in $models; do evaluate "$model"; done
write_sweep
stage "Writing the report"
write_report
export_kure
echo "Done in $(elapsed). Weights, logs and tables are in $out/"
