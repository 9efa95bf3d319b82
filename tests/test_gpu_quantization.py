"""[quantization] in training on the GPU against the CPU; see test_gpu.py. That both are right, the tests of
test_quantization.py and test_learned.py say, which tests/run.sh runs on the GPU's path too."""
import numpy as np
import pytest

import networks
import programs
from test_gpu import NATIVE, ON_GPU, gpu  # noqa: F401 (a fixture)
from test_learned import sidecar

pytestmark = pytest.mark.gpu

KINDS = {
    "ste": {},
    "lsq": dict(method="lsq", weight_bits=4, activation_bits=4),
    "tqt": dict(method="lsq", step="power_of_two"),
    "tensor, clipped": dict(weight_granularity="tensor", weight_truncation="mse", every=2, weight_bits=3),
    "raw weights": dict(batchnorm="train", weight_step_ratio=0.7),
    "stochastic": dict(rounding="stochastic", bits=5),
    "minmax, later": dict(activation_truncation="minmax", start=2),
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("net", ("classifier", "detector"))
def test_training_equals_that_of_the_cpu(net, kind, gpu, tmp_path):  # noqa: F811
    """After one update scales that were made of the same weights have the CPU's bits. Four updates on, only sums of products
    in another order stand between the two: less than a thousandth of what [quantization] does to the weights."""
    float_cfg = (networks.classifier(dict(batch=8, subdivisions=2, learning_rate=0.05, seed=3)) if net == "classifier"
                 else networks.detector(learning_rate=0.002, seed=3))
    cfg = quantized(float_cfg, KINDS[kind])
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
    assert checked >= 10
    here, there, control = (trained(gpu, tmp_path, text, env, 5)[0] for text, env in ((cfg, {}), (cfg, ON_GPU), (float_cfg, {})))
    weights = [name for name in here if name.endswith(".weights")]
    far, effect = (max(off(x[name], here[name]) for name in weights) for x in (there, control))
    print(f"{net}, {kind}: {far:.1e} of {effect:.1e}")
    assert far < 1e-3 * effect


def test_kurtosis_too(gpu, tmp_path):  # noqa: F811
    cfg = quantized(networks.classifier(dict(batch=8, learning_rate=0.01), {"lambda": 5, "fold": 1}), {})
    (here, _), (there, _) = (trained(gpu, tmp_path, cfg, env, 3) for env in ({}, ON_GPU))
    assert max(off(there[name], here[name]) for name in here if name.endswith(".weights")) < 1e-5


REFUSED = {
    "method=pact": dict(method="pact", **{"activation_bits": 4}), "method=dorefa": dict(method="dorefa"),
    "batchnorm=freeze": dict(batchnorm="freeze", freeze_at=1), "sample=": dict(sample="weight_bits:3-8"),
    "activation_truncation=": dict(activation_truncation="mse"), "profile=": dict(profile="tflite"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_not_on_the_gpu_yet(what, gpu, tmp_path):  # noqa: F811
    relu = networks.conv(8, activation="relu") + networks.conv(8, activation="relu") + networks.classifier_head(3)
    (tmp_path / "net.cfg").write_text(quantized(networks.classifier(dict(batch=4), None, relu), REFUSED[what]))
    arguments = ("train", "net.cfg", "out.weights", "-updates", 1)
    programs.refuse(gpu.harness(tmp_path, *arguments, env=ON_GPU), what, "does not run on the GPU in this version: add -nogpu")
    programs.succeed(gpu.harness(tmp_path, *arguments))


@pytest.mark.skipif(NATIVE, reason="needs two GPUs")
def test_neither_several_gpus_nor_predictions(gpu, pictures, tmp_path):  # noqa: F811
    (tmp_path / "net.cfg").write_text(quantized(networks.classifier(dict(batch=4, max_batches=2)), {}))
    command = ("classifier", "train", pictures / "classes.data", "net.cfg")
    programs.refuse(gpu.darknet(tmp_path, *command, "-gpus", "0,1", env={"KURE_CUDA_DEVICES": "2"}), "[quantization] on several GPUs does not run on the GPU")
    programs.succeed(gpu.darknet(tmp_path, *command))
    programs.refuse(gpu.darknet(tmp_path, "classifier", "valid", pictures / "classes.data", "net.cfg", "net.weights"),
                    "a prediction with [quantization] does not run on the GPU in this version: add -nogpu")


@pytest.mark.skipif(NATIVE, reason="made to fail by cuda_on_cpu")
def test_errors(gpu, tmp_path):  # noqa: F811
    (tmp_path / "net.cfg").write_text(quantized(networks.classifier(dict(batch=4)), {}))
    for name, sentence in (("KURE_CUDA_FAIL_PINNED", "net.cfg: layer 0 [convolutional]: [quantization]: GPU 0 is out of memory:"),
                           ("KURE_CUDA_FAIL_DOWN", "net.cfg: layer 0 [convolutional]: update 0: [quantization]: GPU 0: kernel range: CUDA: unspecified launch failure")):
        programs.refuse(gpu.harness(tmp_path, "train", "net.cfg", "out.weights", "-updates", 1, env={**ON_GPU, name: "1"}), sentence)
