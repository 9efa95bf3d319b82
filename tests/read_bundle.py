"""A bundle run in NumPy, from export/README.md, manifest.json and the codes in model.kure: python3 read_bundle.py NAME.edge
compares every golden tensor and says how many codes differ. Shares nothing with the C code."""
import json
import pathlib
import sys

import numpy as np

import integer_reference as reference

# names of an arithmetic's numbers -> words as integer_reference takes them; None: 0
ROWS = {"float32": ("scales", None), "float32_multiplied": ("scales", "biases"), "float32_divided": ("scales", "biases"),
        "double_rounding": ("multipliers", "shifts"), "single_rounding": ("multipliers", "shifts"), "shift_half_up": (None, "shifts")}
FIXED = ("multiplier_a", "shift_a", "multiplier_b", "shift_b", "multiplier", "shift", "left")
ADD = {"float32": ("ratio_a", "ratio_b", "fixed"), "float32_multiplied": ("step_a", "step_b", "slope", "last"),
       "float32_divided": ("step_a", "step_b", "slope", "last"), "double_rounding": FIXED, "single_rounding": FIXED,
       "shift_half_up": ("left_a", "left_b", "shift")}
MEAN = {"float32": ("scale",), "float32_multiplied": ("scale", None, "slope", "last"), "float32_divided": ("scale", None, "slope", "last"),
        "double_rounding": (), "single_rounding": (), "shift_half_up": (None, "shift")}
INTEGERS = {"multipliers", "shifts", "left_a", "left_b", *FIXED}


def words(layer, names, count):
    """uint32[count], or [rows][count] where the numbers are lists"""
    out = []
    for name in list(names) + [None] * (count - len(names)):
        value = 0 if name is None else layer[name]
        is_float = name is not None and name not in INTEGERS
        out.append(np.asarray(value, dtype=np.float32).view(np.uint32) if is_float else np.asarray(value, dtype=np.int64).astype(np.int32).view(np.uint32))
    return np.stack(np.broadcast_arrays(*out), axis=-1)


