"""struct kure_integer_model of darknet-kure/export/model.h through ctypes, made of a network of export_models.py.

layout() is compared with what the C compiler says, so that a change of the header is seen."""
import ctypes as c

import numpy as np

import integer_reference as reference
import model_file

NAME = 24
ACTIVATIONS = ("linear", "relu", "relu6", "leaky", "other")
LOOKUPS = ("none", "activation", "requantize")


class Tensor(c.Structure):
    _fields_ = [("name", c.c_char * NAME), ("channels", c.c_int), ("height", c.c_int), ("width", c.c_int), ("scale", c.c_float),
                ("zero_point", c.c_int), ("low", c.c_int), ("high", c.c_int), ("bits", c.c_int), ("source", c.c_int)]


class Layer(c.Structure):
    _fields_ = [("kind", c.c_int), ("arithmetic", c.c_int), ("source", c.c_int), ("type", c.c_char_p), ("part", c.c_int), ("inputs", c.c_void_p),
                ("input_count", c.c_int), ("size", c.c_int), ("stride", c.c_int), ("padding", c.c_int), ("groups", c.c_int),
                ("rows", c.c_int), ("row", c.c_int), ("weight_bits", c.c_int), ("stored_bits", c.c_int), ("one_scale", c.c_int),
                ("codes", c.c_void_p), ("weight_scales", c.c_void_p), ("source_rows", c.c_void_p), ("master", c.c_void_p),
                ("factors", c.c_void_p), ("biases", c.c_void_p), ("bias_codes", c.c_void_p), ("multipliers", c.c_void_p),
                ("activation", c.c_int), ("activation_name", c.c_char_p), ("slope", c.c_float), ("lookup", c.c_int),
                ("alpha", c.c_float), ("beta", c.c_float), ("table", c.c_void_p), ("parameter", c.c_uint32 * 10)]


class Output(c.Structure):
    _fields_ = [("tensor", c.c_int), ("source", c.c_int), ("part", c.c_int), ("head_rows", c.c_int), ("head_boxes", c.c_int),
                ("decoder", c.c_int), ("decoder_type", c.c_char_p),
                ("anchors", c.c_void_p), ("anchor_count", c.c_int), ("classes", c.c_int), ("class_scores", c.c_char_p)]


class Golden(c.Structure):
    _fields_ = [("codes", c.POINTER(c.c_void_p))]


class Model(c.Structure):
    _fields_ = [("profile", c.c_char * NAME), ("cfg", c.c_char_p), ("weights", c.c_char_p), ("tensors", c.POINTER(Tensor)),
                ("layers", c.POINTER(Layer)), ("layer_count", c.c_int), ("outputs", c.POINTER(Output)), ("output_count", c.c_int),
                ("input_rounding", c.c_int), ("input_factor", c.c_float), ("pixels", c.c_int8 * 256), ("proofs", c.c_void_p),
                ("proof_count", c.c_int), ("notes", c.c_void_p), ("note_count", c.c_int), ("classes", c.POINTER(c.c_char_p)),
                ("class_count", c.c_int), ("golden", c.POINTER(Golden)), ("batchnorm_epsilon", c.c_float), ("file", c.c_void_p), ("file_bytes", c.c_size_t)]


class Error(c.Structure):
    _fields_ = [("text", c.c_char * 1024)]


def layout():
    """As tests/unit/export_layout.c has it"""
    return [c.sizeof(Tensor), c.sizeof(Layer), c.sizeof(Output), c.sizeof(Golden), c.sizeof(Model), Tensor.source.offset, Layer.codes.offset,
            Layer.activation.offset, Layer.parameter.offset, Output.decoder_type.offset, Model.pixels.offset, Model.golden.offset,
            Model.file.offset]


class Library:
    """libkure_export_test.so: the writers"""

    def __init__(self, path):
        self.c = c.CDLL(str(path))
        have = (c.c_size_t * len(layout())).in_dll(self.c, "kure_test_layout")
        assert list(have) == layout(), "tests/integer_model.py does not have the structs of export/model.h"

    def write(self, writer, model, folder):
        """The sentence of the error; None: written"""
        error, function = Error(), getattr(self.c, writer)
        function.argtypes = [c.c_void_p, c.c_char_p, c.c_void_p]
        status = function(c.byref(model.struct), str(folder).encode(), c.byref(error))
        assert bool(status) == bool(error.text)
        return error.text.decode() if status else None


