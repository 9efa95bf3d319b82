"""The seam alone (FIXES=0 BLAS=0 OPENMP=0): off, and on without our keys, train as the stock tree, bit for bit."""
import pytest

import networks

UPDATES = 50
NETWORKS = {
    "classifier": networks.every_layer(connected=True),
    "convolutional": networks.every_layer(connected=False),
    "detector": networks.detector(),
}


def weights_of(build, folder, cfg, *arguments):
    return build.train(folder, cfg, "out.weights", "-updates", UPDATES, *arguments)


@pytest.mark.parametrize("name", NETWORKS)
def test_seam_changes_no_bit(name, builds, tmp_path):
    cfg = NETWORKS[name]
    stock = weights_of(builds("stock"), tmp_path, cfg)
    for seam in ("seam-off", "seam-on"):
        assert weights_of(builds(seam), tmp_path, cfg) == stock, f"{seam} trains otherwise than stock Darknet after {UPDATES} updates"


def test_comparison_can_fail(builds, tmp_path):
    """One update more, another seed, or a [kurtosis] section give other bytes; without the plugin [kurtosis] is no section."""
    cfg = NETWORKS["convolutional"]
    stock, on = builds("stock"), builds("seam-on")
    same = weights_of(stock, tmp_path, cfg)
    assert weights_of(stock, tmp_path, cfg, "-seed", 2) != same
    assert stock.train(tmp_path, cfg, "out.weights", "-updates", UPDATES + 1) != same
    with_keys = cfg.replace("[convolutional]", "[kurtosis]\n\n[convolutional]", 1)
    assert weights_of(on, tmp_path, with_keys) != same
    (tmp_path / "net.cfg").write_text(with_keys)
    assert stock.harness(tmp_path, "train", "net.cfg", "out.weights").returncode != 0


def test_no_sidecar_without_keys(builds, tmp_path):
    weights_of(builds("seam-on"), tmp_path, NETWORKS["detector"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.cfg", "out.weights"]