class Bundle:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.manifest = json.loads((self.folder / "manifest.json").read_text())
        assert self.manifest["format"] == "kure-bundle-1"
        self.tensors, self.layers = self.manifest["tensors"], self.manifest["layers"]

    def golden(self, name):
        return np.load(self.folder / name)

    def weights(self, layer):
        """int64 [rows][row]"""
        at = layer["weights"]
        data = np.fromfile(self.folder / at["file"], dtype=np.uint8, offset=at["offset"], count=at["bytes"])
        if at["stored_bits"] == 4:
            halves = np.stack([data & 15, data >> 4], axis=-1).ravel()[:at["rows"] * at["row"]].astype(np.int64)
            codes = np.where(halves < 8, halves, halves - 16)
        else:
            codes = data.view(np.int8).astype(np.int64)
        return codes.reshape(at["rows"], at["row"])

    def limit(self, out, code):
        t = self.tensors[out]
        return np.clip(code + t["zero_point"], t["low"], t["high"]).astype(np.int8)

    # ---- the input -------------------------------------------------------------------

    def quantize(self, values):
        """float32 [channels][height][width] to codes of tensor 0"""
        i, t = self.manifest["input"], self.tensors[0]
        factor, x = np.float32(i["factor"]), values.astype(np.float32)
        way, ties = i["rounding"].split("_", 1)
        quotient = x * factor if way == "multiplied" else x / factor
        code = {"half_even": reference.half_even, "half_away": reference.half_away,
                "half_up": lambda q: np.floor(q.astype(np.float64) + 0.5).astype(np.int64)}[ties](quotient)
        return np.clip(code + t["zero_point"], t["low"], t["high"]).astype(np.int8)

    # ---- layers ---------------------------------------------------------------------

    def convolution(self, layer, x):
        x = x.astype(np.int64) - self.tensors[layer["inputs"][0]]["zero_point"]
        size, stride, padding, groups = (layer.get(k, d) for k, d in (("size", 1), ("stride", 1), ("padding", 0), ("groups", 1)))
        if layer["kind"] == "connected":
            x, size, stride, padding, groups = x.reshape(-1, 1, 1), 1, 1, 0, 1
        w = self.weights(layer).reshape(groups, -1, len(x) // groups, size, size)
        x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
        windows = windows.reshape(groups, -1, *windows.shape[1:])
        # sums of integers below 2^53: float64 products are exact
        sums = np.einsum("grcij,gcyxij->gryx", w.astype(np.float64), windows.astype(np.float64), optimize=True)
        sums = sums.reshape(-1, *sums.shape[2:]).astype(np.int64)
        kind = layer["arithmetic"]
        if "biases" not in ROWS[kind]:
            sums += np.asarray(layer["biases"], dtype=np.int64).reshape(-1, 1, 1)
        w4 = np.zeros((len(sums), 4), dtype=np.uint32)
        w4[:, :2] = words(layer, ROWS[kind], 2)
        if "last" in layer:
            w4[:, 2:] = words(layer, ("slope", "last"), 2)
        return self.limit(layer["output"], reference.requantize(kind, sums, np.broadcast_to(w4[:, None, None, :], (*sums.shape, 4)).copy()))

    connected = convolution

    def maxpool(self, layer, x):
        c, h, w = self.tensors[layer["output"]]["shape"]
        size, stride, before = layer["size"], layer["stride"], layer["padding"] // 2
        after = max((max(h, w) - 1) * stride + size, 0)
        padded = np.pad(x, ((0, 0), (before, after), (before, after)), constant_values=-128)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))[:, ::stride, ::stride]
        return windows[:, :h, :w].max(axis=(3, 4))

    def average_pool(self, layer, x):
        t, kind = self.tensors[layer["inputs"][0]], layer["arithmetic"]
        n, codes = x.shape[1] * x.shape[2], x.astype(np.int64).sum(axis=(1, 2))
        one = words(layer, MEAN[kind], 4)
        given = one if kind.startswith("shift") else np.broadcast_to(one, (len(codes), 4)).copy()
        mean = reference.mean(kind, codes - n * t["zero_point"], codes, n, self.tensors[layer["output"]]["zero_point"], given)
        return self.limit(layer["output"], mean).reshape(-1, 1, 1)

    def upsample(self, layer, x):
        return x.repeat(layer["stride"], 1).repeat(layer["stride"], 2)

    def reorg(self, layer, x):
        shape = self.tensors[layer["output"]]["shape"]
        c, (h, w), s = len(x), x.shape[1:], layer.get("stride", 1)
        if layer["order"] in ("flatten", "unflatten"):
            flat = x.reshape((c, h * w) if layer["order"] == "flatten" else (h * w, c))
            return flat.T.reshape(shape)
        depth = c // s ** 2
        if layer["order"] == "reverse":  # y[c2, j*s + o//s, i*s + o%s] = x[o*depth + c2, j, i]
            return x.reshape(s, s, depth, h, w).transpose(2, 3, 0, 4, 1).reshape(shape)
        # the elements of x, seen as [depth][h*s][w*s], in the order of y, seen as [c][h][w]
        return x.reshape(depth, h, s, w, s).transpose(2, 4, 0, 1, 3).reshape(shape)

    def concatenate(self, layer, *inputs):
        return np.concatenate([x.ravel() for x in inputs]).reshape(self.tensors[layer["output"]]["shape"])

    def lookup(self, layer, x):
        return np.asarray(layer["table"], dtype=np.int8)[x.astype(np.int64) + 128]

    def add(self, layer, a, b):
        """Darknet's shortcut: where both shapes have an element"""
        one, two = (self.tensors[i]["zero_point"] for i in layer["inputs"])
        kind, out = layer["arithmetic"], self.tensors[layer["output"]]
        y = np.asarray(layer["table"], dtype=np.int8)[a.astype(np.int64) + 128] if "table" in layer else np.zeros(a.shape, np.int8)
        stride, sample = max(b.shape[2] // a.shape[2], 1), max(a.shape[2] // b.shape[2], 1)
        c, h, w = (min(p, q) for p, q in zip(a.shape, b.shape))
        at = np.s_[:c, :(h - 1) * sample + 1:sample, :(w - 1) * sample + 1:sample]
        other = np.s_[:c, :(h - 1) * stride + 1:stride, :(w - 1) * stride + 1:stride]
        x, z, given = a[at].astype(np.int64), b[other].astype(np.int64), words(layer, ADD[kind], 7)
        if kind == "float32":
            given[3] = np.int32(out["zero_point"]).view(np.uint32)  # inside of the rounding; the codes themselves
        else:
            x, z = x - one, z - two
        y[at] = self.limit(layer["output"], reference.add(kind, x, z, given))
        return y

    # ---- the whole --------------------------------------------------------------------

    def run(self, values):
        """Codes of all tensors for one image"""
        codes = [self.quantize(values)]
        for layer in self.layers:
            codes.append(getattr(self, layer["kind"])(layer, *[codes[i] for i in layer["inputs"]]))
        return codes

    def dequantize(self, tensor, codes):
        t = self.tensors[tensor]
        return np.float32(t["scale"]) * (codes.astype(np.int32) - t["zero_point"]).astype(np.float32)

    def compare(self):
        """[(tensor's name, codes, codes that differ)] over all golden images; outputs as values likewise"""
        values = self.golden(self.manifest["input"]["golden"])
        runs = [self.run(image) for image in values]
        rows = []
        for i, tensor in enumerate(self.tensors):
            golden, own = self.golden(tensor["golden"]), np.stack([run[i] for run in runs])
            assert golden.shape == own.shape == (len(values), *tensor["shape"]), tensor["name"]
            rows.append((tensor["name"], own.size, int((golden != own).sum())))
        for i, output in enumerate(self.manifest["outputs"]):
            golden, own = self.golden(output["golden"]), np.stack([self.dequantize(output["tensor"], run[output["tensor"]]) for run in runs])
            rows.append((f"output {i}", own.size, int((golden != own).sum())))
        return rows


def main():
    rows = Bundle(sys.argv[1]).compare()
    for name, count, different in rows:
        print(f"{name:24} {count:9} codes, {different} differ")
    return any(different for _, _, different in rows)


if __name__ == "__main__":
    sys.exit(main())
