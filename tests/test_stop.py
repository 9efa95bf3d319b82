"""A training that is stopped: SIGINT and SIGTERM leave a checkpoint to go on from; SIGKILL at any instant leaves
weights and sidecar that load as a pair."""
import random
import signal
import subprocess
import time

import pytest

import networks
import programs

KEYS = dict(batch=4, width=16, height=16, seed=3)


def cfg_of(updates):
    return networks.classifier({**KEYS, "max_batches": updates}, {"log": "log.csv"})


def start(command, folder):
    return subprocess.Popen([str(word) for word in command], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            env=programs.ENVIRONMENT)


def wait_for_rows(process, log, rows):
    """Until the log has that many rows: it is flushed after each."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if log.exists() and log.read_text().count("\n") > rows:
            return
        assert process.poll() is None, f"ended by itself with status {process.returncode}: {process.stderr.read()[-2000:]}"
        time.sleep(0.005)
    process.kill()
    pytest.fail(f"no {rows} rows in {log} after 60 s")


@pytest.mark.parametrize("signal_number", (signal.SIGINT, signal.SIGTERM))
def test_signal_leaves_a_checkpoint(signal_number, build, pictures, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder, updates in ((whole, 60), (parts, 100000)):
        folder.mkdir()
        (folder / "net.cfg").write_text(cfg_of(updates))
    command = [build.program("darknet"), "classifier", "train", pictures / "classes.data", "net.cfg"]
    process = start(command, parts)
    wait_for_rows(process, parts / "log.csv", 5)
    process.send_signal(signal_number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal_number, said
    assert "net.backup" in said.splitlines()[-1], said
    assert (parts / "net.backup").exists() and (parts / "net.backup.kure").exists()
    assert not list(parts.glob("*.tmp")) and not list(parts.glob("*.new"))

    done = int((parts / "log.csv").read_text().splitlines()[-1].split(",")[0])
    updates = done + 10
    for folder, arguments in ((whole, []), (parts, ["net.backup"])):
        (folder / "net.cfg").write_text(cfg_of(updates))
        programs.succeed(build.darknet(folder, "classifier", "train", pictures / "classes.data", "net.cfg", *arguments))
    for name in ("net.weights", "net.weights.kure", "log.csv"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), f"{name} differs after a stop at update {done}"


def test_sizes_go_on_after_a_signal(build, boxes, tmp_path):
    """detector random=1 far from the end: sizes change every 10 updates, and after a stop they are those of a run
    that was not stopped. The log's losses tell."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    cfg = networks.detector({"log": "log.csv"}, filters=1, random=1, batch=1, subdivisions=1, seed=3, learning_rate=1e-4, max_batches=100000)
    for folder, stops in ((whole, (22,)), (parts, (7, 22))):
        folder.mkdir()
        (folder / "net.cfg").write_text(cfg)
        for number, rows in enumerate(stops):
            weights = ["net.backup"] if number else []
            process = start([build.program("darknet"), "detector", "train", boxes / "boxes.data", "net.cfg", *weights], folder)
            wait_for_rows(process, folder / "log.csv", rows)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
            assert process.returncode == 130
    rows = [(folder / "log.csv").read_text().splitlines()[:23] for folder in (whole, parts)]
    assert rows[0] == rows[1]
    assert len(set(row.split(",")[1] for row in rows[0])) == 23, "every update has its own loss"


def test_second_signal_ends_at_once(build, pictures, tmp_path):
    """The first one may find a long update: the second is Darknet's own end."""
    (tmp_path / "net.cfg").write_text(cfg_of(100000))
    process = start([build.program("darknet"), "classifier", "train", pictures / "classes.data", "net.cfg"], tmp_path)
    wait_for_rows(process, tmp_path / "log.csv", 3)
    process.send_signal(signal.SIGSTOP)  # so that both are there before it goes on
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGTERM)


def test_rows_of_updates_that_are_redone_are_replaced(build, pictures, tmp_path):
    """A run killed after its last checkpoint redoes updates: the log has every update once."""
    (tmp_path / "net.cfg").write_text(cfg_of(10))
    programs.succeed(build.darknet(tmp_path, "classifier", "train", pictures / "classes.data", "net.cfg"))
    for name in ("net.weights", "net.weights.kure"):
        (tmp_path / name).rename(tmp_path / name.replace("net", "ten"))
    (tmp_path / "net.cfg").write_text(cfg_of(14))
    programs.succeed(build.darknet(tmp_path, "classifier", "train", pictures / "classes.data", "net.cfg", "ten.weights"))
    first = (tmp_path / "log.csv").read_text()
    programs.succeed(build.darknet(tmp_path, "classifier", "train", pictures / "classes.data", "net.cfg", "ten.weights"))
    assert (tmp_path / "log.csv").read_text() == first
    assert [row.split(",")[0] for row in first.splitlines()[1:]] == [str(u) for u in range(1, 15)]


KILLS = 24
TRAINED_WITH = {"kure": None, "ste": dict(bits=4, weight_truncation="mse", every=3), "lsq": dict(bits=4, method="lsq")}


@pytest.mark.parametrize("kind", TRAINED_WITH)
def test_killed_at_any_instant(kind, build, tmp_path):
    """Kills a loop that trains and saves; each time the files load as a pair, and in the end the result is that of
    a run that nothing disturbed: a pair that did not fit would stop, momentum, ranges or steps that were lost would show."""
    cfg = networks.classifier({"batch": 4, "seed": 5}, {})
    if TRAINED_WITH[kind]:
        cfg = cfg.replace("\n[", "\n" + networks.section("quantization", **TRAINED_WITH[kind]) + "[", 1)
    updates = 10 * KILLS
    want = build.train(tmp_path, cfg, "whole.weights", "-updates", updates)
    seed = random.SystemRandom().randrange(2 ** 32)
    print(f"replay with seed {seed}")
    rng = random.Random(seed)
    weights = tmp_path / "out.weights"
    command = [build.program("harness"), "train", "net.cfg", "out.weights", "-updates", updates, "-save_every"]
    kills = pairs = 0
    while kills < KILLS:
        resume = ["-weights", "out.weights"] if weights.exists() else []
        process = start(command + resume, tmp_path)
        time.sleep(rng.uniform(0.02, 0.12))
        process.kill()
        process.communicate()
        kills += 1
        if process.returncode == 0:
            break
        if weights.exists():
            check_pair(build, tmp_path, cfg, kind, seed)
            pairs += 1
    assert kills > KILLS // 2, f"the loop ended after {kills} kills: it must train longer"
    assert pairs > KILLS // 4, f"{pairs} kills left files"
    resume = ["-weights", "out.weights"] if weights.exists() else []
    programs.succeed(programs.run(command + resume, tmp_path))
    assert weights.read_bytes() == want, f"seed {seed}: killed runs end elsewhere"
    assert (tmp_path / "out.weights.kure").read_bytes() == (tmp_path / "whole.weights.kure").read_bytes()


def check_pair(build, folder, cfg, kind, seed):
    result = build.harness(folder, "show", "net.cfg", "pair", "-weights", "out.weights")
    assert result.returncode == 0, f"seed {seed}: {programs.describe(result)}"
    momentum = networks.read_tensors(folder / "pair.0.loaded")["layers.0.weight_updates"]
    assert momentum.any(), f"seed {seed}: weights without their momentum"
    if kind != "kure":
        # evaluation needs the ranges and refuses weights without them
        result = build.harness(folder, "forward", "net.cfg", "pair", "-weights", "out.weights")
        assert result.returncode == 0, f"seed {seed}: {programs.describe(result)}"
