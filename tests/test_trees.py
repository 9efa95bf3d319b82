"""DARKNET=DIR: the user's tree is copied and never changed; another flavour is refused by name; make patch and
make unpatch leave the tree as it was."""
import shutil

import pytest

import networks
import programs

STOCK_FILES = ("Makefile", "include/darknet.h", "src/parser.c", "src/network.c", "examples/darknet.c")


def make(*arguments):
    return programs.run(["make", "--no-print-directory", *arguments], programs.ROOT, env={"MAKEFLAGS": ""})


def fake(folder, *files):
    """A folder with empty files of those names."""
    tree = folder / "tree"
    for name in files:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("")
    tree.mkdir(exist_ok=True)
    return tree


FLAVOURS = {
    "AlexeyAB": (STOCK_FILES + ("include/yolo_v2_class.hpp",), ("AlexeyAB",)),
    "hank-ai": (("CMakeLists.txt", "src-lib/darknet_cfg.cpp", "src-cli/darknet.cpp"), ("hank-ai",)),
    "no Darknet": (("README",), ("not a Darknet tree",)),
    "half a tree": (STOCK_FILES[:-1], ("examples/darknet.c",)),
}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_other_flavours_are_refused(flavour, tmp_path):
    files, words = FLAVOURS[flavour]
    tree = fake(tmp_path, *files)
    before = programs.files_under(tree)
    result = make(f"BUILD={tmp_path}/build", f"DARKNET={tree}")
    assert result.returncode != 0
    said = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1 and str(tree) in said[0] and all(word in said[0] for word in words), programs.describe(result)
    assert programs.files_under(tree) == before
    assert not (tmp_path / "build" / "darknet-src").exists() and not (tmp_path / "build" / "darknet").exists()


def test_no_such_tree(tmp_path):
    result = make(f"BUILD={tmp_path}/build", f"DARKNET={tmp_path}/nowhere")
    assert result.returncode != 0 and "nowhere" in result.stderr


@pytest.fixture
def tree(builds, tmp_path):
    """A stock tree of the user's own, with things in it that are his."""
    tree = tmp_path / "mine"
    shutil.copytree(builds("stock").folder / "darknet-src", tree, ignore=shutil.ignore_patterns("obj", "*.a", "harness"))
    (tree / "my.weights").write_bytes(bytes(100))
    (tree / "cfg" / "my.cfg").write_text("[net]\n")
    return tree


def test_tree_is_copied_not_changed(tree, tmp_path):
    before = programs.files_under(tree)
    programs.succeed(programs.run([programs.ROOT / "scripts" / "get_darknet.sh", tmp_path / "copy", tree], tmp_path))
    assert programs.files_under(tree) == before
    copied = programs.files_under(tmp_path / "copy")
    assert all(copied[name] == before[name] for name in copied) and "cfg/my.cfg" in copied and "my.weights" not in copied


def test_patch_and_unpatch(tree, tmp_path):
    before = programs.files_under(tree)
    programs.succeed(make("patch", f"DARKNET={tree}"))
    patched = programs.files_under(tree)
    assert b"kure_seam" in patched["src/parser.c"]
    again = make("patch", f"DARKNET={tree}")
    assert again.returncode != 0 and "patched already" in again.stderr
    programs.succeed(make("unpatch", f"DARKNET={tree}"))
    assert programs.files_under(tree) == before


def test_build_in_place(build, tree, pictures, tmp_path):
    """The commands that make patch prints, as they are; -O0 because nothing is computed here."""
    said = programs.succeed(make("patch", f"DARKNET={tree}", f"BUILD={build.folder}")).stdout
    libraries, in_place = (line.split() for line in said.splitlines() if line.startswith("  make "))
    assert libraries[:3] == ["make", "-C", str(programs.ROOT)] and f"BUILD={build.folder}" in libraries
    programs.succeed(programs.run(in_place + ["-j2", "OPTS=-O0"], tmp_path, env={"MAKEFLAGS": ""}))
    (tmp_path / "net.cfg").write_text(networks.classifier({"max_batches": 1}, {}))
    programs.succeed(programs.run([tree / "darknet", "classifier", "train", pictures / "classes.data", "net.cfg"], tmp_path))
    assert (tmp_path / "net.weights.kure").exists()


def test_libraries_of_another_header_are_refused(build, tree, tmp_path):
    programs.succeed(make("patch", f"DARKNET={tree}"))
    with open(tree / "include" / "darknet.h", "a") as header:
        header.write("/* mine */\n")
    result = programs.run(["make", "-C", tree, f"KURE_MK={programs.ROOT}/darknet-kure/host.mk", f"KURE_BUILD={build.folder}"], tmp_path,
                          env={"MAKEFLAGS": ""})
    assert result.returncode != 0 and "include/darknet.h here is not that of the libraries" in result.stderr, programs.describe(result)
    assert not (tree / "darknet").exists()


def test_targets_that_cannot_work_say_so(tmp_path):
    for target, word in (("fuss", "No rule"), ("install", "no plugin to install")):
        result = make(target, "KURE=0", f"BUILD={tmp_path}/build", f"PREFIX={tmp_path}/installed")
        assert result.returncode != 0 and word in result.stderr, programs.describe(result)
        assert not (tmp_path / "installed").exists() and not (tmp_path / "build" / "darknet").exists()
    assert "KURE=0" in programs.succeed(make("help")).stdout


def test_changed_tree_is_refused_untouched(tree):
    text = (tree / "src" / "parser.c").read_text()
    assert "read_cfg(filename)" in text
    (tree / "src" / "parser.c").write_text(text.replace("read_cfg(filename)", "read_cfg( filename )"))
    before = programs.files_under(tree)
    result = make("patch", f"DARKNET={tree}")
    assert result.returncode != 0 and "does not apply" in result.stderr, programs.describe(result)
    assert programs.files_under(tree) == before
