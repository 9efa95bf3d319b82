"""A training that diverges stops at the first update whose loss is not finite, and saves no weights that are not."""
import pytest

import networks
import programs

pytestmark = pytest.mark.sanitize

WITHOUT_MAXPOOL = networks.conv(8, stride=2) + networks.conv(8) + networks.classifier_head(3)
LOUD = {"lambda": 1e6, "max_step": 0}
CASES = {
    "learning_rate": (networks.classifier({"seed": 1, "max_batches": 30, "learning_rate": "1e30"}), ("learning_rate (1e+30",)),
    "learning_rate without maxpool": (networks.classifier({"seed": 1, "max_batches": 30, "learning_rate": "1e30"}, None, WITHOUT_MAXPOOL), ()),
    "lambda": (networks.classifier({"seed": 1, "max_batches": 30}, {**LOUD, "log": "log.csv"}), ("max_step above 0",)),
    "lambda without maxpool": (networks.classifier({"seed": 1, "max_batches": 30}, LOUD, WITHOUT_MAXPOOL), ("max_step above 0",)),
    "detector": (networks.detector(LOUD, seed=3, max_batches=30), ("learning_rate",)),
}


@pytest.mark.parametrize("case", CASES)
def test_stops_at_once_and_keeps_what_is_there(case, build, pictures, boxes, tmp_path):
    cfg, words = CASES[case]
    (tmp_path / "net.cfg").write_text(cfg)
    for name in ("net.backup", "net.weights"):
        (tmp_path / name).write_bytes(b"the good one")
    before = programs.files_under(tmp_path)
    command = ("detector", "train", boxes / "boxes.data") if case == "detector" else ("classifier", "train", pictures / "classes.data")
    result = build.darknet(tmp_path, *command, "net.cfg")
    assert result.returncode == 1, programs.describe(result)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("net.cfg: update ") and "the loss is" in last and all(word in last for word in words), last
    assert {name: data for name, data in programs.files_under(tmp_path).items() if name != "log.csv"} == before


def test_weights_that_are_not_finite_are_not_saved(build, pictures, tmp_path):
    """The loss of the last update is that of the weights before it."""
    (tmp_path / "net.cfg").write_text(networks.classifier({"seed": 1, "max_batches": 1, "learning_rate": "1e39"}))
    (tmp_path / "net.weights").write_bytes(b"the good one")
    before = programs.files_under(tmp_path)
    programs.refuse(build.darknet(tmp_path, "classifier", "train", pictures / "classes.data", "net.cfg"),
                    "./net.weights: layer ", "is not finite", "not saved", "learning_rate")
    assert programs.files_under(tmp_path) == before
