"""log= and the files that are there: nothing of the user's is displaced, no finished run's rows are lost."""
import pytest

import networks
import programs

pytestmark = pytest.mark.sanitize

HEADER = "update,loss,kurtosis_loss,rate,capped,kurtosis_1,kurtosis_3,kurtosis_5,kurtosis_7"


@pytest.fixture
def train(build, pictures, tmp_path):
    """train(updates, arguments): a run that logs; keys of [kurtosis] by name"""
    def run(updates, *arguments, **keys):
        cfg = networks.classifier({"max_batches": updates, "seed": 1}, {"log": "log.csv", **keys})
        (tmp_path / "net.cfg").write_text(cfg)
        return build.darknet(tmp_path, "classifier", "train", pictures / "classes.data", "net.cfg", *arguments)
    return run


def updates_of(path):
    header, *rows = path.read_text().splitlines()
    assert header == HEADER
    return [int(row.split(",")[0]) for row in rows]


def test_log_of_other_columns_is_kept_aside(train, tmp_path):
    (tmp_path / "log.csv").write_text("update,loss,something\n1,2,3\n")
    programs.succeed(train(3))
    assert (tmp_path / "log.csv.old").read_text() == "update,loss,something\n1,2,3\n"
    assert updates_of(tmp_path / "log.csv") == [1, 2, 3]


def test_a_new_run_keeps_the_last_one_aside(train, tmp_path):
    """From nothing and by -clear; a resumed run writes on and needs no second file."""
    programs.succeed(train(3))
    programs.succeed(train(5, "net.weights"))
    assert not (tmp_path / "log.csv.old").exists() and updates_of(tmp_path / "log.csv") == [1, 2, 3, 4, 5]
    first = (tmp_path / "log.csv").read_bytes()
    programs.succeed(train(2, "net.weights", "-clear"))
    assert (tmp_path / "log.csv.old").read_bytes() == first and updates_of(tmp_path / "log.csv") == [1, 2]


@pytest.mark.parametrize("name", ("net.cfg", "notes.txt"))
def test_a_file_that_is_no_log_is_refused(name, train, tmp_path):
    (tmp_path / "notes.txt").write_text("mine\n")
    said = programs.refuse(train(3, log=name), "net.cfg:", f"log={name}", "no log of ours")
    assert (tmp_path / "notes.txt").read_text() == "mine\n" and "[net]" in (tmp_path / "net.cfg").read_text(), said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.cfg", "notes.txt"]


@pytest.mark.parametrize("name", ("net.weights", "net.backup", "net.weights.kure"))
def test_the_name_of_a_checkpoint_is_refused(name, train, tmp_path):
    programs.refuse(train(3, log=name), "net.cfg:", f"log={name}", "checkpoint")
    assert [p.name for p in tmp_path.iterdir()] == ["net.cfg"]


def test_an_empty_file_and_a_link_are_taken(train, tmp_path):
    (tmp_path / "real.csv").write_text("")
    (tmp_path / "log.csv").symlink_to("real.csv")
    programs.succeed(train(2))
    assert (tmp_path / "log.csv").is_symlink() and updates_of(tmp_path / "real.csv") == [1, 2]
