"""`kure eval --equalize`: the same float network, whose channels have one range on both sides."""
import csv

import numpy as np
import pytest

import networks
import programs
from test_post_training import CLASSES, DATA, cfg_of, top1_images, trained  # noqa: F401 (a fixture)

pytestmark = pytest.mark.sanitize

PLAIN = (networks.conv(8) + networks.section("maxpool", size=2, stride=2) + networks.conv(12, groups=2, batch_normalize=0)
         + networks.conv(12, stride=2, activation="relu") + networks.conv(CLASSES, size=1, batch_normalize=0, activation="linear")
         + networks.section("avgpool") + networks.section("softmax", groups=1))
PAIRS = ((0, 2), (2, 3), (3, 4))
ROWS = {0: 8, 2: 12, 3: 12, 4: CLASSES}
GROUPS = {2: 2}


def fold(tensors, i):
    w = tensors[f"layers.{i}.weights"].reshape(ROWS[i], -1)
    s = tensors[f"layers.{i}.scales"] / np.sqrt(tensors[f"layers.{i}.rolling_variance"] + 1e-5) if f"layers.{i}.scales" in tensors else np.ones(ROWS[i])
    return w * s[:, None]


def columns(tensors, i, channels):
    """Folded weights of layer i as [channels][all that read the channel]"""
    w, groups = fold(tensors, i), GROUPS.get(i, 1)
    own = channels // groups
    parts = w.reshape(groups, ROWS[i] // groups, own, -1)
    return parts.transpose(0, 2, 1, 3).reshape(channels, -1)


def equalized(tensors):
    out = {name: x.astype(np.float64) for name, x in tensors.items()}
    for _ in range(200):
        for a, b in PAIRS:
            s = np.sqrt(abs(fold(out, a)).max(1) / abs(columns(out, b, ROWS[a])).max(1))
            if f"layers.{a}.scales" in out:
                out[f"layers.{a}.scales"] = out[f"layers.{a}.scales"] / s
            else:
                out[f"layers.{a}.weights"] = (out[f"layers.{a}.weights"].reshape(ROWS[a], -1) / s[:, None]).reshape(-1)
            out[f"layers.{a}.biases"] = out[f"layers.{a}.biases"] / s
            groups = GROUPS.get(b, 1)
            w = out[f"layers.{b}.weights"].reshape(groups, ROWS[b] // groups, ROWS[a] // groups, -1) * s.reshape(groups, 1, -1, 1)
            out[f"layers.{b}.weights"] = w.reshape(-1)
    return out


@pytest.fixture(scope="module")
def plain(build, trained):  # noqa: F811
    """plain.cfg without branches, and weights whose channels have very different ranges."""
    folder = trained[0]
    (folder / "plain.cfg").write_text(cfg_of(16, PLAIN))
    programs.succeed(build.darknet(folder, "classifier", "train", DATA, "plain.cfg"))
    tensors = build.tensors(folder, cfg_of(16, PLAIN), "-weights", "plain.weights")
    rng = np.random.default_rng(4)
    for i in (0, 3):
        factors = np.exp2(rng.uniform(-3, 3, ROWS[i])).astype(np.float32)
        tensors[f"layers.{i}.scales"] *= factors
        tensors[f"layers.{i}.biases"] *= factors
        nexts = {0: 2, 3: 4}[i]
        groups = GROUPS.get(nexts, 1)
        w = tensors[f"layers.{nexts}.weights"].reshape(groups, ROWS[nexts] // groups, ROWS[i] // groups, -1) / factors.reshape(groups, 1, -1, 1)
        tensors[f"layers.{nexts}.weights"] = w.reshape(-1).astype(np.float32)
    networks.write_weights(folder / "net.uneven", cfg_of(16, PLAIN), tensors)
    return folder, tensors


def run(build, folder, *arguments, weights="net.uneven", cfg="plain.cfg"):
    result = programs.succeed(build.darknet(folder, "kure", "eval", cfg, weights, DATA, "--csv", "out.csv", *arguments))
    with open(folder / "out.csv", newline="") as file:
        return list(csv.DictReader(file)), result


QUANTIZER = ("--quantize", "weight_granularity=tensor,first_bits=3,last_bits=3", "--weight-bits", "8,3")


def test_equals_numpy(build, plain):
    """Quantized one step a tensor: noise and images of the network that NumPy has equalized."""
    folder, tensors = plain
    rows, _ = run(build, folder, *QUANTIZER, "--equalize")
    networks.write_weights(folder / "numpy.weights", cfg_of(16, PLAIN), equalized(tensors))
    expected, _ = run(build, folder, *QUANTIZER, weights="numpy.weights")
    uneven, _ = run(build, folder, *QUANTIZER)
    for row, other, before in zip(rows, expected, uneven):
        assert float(row["weight_sqnr"]) == pytest.approx(float(other["weight_sqnr"]), abs=0.1) and row["equalized"] == "1"
        assert abs(top1_images(row) - top1_images(other)) <= 3
        assert float(row["weight_sqnr"]) != float(before["weight_sqnr"]) and before["equalized"] == "0"
    assert top1_images(rows[1]) > top1_images(uneven[1]), "that is what it is for"


def test_the_float_network_stays_the_same(build, plain):
    folder, _ = plain
    (row,), result = run(build, folder, "--equalize")
    assert row["top1"] == run(build, folder)[0][0]["top1"]
    assert "layer 4 [convolutional] is not equalized: no layer with weights reads it alone" in result.stderr


def test_branches_and_other_activations_are_left_out(build, trained, plain):  # noqa: F811
    folder = trained[0]
    (folder / "branches.cfg").write_text(cfg_of())
    _, result = run(build, folder, "--equalize", weights="net.weights", cfg="branches.cfg")
    assert "layer 2 [convolutional] is not equalized: its output goes to several layers" in result.stderr
    (folder / "other.cfg").write_text(cfg_of(16, PLAIN.replace("leaky", "logistic").replace("=relu\n", "=relu6\n")))
    result = build.darknet(folder, "kure", "eval", "other.cfg", "net.uneven", DATA, "--equalize")
    assert result.returncode == 1 and "layer 3 [convolutional] is not equalized: its activation is not homogeneous" in result.stderr
    assert result.stderr.rstrip().endswith("other.cfg: --equalize: no two layers can be equalized")
