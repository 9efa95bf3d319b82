"""scripts/check_layers.sh sees what it is there to see: each breach in a copy of the tree is named."""
import shutil

import pytest

import programs

BREACHES = {  # file: (text put at its end, words of the complaint)
    "core/plan.c": ('#include "darknet.h"\n', "core includes darknet.h"),
    "core/keys.c": ('#include "state.h"\n', "core includes state.h of adapter"),
    "core/quantize.c": ('#include "../backend/cpu_things.h"\n', "core includes"),
    "core/cfg.c": ("void f(void) { exit(1); }\n", "ends the process"),
    "backend/cpu.c": ('#include "../core/levels.h"\n', "backend includes ../core/levels.h"),
    "math/kure_math.h": ('#include "chunks.h"\n', "math includes chunks.h of core"),
    "adapter/views.c": ('#include "../commands/table.h"\n', "adapter includes ../commands/table.h"),
    "commands/stats.c": ('#include "darknet.h"\n', "commands includes darknet.h"),
    "runtime/pool.c": ('#include "../core/levels.h"\n', "runtime includes ../core/levels.h of core"),
    "runtime/run.c": ("#include <stdio.h>\n", "no such header"),
    "host.mk": ("CFLAGS += -ffast-math\n", "host.mk"),
    "core/fold.c": ("/* */\n" * 400, "split it"),
}


def check(folder):
    return programs.run([programs.ROOT / "scripts" / "check_layers.sh", folder], folder)


@pytest.fixture
def copy(tmp_path):
    for name in ("darknet-kure", "tests", "scripts"):
        shutil.copytree(programs.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(programs.ROOT / "Makefile", tmp_path)
    return tmp_path


def test_tree_is_sound(copy):
    programs.succeed(check(copy))


@pytest.mark.parametrize("file", BREACHES)
def test_breach_is_named(file, copy):
    text, words = BREACHES[file]
    with open(copy / "darknet-kure" / file, "a") as out:
        out.write(text)
    result = check(copy)
    assert result.returncode == 1 and words in result.stderr, programs.describe(result)
