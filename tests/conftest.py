"""Fixtures: the builds under test, networks, and synthetic data sets.

--build DIR names the build under test (default: build); the extra builds stock, seam-off and
seam-on lie in --builds DIR (default: build). tests/run.sh makes all of them."""
import pathlib
import signal

import numpy as np
import pytest

import networks
import programs


def pytest_addoption(parser):
    parser.addoption("--build", default=str(programs.ROOT / "build"), help="folder of the darknet and harness under test")
    parser.addoption("--builds", default=str(programs.ROOT / "build"), help="folder of the extra builds")


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's background job; the programs under test would not hear Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "sanitize: also run on the build with ASan and UBSan")
    config.addinivalue_line("markers", "long: not on the build with ASan and UBSan, which runs the same code in shorter tests")
    config.addinivalue_line("markers", "clients: needs the environment of scripts/clients.sh")
    config.addinivalue_line("markers", "threads: also run on the build with ThreadSanitizer")
    config.addinivalue_line("markers", "gpu: wants the build gpu-on-cpu, or with KURE_GPU=native a GPU")
    config.addinivalue_line("markers", "browser: wants a headless Chromium; run.sh says so where there is none")


class Build:
    """One build of Darknet: its folder holds `darknet` and `harness`."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder).resolve()

    def program(self, name):
        path = self.folder / name
        if not path.exists():
            pytest.fail(f"{path} is missing: run tests/run.sh, which builds it", pytrace=False)
        return path

    def darknet(self, cwd, *arguments, **options):
        return programs.run([self.program("darknet"), *arguments], cwd, **options)

    def harness(self, cwd, *arguments, **options):
        return programs.run([self.program("harness"), *arguments], cwd, **options)

    def train(self, cwd, cfg_text, out, *arguments, name="net.cfg", **options):
        """Trains with the harness; returns the bytes of the weights."""
        (cwd / name).write_text(cfg_text)
        programs.succeed(self.harness(cwd, "train", name, out, *arguments, **options))
        return (cwd / out).read_bytes()

    def tensors(self, cwd, cfg_text, *arguments, name="net.cfg", out="dump"):
        """The tensors of a network as it is built or loaded."""
        (cwd / name).write_text(cfg_text)
        programs.succeed(self.harness(cwd, "show", name, out, *arguments))
        return networks.read_tensors(cwd / f"{out}.0.loaded")


@pytest.fixture(scope="session")
def build(request):
    """The patched Darknet with the plugin."""
    return Build(request.config.getoption("--build"))


@pytest.fixture(scope="session")
def builds(request):
    """builds("stock"), builds("seam-off"), builds("seam-on"): FIXES=0 BLAS=0 OPENMP=0"""
    return lambda name: Build(pathlib.Path(request.config.getoption("--builds")) / name)


# ---- data sets -------------------------------------------------------------------

CLASSES = ("cross", "disc", "stripe")


def draw(rng, kind, width, height):
    """An RGB image [height][width][3] whose class can be learned."""
    y, x = np.mgrid[0:height, 0:width]
    cx, cy = width * rng.uniform(.35, .65), height * rng.uniform(.35, .65)
    if kind == "cross":
        on = (abs(x - cx) < width / 8) | (abs(y - cy) < height / 8)
    elif kind == "disc":
        on = (x - cx) ** 2 + (y - cy) ** 2 < (min(width, height) / 3) ** 2
    else:
        on = (x + y) % 8 < 4
    colours = rng.integers(0, 256, (2, 3))
    picture = np.where(on[..., None], colours[0], colours[1]) + rng.integers(-20, 21, (height, width, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


def make_classification(folder, count, sizes, seed=1):
    """count images named after their class, with data files; sizes: [(width, height)]"""
    from PIL import Image
    rng = np.random.default_rng(seed)
    paths = []
    for i in range(count):
        kind = CLASSES[i % len(CLASSES)]
        path = folder / f"{i:04d}_{kind}.png"
        Image.fromarray(draw(rng, kind, *sizes[i % len(sizes)])).save(path)
        paths.append(str(path))
    (folder / "train.list").write_text("\n".join(paths) + "\n")
    (folder / "valid.list").write_text("\n".join(paths) + "\n")
    (folder / "labels.list").write_text("\n".join(CLASSES) + "\n")
    write_data_file(folder / "classes.data", folder)
    return folder


def write_data_file(path, folder, **changes):
    entries = dict(classes=len(CLASSES), train=folder / "train.list", valid=folder / "valid.list", labels=folder / "labels.list",
                   names=folder / "labels.list", backup=".", top=2)
    entries.update(changes)
    path.write_text("".join(f"{key} = {value}\n" for key, value in entries.items() if value is not None))
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """24 small images to train on."""
    return make_classification(tmp_path_factory.mktemp("pictures"), 24, [(20, 20), (24, 18)])


@pytest.fixture(scope="session")
def boxes(tmp_path_factory):
    """12 images with boxes: images/*.png, labels/*.txt"""
    from PIL import Image
    folder = tmp_path_factory.mktemp("boxes")
    rng = np.random.default_rng(2)
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    paths = []
    for i in range(12):
        path = folder / "images" / f"{i:03d}.png"
        Image.fromarray(draw(rng, CLASSES[i % 3], 48, 40)).save(path)
        lines = [f"{rng.integers(2)} {rng.uniform(.3, .7):.3f} {rng.uniform(.3, .7):.3f} {rng.uniform(.2, .5):.3f} {rng.uniform(.2, .5):.3f}"
                 for _ in range(2)]
        (folder / "labels" / f"{i:03d}.txt").write_text("\n".join(lines) + "\n")
        paths.append(str(path))
    (folder / "train.list").write_text("\n".join(paths) + "\n")
    (folder / "labels.list").write_text("a\nb\n")
    write_data_file(folder / "boxes.data", folder, classes=2, valid=folder / "train.list")
    return folder
