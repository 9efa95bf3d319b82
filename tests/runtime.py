"""The integer runtime through ctypes: its public functions, and the elements of kure_intmath.h over arrays."""
import ctypes

import numpy as np


class Error(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int), ("place", ctypes.c_char_p), ("index", ctypes.c_uint32), ("field", ctypes.c_char_p),
                ("value", ctypes.c_int64), ("least", ctypes.c_int64), ("most", ctypes.c_int64)]


class Library:
    def __init__(self, path):
        self.c = ctypes.CDLL(str(path))
        self.c.kure_runtime_arena_bytes.restype = ctypes.c_size_t
        self.c.kure_runtime_codes.restype = ctypes.POINTER(ctypes.c_int8)
        self.c.kure_runtime_codes.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32]
        self.c.kure_runtime_start.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
        self.c.kure_runtime_step.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32]
        self.c.kure_runtime_status_text.restype = ctypes.c_char_p
        self.c.kure_runtime_dequantize.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p]

    def elements(self, name, *arrays, result=np.int32):
        """A function of tests/unit/runtime_elements.c: arrays in, one out, the size last."""
        y = np.zeros(len(arrays[0]), dtype=result)
        arrays = [np.ascontiguousarray(a) for a in arrays]
        getattr(self.c, name)(*[a.ctypes.data_as(ctypes.c_void_p) for a in arrays], y.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(len(y)))
        return y

    def open(self, data):
        """(model, error): model is None unless the file is sound"""
        model, error = Model(self, data), Error()
        status = self.c.kure_runtime_open(model.address, model.data.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(len(data)),
                                          ctypes.byref(error))
        assert status == error.status
        return (None if status else model), error


class Model:
    def __init__(self, library, data):
        self.library = library
        self.data = np.frombuffer(bytearray(data) or bytearray(1), dtype=np.uint8)
        self.struct = (ctypes.c_uint64 * 16)()  # struct kure_model, with room to spare
        self.address = ctypes.cast(self.struct, ctypes.c_void_p)

    @property
    def arena_bytes(self):
        return self.library.c.kure_runtime_arena_bytes(self.address)

    def run(self, codes, shapes):
        """Codes of every tensor after the layer that writes it. shapes: [(channels, height, width)] of all tensors"""
        codes = np.ascontiguousarray(codes, dtype=np.int8)
        guard, size = 64, self.arena_bytes
        room = np.full(size + 2 * guard + 4, 0x5a, dtype=np.uint8)
        start = guard + -(room.ctypes.data + guard) % 4
        arena = room.ctypes.data + start
        assert self.library.c.kure_runtime_start(self.address, arena, size, codes.ctypes.data) == 0
        out = [self.codes(arena, 0, shapes[0])]
        for layer in range(len(shapes) - 1):
            self.library.c.kure_runtime_step(self.address, arena, layer)
            out.append(self.codes(arena, layer + 1, shapes[layer + 1]))
        assert (room[:start] == 0x5a).all() and (room[start + size:] == 0x5a).all(), "written outside of the arena"
        return out

    def codes(self, arena, tensor, shape):
        pointer = self.library.c.kure_runtime_codes(self.address, arena, tensor)
        return np.ctypeslib.as_array(pointer, shape=(int(np.prod(shape)),)).reshape(shape).copy()

    def quantize(self, x, n):
        x, codes = np.ascontiguousarray(x, dtype=np.float32), np.zeros(n, dtype=np.int8)
        self.library.c.kure_runtime_quantize(self.address, x.ctypes.data_as(ctypes.c_void_p), codes.ctypes.data_as(ctypes.c_void_p))
        return codes

    def pixels(self, x):
        x, codes = np.ascontiguousarray(x, dtype=np.uint8), np.zeros(x.size, dtype=np.int8)
        status = self.library.c.kure_runtime_pixels(self.address, x.ctypes.data_as(ctypes.c_void_p), codes.ctypes.data_as(ctypes.c_void_p))
        return status, codes

    def dequantize(self, tensor, codes):
        codes = np.ascontiguousarray(codes, dtype=np.int8)
        y = np.zeros(codes.shape, dtype=np.float32)
        self.library.c.kure_runtime_dequantize(self.address, tensor, codes.ctypes.data, y.ctypes.data)
        return y
