"""[quantization] in training on the GPU against the CPU; see test_gpu.py. That both are right, the tests of
test_quantization.py and test_learned.py say, which tests/run.sh runs on the GPU's path too."""
import re

import numpy as np
import pytest

import networks
import programs
from test_gpu import NATIVE, ON_GPU, counted, counts, gpu  # noqa: F401 (a fixture)
from test_learned import sidecar

pytestmark = pytest.mark.gpu

RELU = networks.conv(8, activation="relu") + networks.conv(8, activation="relu", groups=2) + networks.classifier_head(3)
OWN = networks.conv(8, activation="relu6") + networks.conv(8, activation="leaky\nslope=0.3") + networks.conv(4, activation="relu6") + networks.classifier_head(3)
NETS = {
    "classifier": lambda: networks.classifier(dict(batch=8, subdivisions=2, learning_rate=0.05, seed=3)),
    "detector": lambda: networks.detector(learning_rate=0.002, seed=3),
    "relu": lambda: networks.classifier(dict(batch=8, subdivisions=2, learning_rate=0.05, seed=3), None, RELU),
    "own activations": lambda: networks.classifier(dict(batch=8, subdivisions=2, learning_rate=0.05, seed=3), None, OWN),
}
KINDS = {  # keys, networks
    "ste": ({}, ("classifier", "detector")),
    "lsq": (dict(method="lsq", weight_bits=4, activation_bits=4), ("classifier", "detector")),
    "tqt": (dict(method="lsq", step="power_of_two"), ("classifier",)),
    "tensor, clipped": (dict(weight_granularity="tensor", weight_truncation="mse", every=2, weight_bits=3), ("detector",)),
    "raw weights": (dict(batchnorm="train", weight_step_ratio=0.7), ("classifier",)),
    "stochastic": (dict(rounding="stochastic", bits=5), ("classifier",)),
    "minmax, later": (dict(activation_truncation="minmax", start=2), ("detector", "own activations")),
    "of values": (dict(activation_truncation="gauss", activation_symmetric=1, activation_bits=4), ("detector",)),
    # a clip that no output meets to the bit: at its edge the gradient is a matter of the last digit
    "pact": (dict(method="pact", activation_bits=4, activation_truncation="fixed", activation_truncation_value=0.7), ("relu",)),
    "dorefa": (dict(method="dorefa", bits=4), ("relu",)),
    "frozen": (dict(batchnorm="freeze", freeze_at=2), ("classifier",)),
    "frozen lsq": (dict(batchnorm="freeze", freeze_at=1, method="lsq", bits=4), ("detector",)),
    "drawn": (dict(sample="bits:4-8 rounding:half_even,stochastic activation_truncation:ema,minmax"), ("classifier",)),
    "drawn lsq": (dict(method="lsq", weight_bits=4, sample="weight_bits:3-5 activation_bits:4,8"), ("classifier",)),
    "own": (dict(bits=6, activation_bits=0), ("own activations",)),
}


def quantized(cfg, keys):
    return cfg.replace("\n[", "\n" + networks.section("quantization", **keys) + "[", 1)


def trained(build, folder, cfg, env, updates):
    """tensors and sidecar after so many updates"""
    (folder / "net.cfg").write_text(cfg)
    programs.succeed(build.harness(folder, "train", "net.cfg", "out.weights", "-updates", updates, env=env))
    programs.succeed(build.harness(folder, "show", "net.cfg", "dump", "-weights", "out.weights"))
    state = folder / "out.weights.kure"
    return networks.read_tensors(folder / "dump.0.loaded"), sidecar(state) if "[quantization]" in cfg else None


def off(a, b):
    return np.linalg.norm(a.astype(np.float64) - b) / max(np.linalg.norm(b.astype(np.float64)), 1e-30)


@pytest.mark.parametrize("kind,net", [(kind, net) for kind, (_, nets) in KINDS.items() for net in nets])
def test_training_equals_that_of_the_cpu(kind, net, gpu, tmp_path):  # noqa: F811
    """After one update scales that were made of the same weights have the CPU's bits. Four updates on, only sums of products
    in another order stand between the two: less than a thousandth of what [quantization] does to the weights."""
    float_cfg = NETS[net]()
    cfg = quantized(float_cfg, KINDS[kind][0])
    (_, here), (_, there) = (trained(gpu, tmp_path, cfg, env, 1) for env in ({}, ON_GPU))
    assert set(here) == set(there)
    checked = 0
    for name in here:
        if name.startswith("__") or "momentum" in name:
            continue
        if ".weight_scales." in name and "lsq" not in name and "tqt" not in name:
            assert np.array_equal(here[name], there[name]), name
        if ".weight_scales." in name or ".range_" in name:
            assert off(there[name], here[name]) < 1e-4, name
            checked += 1
    assert checked >= 4
    here, there, control = (trained(gpu, tmp_path, text, env, 5)[0] for text, env in ((cfg, {}), (cfg, ON_GPU), (float_cfg, {})))
    weights = [name for name in here if name.endswith(".weights")]
    far, effect = (max(off(x[name], here[name]) for name in weights) for x in (there, control))
    print(f"{net}, {kind}: {far:.1e} of {effect:.1e}")
    assert far < 1e-3 * effect


