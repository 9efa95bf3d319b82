#!/usr/bin/env bash
# demo_detector.sh [--seed N] [--out DIR] [--images N]: the story of a detector.
#
# Makes a detection set of Fashion-MNIST (build/fashion-boxes), trains a float baseline of
# two heads, fine-tunes it with KURE and, as a fair control, without (same updates, rate and
# seed), evaluates the three in average precision, per tensor, per channel and with steps
# that are powers of two, and writes DIR/table.csv and DIR/report.html. Called by
# `make demo-detector` (DIR: build/demo-detector) and, per seed, by paper_detector.py.
#
# May be interrupted and run again: a step is skipped when its output is there and was
# made from the same inputs (DIR/stamps holds their hash); a training goes on from its
# last checkpoint.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/demo_steps.sh

build=${BUILD:-build}
seed=1
out=$build/demo-detector
images=0 # all of them
python=${PYTHON:-/usr/bin/python3}
darknet=$build/darknet
set=$build/fashion-boxes
scene=(--canvas 104 --edges 36 72 --pieces 3 --groups --train 3000 --valid 800)

bits=8,6,5,4,3,2
narrow_mse=weight_truncation=mse,weight_grid=narrow
declare -A settings=(
    [tensor]="$narrow_mse,weight_granularity=tensor,batchnorm=fold"
    [channel]="$narrow_mse,weight_granularity=channel,batchnorm=fold"
    [pow2]="$narrow_mse,weight_granularity=tensor,batchnorm=fold,step=power_of_two"
)
models="baseline control kure"

options "$@"

trainer=detector
data=$out/fashion-boxes.data
images_mark=$set/complete
begin_run

# ---- steps -----------------------------------------------------------------

prepare_images() {
    local key
    key=$(key_of scripts/make_detection_set.py "${scene[@]}")
    stage "Making the images"
    if [ "$(cat "$images_mark" 2>/dev/null)" != "$key" ]; then
        rm -rf "$set"
        run progress "$out/logs/images.out" "$python" scripts/make_detection_set.py --out "$set" "${scene[@]}"
        echo "$key" >"$images_mark"
    fi
    sed "s#^backup=.*#backup=$out/backup#" "$set/$(basename "$set").data" >"$data"
}

# 8-bit activations beside weights of 8 to 2 bits; their ranges are those of 128 images to train with
evaluate() {
    local name=$1 setting
    local network=("$out/$name.cfg" "$out/$name.weights")
    stage "Evaluating $name in average precision at $bits bits, per tensor, per channel and with powers of two"
    table "stats-$name" "$out/$name.stats.csv" "$darknet" kure stats "${network[@]}" --weight-truncation mse --weight-granularity tensor
    for setting in tensor channel pow2; do
        sweep "$name-$setting" "$out/points/$name-$setting.csv" "$darknet" kure sweep "${network[@]}" "$data" \
            --quantize "${settings[$setting]}" --weight-bits $bits --activation-bits 8 "${count[@]}"
    done
}

write_report() {
    local name setting files=()
    for name in $models; do
        for setting in tensor channel pow2; do files+=("$name=$out/points/$name-$setting.csv"); done
        files+=("$out/$name.log.csv" "$out/$name.stats.csv" "$name=$out/$name.cfg,$out/$name.weights")
    done
    echo
    "$python" scripts/report.py "${files[@]}" -o "$out/report.html"
}

# ---- the story -------------------------------------------------------------

prepare_images
write_cfg baseline cfg/fashion-boxes.cfg
write_cfg control cfg/fashion-boxes-control.cfg
write_cfg kure cfg/fashion-boxes-kure.cfg
train baseline "Training the float baseline"
train control "Fine-tuning without KURE (control)" "$out/baseline.weights"
train kure "Fine-tuning with KURE" "$out/baseline.weights"
for model in $models; do evaluate "$model"; done
stage "Writing the report"
write_report
echo "Done in $(elapsed). Weights, logs and tables are in $out/"
