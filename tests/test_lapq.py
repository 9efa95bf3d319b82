"""LAPQ: steps found together (`--lapq-images` of eval and sweep). The search by itself: tests/unit/test_lapq.c."""
import pytest

import networks
import programs
from test_post_training import BODY, CLASSES, DATA, IMAGES, cfg_of, evaluate, top1_images, trained  # noqa: F401 (a fixture)
from test_sweep import rows_of

pytestmark = pytest.mark.sanitize

LAPQ = ("--lapq-images", IMAGES)


@pytest.fixture(scope="module")
def folder(trained):  # noqa: F811
    return trained[0]


def without_time(rows):
    return [{**row, "seconds": None} for row in rows]


@pytest.mark.parametrize("weight_bits,activation_bits", (("3", "0"), ("2", "0"), ("0", "2"), ("3", "3")))
@pytest.mark.long
def test_lower_loss_than_the_least_squared_error(weight_bits, activation_bits, build, folder):
    """On the images that LAPQ has seen, which are those of the evaluation."""
    bits = ("--weight-bits", weight_bits, "--activation-bits", activation_bits)
    policies = [option for kind, b in (("weight", weight_bits), ("activation", activation_bits)) if b != "0" for option in (f"--{kind}-truncation", "mse")]
    plain, = evaluate(build, folder, *bits, *policies)
    row, = evaluate(build, folder, *bits, *LAPQ)
    assert float(row["cross_entropy"]) < 0.98 * float(plain["cross_entropy"])
    assert row["lapq_images"] == str(IMAGES) and plain["lapq_images"] == "0"
    assert {row["weight_truncation"], row["activation_truncation"]} <= {"lapq", ""}
    if row["weight_sqnr"]:
        assert float(row["weight_sqnr"]) <= float(plain["weight_sqnr"]) + 0.01, "the least squared error is that of mse"


@pytest.mark.long
def test_the_same_every_time_and_at_any_number_of_jobs(build, folder):
    """Also where a step ratio follows a point without one, whose steps serve it."""
    (folder / "lapq.cfg").write_text(cfg_of(48))
    keys = ("--weight-bits", "3", "--activation-bits", "3", "--step-ratio", "1,0.8,1.25", "--lapq-images", 64, "--seed", 5)
    rows = without_time(evaluate(build, folder, *keys, cfg="lapq.cfg"))
    assert len({row["top1"] for row in rows}) > 1
    for jobs in (1, 3):
        programs.succeed(build.darknet(folder, "kure", "sweep", "lapq.cfg", "net.weights", DATA, "--csv", f"lapq{jobs}.csv", *keys, "--jobs", jobs))
        found = rows_of(folder / f"lapq{jobs}.csv")
        assert [{key: row[key] for key in rows[0]} for row in found[1:]] == rows
        assert found[0]["lapq_images"] == "64" and found[0]["weight_truncation"] == ""
    other = evaluate(build, folder, *keys[:-1], 6, cfg="lapq.cfg")
    assert without_time(other) != rows, "other images"


def test_keys_of_a_layer_stand(build, folder):
    """A layer without quantizers is not moved, and one with a step ratio of its own keeps it as a factor."""
    body = BODY.replace("filters=12\n", "filters=12\nquantize=0\n")
    (folder / "own.cfg").write_text(cfg_of(body=body + networks.section("quantization", bits=4)))
    own, = evaluate(build, folder, "--weight-bits", "2", *LAPQ, cfg="own.cfg")
    plain, = evaluate(build, folder, "--weight-bits", "2", "--weight-truncation", "mse", cfg="own.cfg")
    assert abs(top1_images(own) - top1_images(plain)) <= 2, "only the first and the last layer are left, whose steps are not moved"
    ratio = BODY.replace("filters=12\n", "filters=12\nweight_step_ratio=4\n")
    (folder / "ratio.cfg").write_text(cfg_of(body=ratio + networks.section("quantization", bits=4)))
    far, = evaluate(build, folder, "--weight-bits", "3", *LAPQ, cfg="ratio.cfg")
    near, = evaluate(build, folder, "--weight-bits", "3", *LAPQ)
    assert float(far["weight_sqnr"]) < float(near["weight_sqnr"]) - 1


@pytest.mark.parametrize("keys,words", [
    (("--weight-bits", "3", "--weight-truncation", "mse"), ("weight_truncation", "leave")),
    (("--activation-bits", "4", "--activation-truncation", "percentile", "--activation-truncation-value", "99"), ("activation_truncation", "leave")),
    (("--weight-bits", "3", "--weight-step", "power_of_two"), ("power_of_two",)),
    (("--weight-bits", "9"), ("2 to 8",)), (("--weight-bits", "4", "--first-bits", "12"), ("2 to 8",)),
    ((), ("nothing is quantized",)), (("--simulate",), ("--simulate",)),
])
def test_what_does_not_go_with_it(keys, words, build, folder):
    programs.refuse(build.darknet(folder, "kure", "eval", "net.cfg", "net.weights", DATA, *keys, *LAPQ), *words, status=2)


def test_needs_a_softmax_and_labels(build, folder):
    (folder / "bare.cfg").write_text(cfg_of(body=BODY.replace("[softmax]\ngroups=1\n", "")))
    assert "softmax" not in (folder / "bare.cfg").read_text()
    result = build.darknet(folder, "kure", "eval", "bare.cfg", "net.weights", DATA, "--weight-bits", "3", *LAPQ)
    programs.refuse(result, "[softmax]", "[avgpool]")
    (folder / "unlabelled.list").write_text((folder / "train.list").read_text() + "nowhere.png\n")
    (folder / "unlabelled.data").write_text((folder / DATA).read_text().replace("train.list", "unlabelled.list"))
    result = build.darknet(folder, "kure", "eval", "net.cfg", "net.weights", "unlabelled.data", "--weight-bits", "3", "--lapq-images", IMAGES + 1)
    programs.refuse(result, "nowhere.png")
    assert CLASSES == 6