@pytest.mark.parametrize("method", ("ste", "lsq"))
def test_detector_resizes(method, gpu, tmp_path):  # noqa: F811
    """Tables and memory follow the size of the images; what an update has left for the next one is not lost."""
    (tmp_path / "net.cfg").write_text(quantized(networks.detector(learning_rate=0.002, seed=3), dict(method=method)))
    states = []
    for env in ({}, ON_GPU):
        programs.succeed(gpu.harness(tmp_path, "train", "net.cfg", "out.weights", "-updates", 6, "-sizes", "32,64,96", env=env))
        states.append(sidecar(tmp_path / "out.weights.kure"))
    here, there = states
    for name in here:
        if ".weight_scales." in name or ".range_" in name:
            assert off(there[name], here[name]) < 1e-2, name  # a code that differs moves a range by a step of eight bits
        if ".range_" in name:
            assert here[name][0] == there[name][0], "ranges that were combined"


def test_kurtosis_too(gpu, tmp_path):  # noqa: F811
    cfg = quantized(networks.classifier(dict(batch=8, learning_rate=0.01), {"lambda": 5, "fold": 1}), {})
    (here, _), (there, _) = (trained(gpu, tmp_path, cfg, env, 3) for env in ({}, ON_GPU))
    assert max(off(there[name], here[name]) for name in here if name.endswith(".weights")) < 1e-5


# ---- what an update costs -------------------------------------------------------------

@pytest.mark.skipif(NATIVE, reason="counted by cuda_on_cpu")
@pytest.mark.parametrize("kind,launches", (("ste", 3), ("lsq", 3), ("dorefa", 5), ("frozen", 4), ("drawn", 3)))
def test_launches_and_copies_of_an_update(kind, launches, gpu, tmp_path):  # noqa: F811
    """All ranges, gradients and batch norms in one copy down, all scales in one up, and nothing of that in the forward pass,
    however many layers and minibatches there are. All weights are looked at by one launch, their batch norm by another, and
    quantized by one; biases with a frozen batch norm are one more, and two are of dorefa, which the first and the last layer leave out."""
    def of_an_update(subdivisions):
        net = NETS[KINDS[kind][1][0]]().replace("batch=8\nsubdivisions=2", f"batch={4 * subdivisions}\nsubdivisions={subdivisions}")
        without, with_it = (counts(gpu, tmp_path, cfg, 5) - counts(gpu, tmp_path, cfg, 3) for cfg in (net, quantized(net, KINDS[kind][0])))
        return (with_it - without) / 2
    one, two = of_an_update(1), of_an_update(2)
    assert list(one[1:]) == list(two[1:]) == [1, 1, 1], "copies up and down, waits"
    assert (2 * one - two)[0] == launches, "of an update, less those of its minibatches"


# ---- predictions ------------------------------------------------------------------------

@pytest.mark.parametrize("keys,net", (({}, "detector"), (dict(method="lsq", bits=4), "classifier"), (dict(batchnorm="freeze", freeze_at=1), "classifier"),
                                      (dict(profile="tflite", bits=8), "classifier")))
def test_predictions_are_those_of_the_cpu(keys, net, gpu, tmp_path):  # noqa: F811
    """The same codes behind every layer, but for values on the edge between two."""
    cfg = quantized(NETS[net](), keys)
    trained(gpu, tmp_path, cfg, {}, 3)
    outputs, first = [], []
    for name, env in (("here", {}), ("there", ON_GPU)):
        programs.succeed(gpu.harness(tmp_path, "forward", "net.cfg", name, "-weights", "out.weights", env=env))
        tensors = networks.read_tensors(tmp_path / f"{name}.0.forward")
        first.append(tensors["layers.0.output"])
        outputs.append(np.concatenate([x for tensor, x in tensors.items() if tensor.endswith(".output")]))
    for (here, there), most in ((first, 1e-3), (outputs, 5e-2)):  # a code that differs shows behind every later layer
        assert np.mean(abs(here - there) > 1e-5 * (1 + abs(here))) < most and np.unique(there).size > 5


# ---- several GPUs -----------------------------------------------------------------------

TWO = {"KURE_CUDA_DEVICES": "2"}


@pytest.mark.skipif(NATIVE, reason="needs two GPUs")
@pytest.mark.parametrize("kind", ("ste", "frozen lsq", "pact", "drawn lsq"))
def test_two_gpus_average_what_they_learn(kind, gpu, tmp_path):  # noqa: F811
    """After an update that averages, both have the mean of the states that they would have had, codes of 0 whole."""
    (tmp_path / "net.cfg").write_text(quantized(NETS[KINDS[kind][1][0]](), KINDS[kind][0]))
    states = {}
    for interval in (100, 2):
        programs.succeed(gpu.harness(tmp_path, "gpus", "net.cfg", "out", "-updates", 2, "-interval", interval, env={**ON_GPU, **TWO}))
        states[interval] = [sidecar(tmp_path / f"out.{i}.kure") for i in range(2)]
    changed = 0
    for name, first in states[100][0].items():
        if ".weight_scales" not in name and ".range_" not in name:
            continue
        mean = (first.astype(np.float64) + states[100][1][name]) / 2
        start = 5 if ".range_" in name else 0
        mean[start + 1::4] = np.rint(mean[start + 1::4])
        for found in states[2]:
            assert np.array_equal(found[name], mean.astype(np.float32)), name
        changed += not np.array_equal(first, states[100][1][name])
    assert changed > 3, "the GPUs see different images"


