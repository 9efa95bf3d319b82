"""kure export: every profile and kind of layer; the integer model against the simulation and against NumPy."""
import numpy as np
import pytest

import exported
import networks
from exported import FUSED, PROFILES
from programs import succeed

pytestmark = pytest.mark.sanitize


def joins(**net):
    """Groups, shortcuts of equal and unequal shapes, a route, pools, dropout, reorg, connected, linear, relu, relu6 and leaky"""
    return (networks.net(**{**dict(width=16, height=16, batch=3, subdivisions=1, learning_rate=0.01), **net})
            + networks.conv(8, activation="relu") + networks.conv(8, groups=2) + networks.section("shortcut", activation="linear", **{"from": -2})
            + networks.section("maxpool", size=2, stride=2) + networks.conv(12, activation="relu6")
            + networks.section("shortcut", activation="relu", alpha=1, beta=1, **{"from": -2})
            + networks.section("route", layers="-1,-2") + networks.section("maxpool", size=3, stride=1)
            + networks.section("reorg", stride=2) + networks.conv(6, size=1, batch_normalize=0, activation="linear")
            + networks.section("dropout", probability=".3") + networks.section("connected", output=16, batch_normalize=1, activation="leaky")
            + networks.section("connected", output=5, activation="linear") + networks.section("softmax", groups=1))


def pooled(**net):
    """A route of one, leaky with a slope of its own, avgpool at the end"""
    return (networks.net(**{**dict(width=15, height=13, batch=3, subdivisions=1, learning_rate=0.01), **net})
            + networks.conv(6) + networks.section("route", layers="-1") + networks.conv(9, stride=2, activation="leaky", slope=0.125)
            + networks.section("upsample", stride=2) + networks.classifier_head(4))


NETS = {"joins": joins, "pooled": pooled, "detector": networks.detector}

# How far the simulation may be: float32 adds in another order, and what convolutions, sums and requantizations of TensorFlow
# Lite round twice at a tie is simulated once. One code beside it in a layer becomes several in the next. Share of the codes
# of the layer behind the input; mean distance in codes of any layer.
NEAR = {"onnx": (0.0005, 0.01), "tflite": (0.004, 0.15), "tflite-single": (0.0005, 0.02), "cmsis": (0.004, 0.15), "ncnn": (0.0005, 0.01),
        "tensorrt": (0.0005, 0.01), "pow2": (0.0005, 0.01)}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("net", NETS)
def test_every_layer(net, profile, build, tmp_path):
    text = exported.with_quantization(NETS[net](), profile=profile)
    exported.train(build, tmp_path, text)
    bundle = exported.export(build, tmp_path, "--golden", 2)
    assert not [row for row in bundle.compare() if row[2]], "NumPy gives other codes"
    succeed(build.darknet(tmp_path, "kure", "verify", "net.edge"))
    found = exported.differences(build, tmp_path, text, bundle)
    first, mean = NEAR[profile]
    assert len(found) >= 5
    for i, (name, apart) in enumerate(found.items()):
        print(f"{net} {profile} {name}: {(apart > 0).sum()} of {apart.size} differ, by up to {apart.max()}, {apart.mean():.4f} in the mean")
        assert apart.mean() <= mean + 2 / apart.size, name
        assert i or ((apart > 0).mean() <= first and apart.max() <= 2), name
