"""A fault in the cfg ends every command in one sentence that names file, line, key and limit; nothing is written."""
import re

import pytest

import networks
import programs

pytestmark = pytest.mark.sanitize

HERE = "# HERE"  # marks the line that the sentence must name

BASE = f"""[net]
batch=4
width=16
height=16
channels=3
max_batches=3
NET
[kurtosis]
KURTOSIS
{networks.conv(8)}
{networks.conv(8)}LAYER
{networks.section("maxpool", size=2, stride=2)}
{networks.classifier_head(3)}"""


def text(**parts):
    """The base cfg with lines put into its sections."""
    out = BASE
    for name in ("NET", "KURTOSIS", "LAYER"):
        out = out.replace(name, parts.get(name.lower(), ""))
    return out


def without_section(cfg):
    return cfg.replace("[kurtosis]\n", "")


def kurtosis(line, *words):
    return text(kurtosis=f"{line} {HERE}"), words


def layer(line, *words):
    return text(layer=line if HERE in line else f"{line} {HERE}"), words


def net(line, *words):
    return text(net=f"{line} {HERE}"), words


def quantization(line, *words, layer=""):
    """[quantization] with a bad line"""
    body = text(layer=layer)
    return body.replace("[kurtosis]", f"[quantization]\n{line}" + ("" if HERE in line + layer else f" {HERE}") + "\n[kurtosis]"), words


