"""`kure eval --save NAME`: a network refined after training as files, which simulation and integers take as it was evaluated."""
import csv

import numpy as np
import pytest

import networks
import programs
import read_bundle
from conftest import write_data_file
from test_post_training import BODY, CLASSES, SIDE, cfg_of

pytestmark = pytest.mark.sanitize

IMAGES, DATA = 2000, "shades.data"
FILES = ("saved.cfg", "saved.weights", "saved.weights.kure")
PLAIN = (networks.conv(8) + networks.section("maxpool", size=2, stride=2) + networks.conv(12, groups=2, batch_normalize=0)
         + networks.conv(12, stride=2, activation="relu") + networks.conv(CLASSES, size=1, batch_normalize=0, activation="linear")
         + networks.section("avgpool") + networks.section("softmax", groups=1))
EVERYTHING = ("--equalize", "--bn-images", 64, "--bias-images", 64, "--lapq-images", 64)


@pytest.fixture(scope="module")
def trained(build, tmp_path_factory):
    """2000 images, 192 of them to train on; plain.cfg has pairs that can be equalized, net.cfg a shortcut and a route.

    The classes lie apart: of images on their borders the rounding of integers moves one or two, refined or not."""
    from PIL import Image
    folder = tmp_path_factory.mktemp("save")
    rng = np.random.default_rng(18)
    paths = []
    for i in range(IMAGES):
        k = i % CLASSES
        colour = 128 + 90 * np.array([(k & 1) - .5, (k >> 1 & 1) - .5, (k >> 2 & 1) - .5]) + rng.normal(0, 8, 3)
        paths.append(str(folder / f"{i:04d}_a{k}.png"))
        Image.fromarray(np.clip(colour + rng.normal(0, 45, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)).save(paths[-1])
    (folder / "train.list").write_text("\n".join(paths[:192]) + "\n")
    (folder / "valid.list").write_text("\n".join(paths) + "\n")
    (folder / "labels.list").write_text("".join(f"_a{k}\n" for k in range(CLASSES)))
    write_data_file(folder / DATA, folder, classes=CLASSES, top=5)
    for name, body in (("net", BODY), ("plain", PLAIN)):
        (folder / f"{name}.cfg").write_text(cfg_of(16, body).replace("max_batches=40\n", "max_batches=300\n"))
        programs.succeed(build.darknet(folder, "classifier", "train", DATA, f"{name}.cfg"))
        (folder / f"{name}.weights.kure").unlink()
    return folder


def evaluate(build, folder, cfg, *arguments, weights=None):
    result = programs.succeed(build.darknet(folder, "kure", "eval", cfg, weights or cfg.replace(".cfg", ".weights"), DATA, "--csv", "out.csv", *arguments))
    with open(folder / "out.csv", newline="") as file:
        row, = csv.DictReader(file)
    row["said"] = result.stderr
    return row


def save(build, folder, cfg, *arguments, **options):
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    row = evaluate(build, folder, cfg, *arguments, "--save", "saved", **options)
    assert "wrote saved.cfg, saved.weights and saved.weights.kure" in row["said"] and all((folder / name).exists() for name in FILES)
    return row


@pytest.mark.parametrize("cfg,refinement", (
    ("net.cfg", ()), pytest.param("net.cfg", ("--lapq-images", 64), marks=pytest.mark.long), ("net.cfg", ("--bn-images", 64)), ("net.cfg", ("--bias-images", 64)),
    ("plain.cfg", ("--equalize",)), ("plain.cfg", EVERYTHING),
), ids=lambda x: "-".join(map(str, x)) if isinstance(x, tuple) else x)
def test_what_was_evaluated(cfg, refinement, build, trained):
    """The simulation has the same images right, the integers, whose profile is onnx, within 0.05 points: one image of 2000."""
    bits = ("--weight-bits", 4, "--activation-bits", 8)
    row = save(build, trained, cfg, *bits, *refinement)
    simulated = evaluate(build, trained, "saved.cfg", "--simulate")
    integer = evaluate(build, trained, "saved.cfg", "--integer")
    assert abs(float(simulated["top1"]) - float(row["top1"])) < 0.051, (simulated["top1"], row["top1"])
    assert abs(float(simulated["cross_entropy"]) - float(row["cross_entropy"])) <= 1e-4 * float(row["cross_entropy"])
    assert abs(float(integer["top1"]) - float(row["top1"])) < 0.051, (integer["top1"], row["top1"])
    assert abs(float(integer["cross_entropy"]) - float(row["cross_entropy"])) <= 1e-3 * max(1, float(row["cross_entropy"]))
    assert simulated["weight_bits"] == integer["weight_bits"] == "4"
    if refinement:
        plain = evaluate(build, trained, cfg, *bits)
        assert plain["cross_entropy"] != row["cross_entropy"], "the refinement does something"
    programs.succeed(build.darknet(trained, "kure", "export", "saved.cfg", "saved.weights", "-o", "saved.edge", "--force"))
    bundle = read_bundle.Bundle(trained / "saved.edge")
    assert not [row for row in bundle.compare() if row[2]]


def test_steps_of_layers(build, trained):
    """LAPQ's steps stand in the cfg as ratios of the layers; one that a layer had itself is a factor of it."""
    own = cfg_of(16, BODY.replace("filters=12\n", "filters=12\nweight_step_ratio=1.25\n# of this layer\n")) + networks.section("quantization", bits=2)
    (trained / "own.cfg").write_text(own)
    row = save(build, trained, "own.cfg", "--weight-bits", 3, "--activation-bits", 8, "--lapq-images", 64, weights="net.weights")
    text = (trained / "saved.cfg").read_text()
    assert text.count("[quantization]") == 1 and text.count("# of this layer") == 2 and "\nweight_truncation=lp\n" in text
    ratios = [float(line.split("=")[1]) for line in text.splitlines() if line.startswith("weight_step_ratio=")]
    assert ratios[0] == 1 and len(ratios) == 3 and all(0.5 * 1.25 <= r <= 2 * 1.25 and r != 1.25 for r in ratios[1:])
    assert text.count("activation_step_ratio=") > 2 and float(evaluate(build, trained, "saved.cfg", "--simulate")["top1"]) == float(row["top1"])
    assert (trained / "own.cfg").read_text() == own
    plan = programs.succeed(build.darknet(trained, "kure", "plan", "saved.cfg"))
    assert "lp" in plan.stdout


def test_it_trains_on(build, trained):
    save(build, trained, "plain.cfg", "--weight-bits", 4, "--activation-bits", 8, "--equalize")
    text = (trained / "saved.cfg").read_text().replace("max_batches=300\n", "max_batches=302\n")
    (trained / "saved.cfg").write_text(text)
    programs.succeed(build.darknet(trained, "classifier", "train", DATA, "saved.cfg", "saved.weights"))


def test_the_network_is_left_alone(build, trained):
    before = {name: (trained / name).read_bytes() for name in ("net.cfg", "net.weights", DATA)}
    there = set(trained.iterdir()) | {trained / name for name in FILES}
    save(build, trained, "net.cfg", "--bits", 8, "--bn-images", 64)
    assert {name: (trained / name).read_bytes() for name in before} == before
    assert set(trained.iterdir()) | {trained / "out.csv"} == there | {trained / "out.csv"}


@pytest.mark.parametrize("options,words", (
    (("--save", "x"), ("--save x", "--bits")), (("--weight-bits", 4, "--save", "x"), ("--save x", "--activation-bits")),
    (("--bits", "8,4", "--save", "x"), ("2 networks",)), (("--bits", 8, "--save", "x.cfg"), ("--save x ", "x.weights")),
    (("--bits", 8, "--save", "x.weights"), ("--save x ", "x.cfg")), (("--bits", 8, "--save", "net"), ("net.cfg", "overwrite")),
    (("--bits", 8, "--save", ""), ("must be a name",)), (("--bits", 8, "--save", "./"), ("must be a name",)),
    (("--simulate", "--save", "x"), ("--simulate",)), (("--integer", "--save", "x"), ("--integer",)),
    (("--bits", 8, "--weight-grid", "midrise", "--save", "x"), ("midrise",)), (("--integer", "--bn-images", 64), ("--save NAME",)),
    (("--bits", 8, "--save", "x", "--csv", "x.cfg"), ("x.cfg", "same file")),
))
def test_wrong_command_lines(options, words, build, trained):
    there = set(trained.iterdir())
    programs.refuse(build.darknet(trained, "kure", "eval", "net.cfg", "net.weights", DATA, *options), *words, status=2)
    assert set(trained.iterdir()) == there


def test_no_place_to_write(build, trained):
    programs.refuse(build.darknet(trained, "kure", "eval", "net.cfg", "net.weights", DATA, "--bits", 8, "--save", "missing/x"), "missing/x.cfg", "No such file")