class IntegerModel:
    """A network (random_models.Maker with the attributes of export_models.Network) as the C struct"""

    def __init__(self, network, outputs=None, golden=None):
        self.kept, layers = [], network.layers
        model_outputs = outputs or [len(layers)]
        tensors = (Tensor * len(network.tensors))()
        for i, t in enumerate(network.tensors):
            tensors[i] = Tensor(t.name.encode(), *t.shape, t.scale, t.zero_point, t.low, t.high, t.bits, i - 1)
        records = (Layer * len(layers))(*[self.layer(network, i, layer) for i, layer in enumerate(layers)])
        heads = (Output * len(model_outputs))(*[Output(t, t - 1, 0, 0, 0, -1, b"") for t in model_outputs])
        self.struct = Model(network.profile.encode(), b"net.cfg", b"net.weights", tensors, records, len(layers), heads, len(heads), 0,
                            1 / network.tensors[0].scale if network.profile == "ncnn" else network.tensors[0].scale)
        self.struct.pixels[:] = np.clip(np.rint(np.arange(256, dtype=np.float32) / np.float32(255) / network.tensors[0].scale)
                                        + network.tensors[0].zero_point, network.tensors[0].low, network.tensors[0].high).astype(int).tolist()
        self.struct.batchnorm_epsilon = 1e-5
        file = network.model(model_outputs).write()
        self.struct.file, self.struct.file_bytes = self.keep(np.frombuffer(file, dtype=np.uint8), np.uint8), len(file)
        if golden is not None:
            codes = (c.c_void_p * len(golden))(*[self.keep(g, np.int8) for g in golden])
            self.struct.golden = c.pointer(Golden(codes))
        self.kept += [tensors, records, heads]

    def keep(self, array, dtype):
        array = np.ascontiguousarray(array, dtype=dtype)
        self.kept.append(array)
        return array.ctypes.data

    def layer(self, network, number, layer):
        from_cfg = {"average_pool": "avgpool", "concatenate": "route", "add": "shortcut", "convolution": "convolutional"}
        record = Layer(model_file.KINDS.index(layer.kind), reference.ARITHMETICS.index(layer.arithmetic), number,
                       from_cfg.get(layer.kind, layer.kind).encode(), 0, self.keep(layer.inputs, np.int32), len(layer.inputs))
        for name in ("size", "stride", "padding", "groups"):
            setattr(record, name, layer.words.get(name, 0))
        record.activation_name, record.alpha, record.beta = layer.extra.get("activation", "linear").encode(), 1, 1
        record.activation = ACTIVATIONS.index(layer.extra.get("activation", "linear") if layer.extra.get("activation") in ACTIVATIONS + (None,) else "other")
        record.slope, record.lookup = layer.extra.get("slope", 0), LOOKUPS.index(layer.extra.get("lookup", "none"))
        record.parameter[:] = layer.parameter.tolist()
        if "table" in layer.arrays:
            record.table = self.keep(layer.arrays["table"], np.int8)
        if "weights" in layer.arrays:
            weights = layer.arrays["weights"]
            record.rows, record.row = weights.shape
            record.weight_bits, record.stored_bits, record.one_scale = layer.extra["weight_bits"], layer.words["weight_bits"], layer.extra["one_scale"]
            record.codes, record.weight_scales = self.keep(weights, np.int8), self.keep(layer.extra["weight_scales"], np.float32)
            record.master = self.keep(weights * layer.extra["weight_scales"][:, None], np.float32)
            record.factors, record.biases = self.keep(np.ones(len(weights)), np.float32), self.keep(layer.extra["biases"], np.float32)
            if "biases" in layer.arrays:
                record.bias_codes = self.keep(layer.arrays["biases"], np.int32)
            record.multipliers = self.keep(layer.arrays["multipliers"], np.uint32)
        return record