CASES = {
    # [quantization]
    "bits 1": quantization("bits=1", "bits=1", "2 to 16"),
    "learned_rate without lsq": quantization("learned_rate=0.5", "learned_rate", "method=lsq"),
    "slope without leaky": (text().replace("activation=leaky", f"activation=relu\nslope=0.2 {HERE}", 1), ("slope", "leaky")),
    "slope above 1": (text().replace("activation=leaky", f"activation=leaky\nslope=2 {HERE}", 1), ("slope=2", "1")),
    "bits 17": quantization("weight_bits=17", "weight_bits=17", "16"),
    "first_bits 1": quantization("first_bits=1", "first_bits=1", "2 to 16"),
    "misspelt bits": quantization("weight_bit=4", "weight_bit", "weight_bits"),
    "unknown rounding": quantization("rounding=nearest", "rounding=nearest", "half_even"),
    "unknown method": quantization("method=lsqq", "method=lsqq", "ste", "lsq"),
    "unknown truncation": quantization("weight_truncation=max", "weight_truncation=max", "minmax"),
    "quantizer key twice": quantization(f"weight_bits=4\nweight_bits=4 {HERE}", "weight_bits", "twice"),
    "section twice": (text() + f"[quantization]\nbits=8\n[quantization] {HERE}\nbits=8\n", ("quantization", "twice")),
    "a layer that cannot obey": quantization("bits=8", "layer 1", "granularity", layer=f"activation_granularity=channel {HERE}"),
    "quantizes nothing": (text().replace("[kurtosis]", f"[quantization] {HERE}\nbits=0\nfirst_bits=0\nlast_bits=0\n[kurtosis]"), ("quantizes nothing",)),
    "ema on weights": (text().replace("[kurtosis]", f"[quantization] {HERE}\nweight_truncation=ema\n[kurtosis]"), ("ema", "activations")),
    "policy without its value": (text().replace("[kurtosis]", f"[quantization] {HERE}\nactivation_truncation=percentile\n[kurtosis]"), ("truncation_value", "percentile")),
    "value without a policy": (text().replace("[kurtosis]", f"[quantization] {HERE}\nweight_truncation_value=3\n[kurtosis]"), ("truncation_value", "minmax")),
    "mse at 12 bits": (text().replace("[kurtosis]", f"[quantization] {HERE}\nweight_truncation=mse\nweight_bits=12\n[kurtosis]"), ("mse", "12", "8")),
    "free zero point on the narrow grid": (text().replace("[kurtosis]", f"[quantization] {HERE}\nweight_symmetric=0\n[kurtosis]"), ("symmetric", "narrow", "full")),
    "midrise in training": (text().replace("[kurtosis]", f"[quantization]\nweight_grid=midrise {HERE}\n[kurtosis]"), ("midrise", "evaluation")),

    # unknown and misspelt names
    "unknown key": kurtosis("tarjet=2", "tarjet", "target"),
    "key of another program": kurtosis("gamma=2", "gamma"),
    "unknown section": (text().replace("[kurtosis]", f"[kurtoses] {HERE}"), ("kurtoses", "kurtosis")),
    "quantize first": (text().replace("[convolutional]", f"[quantize] {HERE}\nbits=8\n[convolutional]", 1), ("[quantize]", "first")),
    "unknown key in quantize": (text() + f"[quantize]\nbit=8 {HERE}\n", ("bit", "bits")),
    "weights in quantize": (text().replace("[maxpool]", f"[quantize]\nweight_bits=8 {HERE}\n[maxpool]", 1), ("weight_",)),
    "quantizer key without section": layer("weight_bits=4", "[quantization]"),
    "misspelt quantization": (text() + f"[quantisation] {HERE}\nbits=8\n", ("quantisation", "quantization")),
    "misspelt layer key": layer("kurtosis_targt=1.8", "kurtosis_targt", "kurtosis_target"),
    "misspelt layer switch": layer("kurtossis=1", "kurtossis", "kurtosis"),
    "misspelt seed": net("sead=3", "sead", "seed"),
    # the right name in the wrong place, or in capitals
    **{f"[net] {key}": net(line, key, f"belongs into {place}") for line, key, place in (
        ("kurtosis=1", "kurtosis", "a layer such as [convolutional]"), ("kurtosis_target=1", "kurtosis_target", "a layer"),
        ("max_step=0.1", "max_step", "[kurtosis]"), ("lambda=1", "lambda", "[kurtosis]"), ("LAMBDA=1", "LAMBDA", "[kurtosis] as lambda"),
        ("weight_bits=4", "weight_bits", "[quantization]"), ("kurtosis_mode=max", "kurtosis_mode", "[kurtosis] as mode"))},
    **{f"layer {key}": layer(line, key, words) for line, key, words in (
        ("target=2", "target", "belongs into [kurtosis]"), ("lambda=2", "lambda", "belongs into [kurtosis]"),
        ("kurtosis_mode=max", "kurtosis_mode", "belongs into [kurtosis] as mode"), ("KURTOSIS=0", "KURTOSIS", "did you mean 'kurtosis'?"),
        ("KURTOSIS_TARGET=3", "KURTOSIS_TARGET", "did you mean 'kurtosis_target'?"), ("seed=3", "seed", "belongs into [net]"),
        ("kurtosis_taget=3", "kurtosis_taget", "did you mean 'kurtosis_target'?"), ("lamda=3", "lamda", "'lambda', which belongs into [kurtosis]"))},
    "two letters of seed": net("sede=1", "sede", "did you mean 'seed'?"),
    "seed in capitals": net("SEED=1", "SEED", "did you mean 'seed'?"),
    "max step": net("maxstep=1", "maxstep", "'max_step', which belongs into [kurtosis]"),
    "seed in [kurtosis]": kurtosis("seed=1", "seed", "belongs into [net]"),
    "layer key in [kurtosis]": kurtosis("kurtosis_target=2", "kurtosis_target", "belongs into a layer"),
    "quantizer key in [kurtosis]": kurtosis("bits=4", "bits", "belongs into [quantization]"),
    "key of [kurtosis] in [quantization]": (text() + f"[quantization]\nfold=1 {HERE}\n", ("fold", "belongs into [kurtosis]")),
    "section in capitals": (text().replace("[kurtosis]", f"[KURTOSIS] {HERE}"), ("[KURTOSIS]", "did you mean [kurtosis]?")),
    "misspelt quantization": (text() + f"[quantizaton] {HERE}\n", ("[quantizaton]", "did you mean [quantization]?")),
    # values
    "target 0": kurtosis("target=0", "target=0", "from 1 to 100"),
    "target too large": kurtosis("target=1e9", "target", "100"),
    "target a word": kurtosis("target=normal", "target=normal"),
    "target with rubbish": kurtosis("target=1.8x", "target=1.8x"),
    "target empty": kurtosis("target=", "target"),
    "target without value": kurtosis("target", "target"),
    "lambda nan": kurtosis("lambda=nan", "lambda=nan"),
    "lambda inf": kurtosis("lambda=inf", "lambda=inf"),
    "lambda negative": kurtosis("lambda=-1", "lambda=-1"),
    "max_step above 1": kurtosis("max_step=1.5", "max_step=1.5", "1"),
    "unknown mode": kurtosis("mode=average", "mode=average", "avg", "sum", "max"),
    "unknown granularity": kurtosis("granularity=row", "granularity=row", "channel"),
    "unknown std": kurtosis("std=1", "std=1", "biased"),
    "fold 2": kurtosis("fold=2", "fold=2", "0 or 1"),
    "start negative": kurtosis("start=-1", "start=-1"),
    "start a fraction": kurtosis("start=1.5", "start=1.5"),
    "every 0": kurtosis(f"log=x.csv\nevery=0", "every=0", "1"),
    "seed negative": net("seed=-1", "seed=-1"),
    "seed a fraction": net("seed=1.5", "seed=1.5"),
    "seed a word": net("seed=abc", "seed=abc"),
    "seed nan": net("seed=nan", "seed=nan"),
    "seed too large": net("seed=9223372036854775808", "seed=9223372036854775808", "9223372036854775807"),
    "layer target 0": layer("kurtosis_target=0", "kurtosis_target=0"),
    "layer switch 2": layer("kurtosis=2", "kurtosis=2", "0 or 1"),
    # layers=
    "layer 99": kurtosis("layers=99", "layers=99", "no layer 99", "5"),
    "range beyond the end": kurtosis("layers=1-99", "layers=1-99", "99"),
    "range backwards": kurtosis("layers=3-1", "layers=3-1"),
    "range backwards by words": kurtosis("layers=last-first", "layers=last-first", "backwards"),
    "range behind the last weights": kurtosis("layers=5-", "layers=5-", "no layer from 5 on has weights", "is 3"),
    "range from there to last": kurtosis("layers=4-last", "layers=4-last", "no layer from 4 on has weights"),
    "layer without weights": kurtosis("layers=2", "layers=2", "maxpool"),
    "layers a word": kurtosis("layers=all", "layers=all"),
    "layers with a hole": kurtosis("layers=1,,3", "layers=1,,3"),
    "layers ends in a comma": kurtosis("layers=1,", "layers=1,"),
    "layers negative": kurtosis("layers=-1", "layers=-1"),
    "layers huge": kurtosis("layers=99999999999999999999", "no layer"),
    # twice, missing, contradictory
    "key twice": kurtosis(f"target=2\ntarget=3", "target", "twice"),
    "layer key twice": layer(f"kurtosis=1\nkurtosis=0", "kurtosis", "twice"),
    "seed twice": net("seed=1\nseed=1", "seed", "twice"),
    "section twice": (text() + f"[kurtosis] {HERE}\n", ("kurtosis", "twice")),
    "section before [net]": (f"[kurtosis] {HERE}\n" + without_section(text()), ("kurtosis", "[net]")),
    "every without log": kurtosis("every=5", "every", "log"),
    "fold by channel": (text(kurtosis="fold=1\ngranularity=channel").replace("[kurtosis]", f"[kurtosis] {HERE}"), ("fold", "channel")),
    "layer key without section": (without_section(layer("kurtosis=1")[0]), ("kurtosis",)),
    "layer key that is off": layer(f"kurtosis=0 {HERE}\nkurtosis_target=2", "kurtosis=0"),
    "layer key without weights": (text().replace("size=2\nstride=2\n", f"size=2\nstride=2\nkurtosis=1 {HERE}\n"), ("maxpool", "no weights")),
    "layer key of a layer left out": (text().replace("filters=8\n", f"filters=8\nkurtosis_target=2 {HERE}\n", 1), ("layer 0", "kurtosis=1")),
    "nothing to regularize": (text(kurtosis="").replace(networks.conv(8), "", 1)
                              .replace("[kurtosis]", f"[kurtosis] {HERE}").replace(networks.classifier_head(3), networks.section("softmax")),
                              ("no layer",)),
    "a frozen layer by name": (text(kurtosis=f"layers=1 {HERE}", layer="stopbackward=1"), ("layer 1", "stopbackward")),
    # files that are no cfg
    "option before a section": ("batch=1\n" + text(), ("net.cfg", "line 1", "batch=1", "section")),
    "NUL byte": (text(net=f"batch\0=3 {HERE}"), ("NUL",)),
    "no layers": ("[net]\nbatch=1\n", ("no layers",)),
    "only our section": ("[net]\nbatch=1\n[kurtosis]\n", ("no layers",)),
    "empty file": ("", ("no section",)),
    "comments only": ("# nothing\n\n; here\n", ("no section",)),
    # Darknet's own
    "first section is no [net]": (without_section(text()).replace("[net]", "[convolutional]\nfilters=8", 1), ("net",)),
    "unknown layer type": (text().replace("[maxpool]", "[maxpol]"), ("maxpol",)),
    "unknown activation": (text().replace("activation=leaky", "activation=swish", 1), ("swish",)),
    "unknown policy": (text(net="policy=cosine"), ("cosine",)),
    "unknown cost": (text() + networks.section("cost", type="huber"), ("huber",)),
    "shortcut beyond the start": (text(layer="\n" + networks.section("shortcut", activation="linear", **{"from": -9})), ("layer",)),
    "route to itself": (text(layer="\n" + networks.section("route", layers="2")), ("layer 2",)),
    "subdivisions 0": (text(net="subdivisions=0"), ("subdivisions=0",)),
    "subdivisions above batch": (text(net="subdivisions=8"), ("subdivisions=8",)),
    "subdivisions that do not divide batch": net("subdivisions=3", "subdivisions=3", "batch=4"),
    "filters that do not fit [yolo]": (text().replace(networks.classifier_head(3), networks.yolo(2).replace("filters=14", "filters=13")), ("14",)),
}
COMMANDS = {
    "plan": ("kure", "plan", "net.cfg"),
    "plan --clean": ("kure", "plan", "net.cfg", "--clean", "clean.cfg", "--csv", "plan.csv"),
    "train": ("classifier", "train", "DATA", "net.cfg"),
}


