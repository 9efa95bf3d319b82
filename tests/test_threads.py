"""Training with threads: the same bits for any number of them, and, on a build with ThreadSanitizer, no data race.

That build needs clang: gcc's OpenMP does not tell ThreadSanitizer (nor valgrind's drd) where its threads wait for each
other, so that every parallel loop is reported; LLVM's does (Archer)."""
import pytest

import networks
import programs
import programs

pytestmark = pytest.mark.threads

# outputs of 4 x 32 x 32 x 32 and weights of 64 x 64 x 3 x 3 and more, so that loops over them run in threads
BODY = (networks.conv(32) + networks.section("maxpool", size=2, stride=2) + networks.conv(64, activation="relu")
        + networks.conv(128) + networks.conv(128) + networks.section("shortcut", activation="relu", **{"from": -2}) + networks.classifier_head(3))
RECTIFIED = BODY.replace("leaky", "relu").replace("activation=linear", "activation=relu", 1)
STE = dict(bits=4)
KINDS = {
    "kure": (BODY, None, {}),
    "ste": (BODY, STE, {}),
    "searched ranges": (BODY, dict(bits=4, weight_truncation="mse", activation_truncation="percentile", activation_truncation_value=99, every=2), None),
    "of tensors, stochastic": (BODY, dict(bits=4, rounding="stochastic", weight_granularity="tensor", weight_truncation="laplace"), None),
    "lsq": (BODY, dict(bits=4, method="lsq"), {}),
    "pact": (RECTIFIED, dict(bits=4, method="pact"), None),
    "dorefa": (RECTIFIED, dict(bits=4, method="dorefa"), None),
}


def cfg_of(kind):
    body, quantization, kurtosis = KINDS[kind]
    cfg = networks.classifier(dict(batch=4, subdivisions=1, width=32, height=32, seed=2, learning_rate=0.01), kurtosis, body)
    return cfg if quantization is None else cfg.replace("\n[", "\n" + networks.section("quantization", **quantization) + "[", 1)


@pytest.mark.parametrize("kind", KINDS)
def test_same_bits(kind, build, tmp_path):
    results = {}
    for threads in (1, 2, 3):
        environment = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        weights = build.train(tmp_path, cfg_of(kind), "out.weights", "-updates", 3, env=environment)
        results[threads] = weights, (tmp_path / "out.weights.kure").read_bytes()
    assert results[1] == results[2] == results[3]


def test_detector(build, tmp_path):
    """Two heads, upsample, route; sizes that change."""
    cfg = networks.detector({}, random=1, filters=16, seed=2).replace("\n[", "\n" + networks.section("quantization", **STE) + "[", 1)
    one = build.train(tmp_path, cfg, "one.weights", "-updates", 3, "-sizes", "64,128,96", env={"OMP_NUM_THREADS": "1"})
    assert build.train(tmp_path, cfg, "two.weights", "-updates", 3, "-sizes", "64,128,96", env={"OMP_NUM_THREADS": "2"}) == one




RACE = """
#include <stdio.h>
int main(void)
{
    static float x[100000];
    #pragma omp parallel for
    for (int i = 0; i < 100000; i++) x[WHERE] += 1;
    printf("%g", x[5]);
    return 0;
}
"""


def test_a_race_is_found(build, tmp_path):
    """On the build with ThreadSanitizer: it is one, and the compiler's OpenMP tells a race from a loop without."""
    symbols = programs.run(["nm", build.program("harness")], tmp_path).stdout
    if "__tsan_init" not in symbols:
        return  # an ordinary build: the tests above compare bits there
    assert "__kmpc_fork_call" in symbols, "built with another OpenMP than LLVM's"
    (tmp_path / "race.c").write_text(RACE)
    for where, races in (("i", False), ("i / 50000 * 0", True)):
        programs.succeed(programs.run(["clang", "-g", "-O1", "-fopenmp", "-fsanitize=thread", f"-DWHERE={where}", "race.c", "-o", "race"], tmp_path))
        result = programs.run(["./race"], tmp_path, env={"OMP_NUM_THREADS": "2"})
        assert (result.returncode != 0) == ("data race" in result.stderr) == races, programs.describe(result)
