"""`darknet kure swap-activation`: the text stays but for the activations; the network that comes out is the one that was asked for."""
import csv
import json
import re

import pytest

import networks
import programs

pytestmark = pytest.mark.sanitize

CFG = ("# leaky stays in comments: activation=leaky\r\n" + networks.net(width=32, height=32).replace("\n", "\r\n")
       + "[convolutional]\r\nfilters=8\r\nsize=3\r\npad=1\r\n activation = leaky   # as trained\r\n\r\n"
       + "[convolutional]\nfilters=8\nsize=3\npad=1\nslope=.2\nactivation=leaky\n\n" + networks.conv(8, activation="relu")
       + "[shortcut]\nfrom=-2\nactivation=leaky\n\n" + networks.conv(8, activation="elu") + "[convolutional]\nfilters=8\n\n" + networks.classifier_head(3) + "\n; the end")


def swap(build, folder, *options, text=CFG):
    (folder / "net.cfg").write_bytes(text.encode())
    return build.darknet(folder, "kure", "swap-activation", "net.cfg", "out.cfg", *options)


@pytest.mark.parametrize("to,value,slope", (("relu", "relu", ""), ("relu6", "relu6", ""), ("26/256", "leaky", "slope=0.1015625"), ("1/8", "leaky", "slope=0.125")))
def test_text(to, value, slope, build, tmp_path):
    programs.succeed(swap(build, tmp_path, "--to", to))
    line = slope + "\n" if slope else ""
    want = CFG.replace(" activation = leaky   # as trained\r\n", f" activation = {value}   # as trained\r\n" + (slope + "\r\n" if slope else ""))
    want = want.replace("slope=.2\nactivation=leaky\n", f"activation={value}\n{line}").replace("from=-2\nactivation=leaky\n", f"from=-2\nactivation={value}\n{line}")
    assert (tmp_path / "out.cfg").read_bytes().decode() == want


def test_last_line_without_an_end(build, tmp_path):
    text = networks.net() + networks.conv(4) + networks.conv(4) + "[shortcut]\nfrom=-2\nactivation=leaky"
    programs.succeed(swap(build, tmp_path, "--to", "1/4", text=text))
    assert (tmp_path / "out.cfg").read_text().endswith("from=-2\nactivation=leaky\nslope=0.25")


def test_table_and_what_has_no_integer_form(build, tmp_path):
    result = programs.succeed(swap(build, tmp_path, "--csv", "t.csv", "--json", "t.json"))
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["layer"], r["before"], r["after"], r["integer"]) for r in rows] == [
        ("0", "leaky", "relu", "yes"), ("1", "leaky", "relu", "yes"), ("2", "relu", "relu", "yes"), ("3", "leaky", "relu", "yes"), ("4", "elu", "elu", "no"),
        ("5", "logistic", "logistic", "no"), ("6", "linear", "linear", "yes")]
    assert len(json.loads((tmp_path / "t.json").read_text())["rows"]) == 7
    assert "3 layers swapped" in result.stdout and "no integer form: layer 4 [convolutional] activation=elu, layer 5 [convolutional] activation=logistic" in result.stderr


@pytest.mark.parametrize("to", ("relu", "relu6", "26/256"))
def test_it_trains(to, build, pictures, tmp_path):
    (tmp_path / "classes.data").write_bytes((pictures / "classes.data").read_bytes())
    text = networks.classifier(dict(max_batches=3)).replace("activation=linear\n\n[route]", "activation=leaky\n\n[route]")
    programs.succeed(swap(build, tmp_path, "--to", to, text=text))
    assert re.search("activation=leaky", text)
    programs.succeed(build.darknet(tmp_path, "classifier", "train", "classes.data", "out.cfg"))
    programs.succeed(build.darknet(tmp_path, "kure", "eval", "out.cfg", "out.weights", "classes.data"))


@pytest.mark.parametrize("to", ("leaky", "0.1", "1/3", "3/2", "0/8", "-1/8", "1/131072", "1/8x", "mish"))
def test_other_activations(to, build, tmp_path):
    programs.refuse(swap(build, tmp_path, "--to", to), f"--to {to}", "relu6", status=2)
    assert not (tmp_path / "out.cfg").exists()


def test_nothing_to_swap_and_bad_files(build, tmp_path):
    programs.refuse(swap(build, tmp_path, text=networks.classifier().replace("leaky", "relu")), "net.cfg", "no layer has activation=leaky")
    programs.refuse(build.darknet(tmp_path, "kure", "swap-activation", "none.cfg", "out.cfg"), "none.cfg")
    programs.refuse(build.darknet(tmp_path, "kure", "swap-activation", "net.cfg", "net.cfg"), "net.cfg", status=2)
    programs.refuse(build.darknet(tmp_path, "kure", "swap-activation", "net.cfg"), "CFG OUT", status=2)
    programs.refuse(swap(build, tmp_path, "--csv", "out.cfg"), "same file", status=2)
    assert not (tmp_path / "out.cfg").exists()