def line_of_mark(cfg):
    marked = [number for number, line in enumerate(cfg.split("\n"), 1) if HERE in line]
    assert len(marked) < 2
    return marked[0] if marked else None


@pytest.mark.parametrize("case", CASES)
def test_fault_is_named(case, build, pictures, tmp_path):
    cfg, words = CASES[case]
    (tmp_path / "net.cfg").write_text(cfg)
    before = programs.files_under(tmp_path)
    line = line_of_mark(cfg)
    where = [f"net.cfg:{line}: "] if line else []
    for command in COMMANDS.values():
        command = [str(pictures / "classes.data") if word == "DATA" else word for word in command]
        programs.refuse(build.darknet(tmp_path, *command), *where, *words)
    assert programs.files_under(tmp_path) == before, "something was written"


def test_table_can_fail(build, pictures, tmp_path):
    """The base cfg is sound: each case fails for its own fault."""
    for cfg in (text(), without_section(text()), text(kurtosis="target=2 # a comment\nlog=log.csv", layer="kurtosis_target=3", net="seed=1")):
        (tmp_path / "net.cfg").write_text(cfg)
        programs.succeed(build.darknet(tmp_path, "kure", "plan", "net.cfg"))
        programs.succeed(build.darknet(tmp_path, "classifier", "train", pictures / "classes.data", "net.cfg"))