@pytest.mark.skipif(NATIVE, reason="needs two GPUs")
def test_training_on_two_gpus(gpu, pictures, tmp_path):  # noqa: F811
    """One log, one file of weights and its sidecar, from which a training goes on."""
    cfg = quantized(networks.classifier(dict(batch=4, max_batches=12, seed=5), {"log": "log.csv"}), dict(method="lsq"))
    for batches in (12, 20):
        (tmp_path / "net.cfg").write_text(cfg.replace("max_batches=12", f"max_batches={batches}"))
        weights = ("net.weights",) if batches > 12 else ()
        programs.succeed(gpu.darknet(tmp_path, "classifier", "train", pictures / "classes.data", "net.cfg", *weights, "-gpus", "0,1", env=TWO))
    updates = [int(line.split(",")[0]) for line in (tmp_path / "log.csv").read_text().splitlines()[1:]]
    assert updates == sorted(set(updates)) and updates[-1] >= 20
    assert {path.name for path in tmp_path.glob("*.kure")} == {f"{path.name}.kure" for path in tmp_path.glob("*.weights")}


def test_commands(gpu, pictures, tmp_path):  # noqa: F811
    """valid, eval --simulate and eval of a point, on the GPU and without: the same shares of images."""
    (tmp_path / "net.cfg").write_text(quantized(networks.classifier(dict(batch=4, max_batches=3, seed=2)), {}))
    programs.succeed(gpu.darknet(tmp_path, "classifier", "train", pictures / "classes.data", "net.cfg"))
    said = {}
    for where in ((), ("-nogpu",)):
        valid = programs.succeed(gpu.darknet(tmp_path, "classifier", "valid", pictures / "classes.data", "net.cfg", "net.weights", *where))
        said[where] = [valid.stdout.splitlines()[-1]]
        for options in (("--simulate",), ("--weight-bits", "6", "--activation-bits", "6")):
            programs.succeed(gpu.darknet(tmp_path, *where, "kure", "eval", "net.cfg", "net.weights", pictures / "classes.data", *options, "--csv", "eval.csv"))
            said[where].append((tmp_path / "eval.csv").read_text().rsplit(",", 1)[0])
    assert said[()] == said[("-nogpu",)]


# ---- refusals ---------------------------------------------------------------------------

@pytest.mark.skipif(NATIVE, reason="made to fail by cuda_on_cpu")
def test_errors(gpu, tmp_path):  # noqa: F811
    (tmp_path / "net.cfg").write_text(quantized(networks.classifier(dict(batch=4)), {}))
    arguments = ("train", "net.cfg", "out.weights", "-updates")
    programs.succeed(gpu.harness(tmp_path, *arguments, 2, env=ON_GPU))
    saved = [(tmp_path / name).read_bytes() for name in ("out.weights", "out.weights.kure")]
    for name, sentence in (("KURE_CUDA_FAIL_PINNED", "net.cfg: layer 0 [convolutional]: [quantization]: GPU 0 is out of memory:"),
                           ("KURE_CUDA_FAIL_DOWN", "net.cfg: layer 0 [convolutional]: update 0: [quantization]: GPU 0: kernel range: CUDA: unspecified launch failure")):
        programs.refuse(gpu.harness(tmp_path, *arguments, 3, "-weights", "out.weights", env={**ON_GPU, name: "1"}), sentence)
        assert saved == [(tmp_path / name).read_bytes() for name in ("out.weights", "out.weights.kure")]


@pytest.mark.skipif(NATIVE, reason="made to fail by cuda_on_cpu")
def test_no_room_for_the_quantizers(gpu, tmp_path):  # noqa: F811
    """A GPU that has room for the float training alone."""
    cfg = networks.classifier(dict(batch=4))
    most = {**ON_GPU, "KURE_CUDA_MEMORY": str(counted(gpu, tmp_path, cfg, 1)[4])}
    programs.succeed(gpu.harness(tmp_path, "train", "net.cfg", "float.weights", env=most))
    (tmp_path / "net.cfg").write_text(quantized(cfg, {}))
    said = programs.refuse(gpu.harness(tmp_path, "train", "net.cfg", "quantized.weights", env=most), "GPU 0 is out of memory:", "try a larger subdivisions=")
    assert re.search(rf"\d+ bytes wanted, \d+ of {most['KURE_CUDA_MEMORY']} free", said)
    assert not (tmp_path / "quantized.weights").exists()
