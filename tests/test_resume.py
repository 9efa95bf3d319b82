"""Repeatable training by the commands: 20 updates = 10 + save + new process + 10, byte for byte; -clear; seeds."""
import re

import pytest

import networks
import programs

LOG = {"log": "log.csv", "max_step": 0.003}
CLASSIFIER = dict(batch=8, subdivisions=2, width=16, height=16, seed=7, angle=7, hue=".1", saturation="1.5", exposure="1.5", aspect="1.2",
                  min_crop=16, max_crop=24)
DETECTOR = dict(batch=2, subdivisions=2, seed=7, saturation="1.5", exposure="1.5", hue=".1")


def classifier(updates, **keys):
    return networks.classifier({**CLASSIFIER, "max_batches": updates, **keys}, LOG)


def resizing_classifier(updates, **keys):
    """random=1 draws sizes from 128 to 448; layers that can be resized only."""
    body = networks.conv(2, stride=2) + networks.section("maxpool", size=4, stride=4) + networks.conv(4) + networks.classifier_head(3)
    return networks.classifier({**CLASSIFIER, "batch": 2, "max_batches": updates, "random": 1, **keys}, LOG, body)


def detector(updates, **keys):
    return networks.detector(LOG, **{**DETECTOR, "max_batches": updates, **keys})


def resizing_detector(updates, **keys):
    """The last 200 updates run at 608 x 608, whatever the cfg says."""
    return networks.detector(LOG, filters=1, random=1, **{**DETECTOR, "subdivisions": 1, "learning_rate": 1e-4, "max_batches": updates, **keys})


def no_kurtosis(updates, **keys):
    """[net] seed alone keeps a sidecar as well."""
    return networks.classifier({**CLASSIFIER, "max_batches": updates, **keys})


def dropout(updates, **keys):
    body = networks.conv(8) + networks.section("dropout", probability=".4") + networks.conv(8) + networks.classifier_head(3)
    return networks.classifier({**CLASSIFIER, "max_batches": updates, **keys}, LOG, body)


KINDS = {f.__name__: f for f in (classifier, resizing_classifier, detector, resizing_detector, no_kurtosis, dropout)}