def names_of_darknet(build):
    """Every cfg key that Darknet's parser knows; (all, those of [net])"""
    source = (build.folder / "darknet-src" / "src" / "parser.c").read_text()
    find = re.compile(r'option_find\w*\(\s*\w+,\s*"(\w+)"')
    start = source.index("void parse_net_options")
    return set(find.findall(source)), set(find.findall(source[start:source.index("\n}\n", start)]))


# Of other Darknets: such cfgs are read, with a remark of Darknet's own
FOREIGN = """mosaic letter_box track augment_speed dynamic_minibatch optimized_memory workspace_size_limit_MB mixup cutmix blur gaussian_noise
    label_smooth_eps max_chart_loss sgdr_cycle sgdr_mult seq_scales ema_alpha loss_scale swa adversarial_lr contrastive attention unsupervised
    show_receptive_field try_fix_nan sequential_subdivisions init_sequential_subdivisions mosaic_bound weights_reject_freq equidistant_point
    badlabels_rejection_percentage num_sigmas_reject_badlabels badlabels_reject_threshold resize_step use_cuda_graph
    scale_x_y iou_thresh iou_loss iou_normalizer cls_normalizer obj_normalizer delta_normalizer max_delta nms_kind beta_nms objectness_smooth
    counters_per_class focal_loss new_coords embedding_layer sim_thresh dets_for_track dets_for_show track_ciou_norm show_details
    dilation antialiasing share_index stride_x stride_y bin_output assisted_excitation deform sway rotate stretch stretch_sway reverse_route
    weights_type weights_normalization group_id maxpool_depth out_channels coefficient dropblock dropblock_size_rel dropblock_size_abs
    bottleneck peephole shortcut_type grad_centr keep_delta_gpu train wait_stream sparse quadratic root""".split()


def test_no_key_of_darknet_is_taken_for_one_of_ours(build, tmp_path):
    """In small letters where nothing reads them, in capitals everywhere; other Darknets' keys as well."""
    every, in_net = names_of_darknet(build)
    every.discard("seed")
    assert {"momentum", "decay", "max_batches", "steps", "scales", "learning_rate", "layers", "log", "B1"} <= every and len(every) > 100

    def lines(names):
        return "".join(f"{name}=1\n" for name in sorted(names))

    capitals = {name.upper() for name in every if name.upper() not in every} | set(FOREIGN)
    cfg = text(net=lines((every - in_net) | capitals), layer=lines(capitals))
    cfg = cfg.replace("[avgpool]\n", "[avgpool]\n" + lines((every | capitals) - {"step", "stopbackward"}))  # ours there; freezes
    (tmp_path / "net.cfg").write_text(cfg)
    programs.succeed(build.darknet(tmp_path, "kure", "plan", "net.cfg"))


@pytest.mark.parametrize("name,words", ((".", ()), ("missing.cfg", ("missing.cfg",))))
def test_no_file(name, words, build, pictures, tmp_path):
    for command in (("kure", "plan", name), ("kure", "stats", name, "w"), ("classifier", "train", pictures / "classes.data", name)):
        programs.refuse(build.darknet(tmp_path, *command), *words)
    assert not list(tmp_path.iterdir())


def test_directory_as_cfg(build, tmp_path):
    (tmp_path / "net.cfg").mkdir()
    programs.refuse(build.darknet(tmp_path, "kure", "plan", "net.cfg"), "net.cfg")


# ---- what looks odd and is read all the same --------------------------------------

ODD = {
    "crlf": lambda s: s.replace("\n", "\r\n"),
    "byte order mark": lambda s: "\ufeff" + s,
    "crlf and byte order mark": lambda s: "\ufeff" + s.replace("\n", "\r\n"),
    "trailing comments": lambda s: s.replace("\n\n", "\n").replace("=", " = ").replace("8\n", "8 # eight\n").replace("leaky\n", "leaky ; as always\n"),
    "exponents": lambda s: s.replace("learning_rate=0.1", "learning_rate=1e-1").replace("decay=0.0005", "decay=5e-4").replace("target=2", "target=2e0").replace("seed=5", "seed=5e0"),
    "signs": lambda s: s.replace("target=2", "target=+2").replace("seed=5", "seed=+5"),
    "no newline at the end": lambda s: s.rstrip("\n"),
    "blanks": lambda s: s.replace("=", " =\t").replace("[convolutional]", "[convolutional]  "),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_spellings_are_read(name, build, pictures, tmp_path):
    """The same plan and the same training, bit for bit."""
    clean = networks.classifier({"seed": 5, "max_batches": 4}, {"target": "2", "log": "log.csv"})
    odd = ODD[name](clean)
    assert odd != clean
    results = []
    for cfg in (clean, odd):
        folder = tmp_path / str(len(results))
        folder.mkdir()
        (folder / "net.cfg").write_bytes(cfg.encode())
        plan = programs.succeed(build.darknet(folder, "kure", "plan", "net.cfg")).stdout
        programs.succeed(build.darknet(folder, "classifier", "train", pictures / "classes.data", "net.cfg"))
        results.append((plan, {path: data for path, data in programs.files_under(folder).items() if path != "net.cfg"}))
    assert results[0] == results[1]
    assert "net.weights.kure" in results[0][1]