class Trainer:
    """`darknet classifier train` or `detector train` of one kind of network."""

    def __init__(self, kind, build, pictures, boxes):
        self.text, self.build = KINDS[kind], build
        self.command = "detector" if "detector" in kind else "classifier"
        self.data = boxes / "boxes.data" if self.command == "detector" else pictures / "classes.data"
        self.result = "net_final.weights" if self.command == "detector" else "net.weights"

    def train(self, folder, updates, *arguments, threads=2, **keys):
        folder.mkdir(exist_ok=True)
        (folder / "net.cfg").write_text(self.text(updates, **keys))
        return programs.succeed(self.build.darknet(folder, self.command, "train", self.data, "net.cfg", *arguments,
                                                   env={"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}))

    def files(self, folder):
        names = [self.result, self.result + ".kure"] + (["log.csv"] if (folder / "log.csv").exists() else [])
        return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture
def trainer(request, build, pictures, boxes):
    return Trainer(request.param, build, pictures, boxes)


@pytest.mark.parametrize("trainer", KINDS, indirect=True)
def test_resume_equals_uninterrupted(trainer, tmp_path):
    """Also with another number of threads before and after the stop."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer.train(whole, 20, threads=2)
    trainer.train(parts, 10, threads=1)
    half = trainer.files(parts)
    trainer.train(parts, 20, trainer.result, threads=2)
    once, twice = trainer.files(whole), trainer.files(parts)
    assert once.keys() == twice.keys()
    for name in once:
        assert once[name] != half[name], f"{name} did not change in the second half"
        assert once[name] == twice[name], f"{name} differs after a stop"
    if "log.csv" in once:
        rows = once["log.csv"].decode().splitlines()
        assert [row.split(",")[0] for row in rows[1:]] == [str(u) for u in range(1, 21)]


@pytest.mark.parametrize("trainer", ("classifier", "detector"), indirect=True)
def test_momentum_matters(trainer, tmp_path):
    """Without its sidecar a resumed run differs: the comparison above can fail."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer.train(whole, 20)
    trainer.train(parts, 10)
    (parts / (trainer.result + ".kure")).unlink()
    trainer.train(parts, 20, trainer.result)
    assert trainer.files(whole)[trainer.result] != trainer.files(parts)[trainer.result]


@pytest.mark.parametrize("trainer", ("classifier",), indirect=True)
def test_clear_starts_anew(trainer, tmp_path):
    """-clear keeps the weights and drops momentum and update number: the same as weights that never had a sidecar."""
    with_sidecar, without = tmp_path / "with", tmp_path / "without"
    for folder in (with_sidecar, without):
        trainer.train(folder, 5)
        (folder / "log.csv").unlink()
    (without / (trainer.result + ".kure")).unlink()
    for folder in (with_sidecar, without):
        trainer.train(folder, 5, trainer.result, "-clear")
    assert trainer.files(with_sidecar) == trainer.files(without)
    rows = (with_sidecar / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("trainer", ("classifier", "detector", "dropout"), indirect=True)
def test_seed_decides(trainer, tmp_path):
    same = [trainer.train(tmp_path / name, 6) and trainer.files(tmp_path / name) for name in ("a", "b")]
    other = trainer.train(tmp_path / "c", 6, seed=8) and trainer.files(tmp_path / "c")
    assert same[0] == same[1]
    assert same[0][trainer.result] != other[trainer.result]


@pytest.mark.parametrize("trainer", ("classifier", "detector"), indirect=True)
def test_without_seed_one_is_picked_and_said(trainer, tmp_path):
    text = trainer.text(6)
    assert "seed=7\n" in text
    trainer.text = lambda updates, **keys: text.replace("seed=7\n", f"seed={keys['seed']}\n" if keys else "")
    said = trainer.train(tmp_path / "picked", 6).stdout
    seed = re.search(r"seed=(\d+)", said)
    assert seed, f"no seed was printed: {said[:500]}"
    trainer.train(tmp_path / "repeated", 6, seed=seed.group(1))
    assert (tmp_path / "picked" / trainer.result).read_bytes() == (tmp_path / "repeated" / trainer.result).read_bytes()


@pytest.mark.parametrize("trainer", ("classifier",), indirect=True)
def test_schedule_goes_on(trainer, tmp_path):
    """start and ramp count from the first update of the whole training."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    plain = trainer.text
    trainer.text = lambda updates, **keys: plain(updates, **keys).replace("[kurtosis]\n", "[kurtosis]\nstart=4\nramp=10\n")
    trainer.train(whole, 12)
    trainer.train(parts, 6)
    trainer.train(parts, 12, trainer.result)
    assert trainer.files(whole) == trainer.files(parts)


@pytest.mark.parametrize("change,words", (
    ({"target=": "target=2.0"}, "trained so far with target=1.8, unlike this cfg"),
    ({"batch=8": "batch=16"}, "updates there"),
))
@pytest.mark.parametrize("trainer", ("classifier",), indirect=True)
def test_another_plan_is_said_not_refused(change, words, trainer, tmp_path):
    trainer.train(tmp_path, 4)
    plain = trainer.text
    (old, new), = change.items()
    trainer.text = lambda updates, **keys: (plain(updates, **keys).replace(old, new) if old != "target="
                                            else plain(updates, **keys).replace("[kurtosis]\n", f"[kurtosis]\n{new}\n"))
    assert words in trainer.train(tmp_path, 8, trainer.result).stderr


PER_LAYER = {  # layer 3 of networks.classifier: what its section had before, has now, words
    "own target now": ("", "kurtosis_target=2.2\n", ("layer 3 [convolutional] trained so far with the target of [kurtosis]",)),
    "own target before": ("kurtosis_target=2.2\n", "kurtosis_target=2.5\n", ("layer 3 [convolutional] trained so far with kurtosis_target=2.2",)),
    "own lambda": ("kurtosis_lambda=0.5\n", "", ("layer 3 [convolutional] trained so far with the target of [kurtosis], lambda times 0.5",)),
    "left out now": ("", "kurtosis=0\n", ("layer 3 [convolutional] trained so far with the target of [kurtosis]",)),
    "left out before": ("kurtosis=0\n", "", ("layer 3 [convolutional] trained so far without kurtosis",)),
    "the same": ("kurtosis_target=2.2\n", "kurtosis_target=2.2\n", ()),
}


@pytest.mark.sanitize
@pytest.mark.parametrize("case", PER_LAYER)
@pytest.mark.parametrize("trainer", ("classifier",), indirect=True)
def test_changed_keys_of_a_layer_are_said(case, trainer, tmp_path):
    before, now, words = PER_LAYER[case]
    plain = trainer.text
    for keys, updates, weights in ((before, 2, ()), (now, 3, (trainer.result,))):
        trainer.text = lambda updates, **_: plain(updates).replace("[maxpool]\nsize=2\nstride=2\n\n[convolutional]\n",
                                                                   f"[maxpool]\nsize=2\nstride=2\n\n[convolutional]\n{keys}")
        (tmp_path / "log.csv").unlink(missing_ok=True)
        said = trainer.train(tmp_path, updates, *weights).stderr
    lines = [line for line in said.splitlines() if "unlike this cfg" in line]
    assert len(lines) == len(words) and all(word in line for word, line in zip(words, lines)), said
