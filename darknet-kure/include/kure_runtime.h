/*
 * kure_runtime.h: integer models: the file model.kure and the runtime that runs it.
 *
 * The runtime is C99 without floating-point arithmetic, needs no library beyond memcpy and
 * memset, allocates nothing, and reads the file where it lies, in flash if need be. It is
 * the definition of what an exported model computes: the same codes on every machine.
 *
 *     struct kure_model model;
 *     struct kure_runtime_error error;
 *     if (kure_runtime_open(&model, file, file_bytes, &error) != KURE_RUNTIME_OK) ...
 *     void *arena = ...;                            // kure_runtime_arena_bytes(&model) of them
 *     kure_runtime_pixels(&model, image, input);    // or kure_runtime_quantize
 *     kure_runtime_run(&model, arena, arena_bytes, input);
 *     const int8_t *codes = kure_runtime_codes(&model, arena, kure_runtime_output(&model, 0));
 *
 * ---- the file ---------------------------------------------------------------
 *
 * One flat block, everything little-endian. An offset counts bytes from the start of the
 * file; nothing is aligned by force, a writer aligns what it writes to 4 bytes. float32
 * stands as its 32 bits. Arrays may lie in any order behind the header, and may be shared.
 *
 *   header               KURE_MODEL_HEADER_BYTES
 *     bytes 0..7         4b 55 52 45 0d 0a 1a 0a: "KURE", and what a transfer as text would damage
 *     bytes 8..71        16 words (32 bits), enum kure_header_word
 *     bytes 72..95       name of the profile, text padded with zeros, the last byte is 0
 *   tensors              layer_count + 1 records of KURE_MODEL_TENSOR_BYTES
 *     bytes 0..39        10 words, enum kure_tensor_word
 *     bytes 40..63       name, text padded with zeros, the last byte is 0
 *   layers               layer_count records of KURE_MODEL_LAYER_BYTES: 24 words, enum kure_layer_word
 *   outputs              output_count words: numbers of tensors
 *   arrays of the layers
 *
 * Tensor 0 is the input; layer i writes tensor i + 1. A tensor holds int8 codes, one image,
 * [channels][height][width]; the value of a code c is scale * (c - zero_point). All codes
 * that a layer writes lie in low..high of its output: relu and relu6 are such limits.
 *
 * checksum: CRC-32 of bytes 16 to the end (polynomial 0xedb88320, reflected, start and
 * final xor 0xffffffff, as zlib, PNG and Ethernet).
 *
 * A file of a newer version is refused by its number; version, file_bytes and checksum
 * keep their places in every version. Words that a layer does not use must be 0.
 */
#ifndef KURE_RUNTIME_H
#define KURE_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KURE_RUNTIME_CHECKED __attribute__((warn_unused_result))
#else
#define KURE_RUNTIME_CHECKED
#endif

#define KURE_MODEL_MAGIC "KURE\r\n\x1a\n"
enum { KURE_MODEL_VERSION = 1, KURE_MODEL_HEADER_BYTES = 96, KURE_MODEL_TENSOR_BYTES = 64, KURE_MODEL_LAYER_BYTES = 96 };

/* Limits of the format. Every count below is also limited by what the file holds. */
enum {
    KURE_MODEL_MOST_LAYERS = 4096,
    KURE_MODEL_MOST_EDGE = 65535,          /* channels, height, width, size, stride, padding, groups */
    KURE_MODEL_MOST_ELEMENTS = 1 << 28,    /* of a tensor */
    KURE_MODEL_MOST_BYTES = 0x7fffffff,    /* of a file; of the arena's activations */
    KURE_MODEL_LEAST_EXPONENT = -80,       /* magnitudes of float32 numbers: 0 where that is said, else 2^-80 .. 2^80 */
    KURE_MODEL_MOST_EXPONENT = 80,
    KURE_MODEL_LEAST_SLOPE_EXPONENT = -20, /* a slope: 0, or 2^-20 .. 2^20 */
    KURE_MODEL_MOST_SLOPE_EXPONENT = 20,
};

enum kure_header_word {
    KURE_HEADER_VERSION,
    KURE_HEADER_CHECKSUM,
    KURE_HEADER_FILE_BYTES,
    KURE_HEADER_LAYER_COUNT,    /* 1 .. KURE_MODEL_MOST_LAYERS */
    KURE_HEADER_TENSORS,        /* offset */
    KURE_HEADER_LAYERS,         /* offset */
    KURE_HEADER_OUTPUTS,        /* offset */
    KURE_HEADER_OUTPUT_COUNT,   /* 1 .. layer_count */
    KURE_HEADER_ARENA_BYTES,    /* that the tensors take, by their places; the runtime adds working space of its own */
    KURE_HEADER_INPUT_ROUNDING, /* enum kure_input_rounding: how values become codes of tensor 0 */
    KURE_HEADER_INPUT_FACTOR,   /* float32: what the value is divided or multiplied by */
    KURE_HEADER_PIXEL_TABLE,    /* offset of int8[256]: the code of each pixel 0..255; 0: none */
    KURE_HEADER_UNUSED_12, KURE_HEADER_UNUSED_13, KURE_HEADER_UNUSED_14, KURE_HEADER_UNUSED_15,
    KURE_HEADER_WORDS
};

/* code = clamp(round(x / factor) + zero_point), or x * factor, in float32 */
enum kure_input_rounding {
    KURE_INPUT_DIVIDED_HALF_EVEN,    /* factor is the scale of tensor 0: ONNX, TensorRT */
    KURE_INPUT_DIVIDED_HALF_AWAY,    /* TensorFlow Lite, CMSIS-NN, pow2 */
    KURE_INPUT_DIVIDED_HALF_UP,
    KURE_INPUT_MULTIPLIED_HALF_AWAY, /* ncnn: factor is ncnn's scale, 1 / that of tensor 0 */
    KURE_INPUT_ROUNDINGS
};

enum kure_tensor_word {
    KURE_TENSOR_CHANNELS, KURE_TENSOR_HEIGHT, KURE_TENSOR_WIDTH, /* 1 .. KURE_MODEL_MOST_EDGE */
    KURE_TENSOR_PLACE,       /* first byte in the arena; place + elements <= arena_bytes */
    KURE_TENSOR_SCALE,       /* float32, > 0 */
    KURE_TENSOR_ZERO_POINT,  /* signed, in -128 .. 127 */
    KURE_TENSOR_LOW,         /* signed, -128 .. high */
    KURE_TENSOR_HIGH,        /* signed, low .. 127 */
    KURE_TENSOR_BITS,        /* 2 .. 8: of the quantizer; low..high lie in its range */
    KURE_TENSOR_LAST_READER, /* the last layer that reads it, its own writer if none does; layer_count: an output, kept to the end */
    KURE_TENSOR_WORDS
};
/* Two tensors may lie on the same bytes if one is written after the last reader of the
 * other. The output of that last reader itself may take the place of its first input if the
 * layer is a LOOKUP, or an ADD of inputs of one shape, and both begin at the same byte. */

enum kure_layer_word {
    KURE_LAYER_KIND,        /* enum kure_model_kind */
    KURE_LAYER_SOURCE,      /* number of the layer in the cfg that it comes from */
    KURE_LAYER_ARITHMETIC,  /* enum kure_arithmetic */
    KURE_LAYER_INPUT_COUNT,
    KURE_LAYER_INPUTS,      /* offset of input_count words: numbers of tensors, none behind this layer's number */
    KURE_LAYER_SIZE, KURE_LAYER_STRIDE, KURE_LAYER_PADDING, KURE_LAYER_GROUPS,
    KURE_LAYER_WEIGHT_BITS, /* 8: int8; 4: packed int4 */
    KURE_LAYER_WEIGHTS,     /* offset */
    KURE_LAYER_BIASES,      /* offset of int32[rows]; 0: none */
    KURE_LAYER_MULTIPLIERS, /* offset of [rows][2] words */
    KURE_LAYER_TABLE,       /* offset of int8[256] */
    KURE_LAYER_PARAMETER,   /* the first of 10 */
    KURE_LAYER_WORDS = KURE_LAYER_PARAMETER + 10
};

/*
 * Layers. in, out: the shapes of input and output; a shape that does not follow is refused.
 *
 * CONVOLUTION  one input. size, stride, padding (zeros on each side), groups; in.channels
 *   and out.channels are multiples of groups; out.height = (in.height + 2 padding - size)
 *   / stride + 1, width likewise. Row r of the weights is [in.channels/groups][size][size].
 *   accumulator[r] = bias[r] + sum of w * (x - zero_point_in), int32; padding adds 0.
 *   y = clamp(requantize(accumulator) + zero_point_out).
 * CONNECTED    the same with a row of all input elements; out is [rows][1][1].
 *   Of both, rows = out.channels. Weights of 8 bits: int8[rows][row]. Weights of 4 bits: codes
 *   -8..7, two in a byte, the first in the low half, rows one after another without padding, so
 *   that an odd row ends in the middle of a byte: 1, -2, 3 is e1 03. An unused half byte is 0.
 *   Lower weight bits use the codes of 4 bits, 5 to 7 those of 8.
 * MAXPOOL      size, stride, padding in all: the window of output i begins at i * stride -
 *   padding/2 and takes what lies inside; out.height = (in.height + padding - size)/stride + 1.
 * AVERAGE_POOL out is [in.channels][1][1]: the mean of each channel, by `arithmetic`.
 * UPSAMPLE     stride: every element becomes stride * stride of them.
 * REORG        stride and parameter[0], enum kure_reorg: Darknet's order of elements.
 * CONCATENATE  1 .. KURE_MODEL_MOST_LAYERS inputs, one after another; any out of as many elements.
 * LOOKUP       one input. table[x + 128]: an activation between two quantizers, another
 *   scale, another zero point.
 * ADD          two inputs, a and b; out has the shape of a. Darknet's shortcut: with
 *   stride = max(1, b.width/a.width) and sample = max(1, a.width/b.width), the same for
 *   heights, elements [k][j*sample][i*sample] of a and [k][j*stride][i*stride] of b are
 *   added for all [k][j][i] inside both shapes; the other elements of a go through table,
 *   which is 0 (absent) if there are none.
 *
 * MAXPOOL, UPSAMPLE, REORG and CONCATENATE move codes as they are: scale and zero point of
 * inputs and output are equal, and low..high of the output holds those of the inputs.
 */
enum kure_model_kind {
    KURE_KIND_CONVOLUTION = 1, KURE_KIND_CONNECTED, KURE_KIND_MAXPOOL, KURE_KIND_AVERAGE_POOL, KURE_KIND_UPSAMPLE,
    KURE_KIND_REORG, KURE_KIND_CONCATENATE, KURE_KIND_LOOKUP, KURE_KIND_ADD,
    KURE_KINDS
};

enum kure_reorg {
    KURE_REORG_FORWARD,   /* [c][h][w] -> [c*s*s][h/s][w/s]; blas.c, reorg_cpu(x, w, h, c, 1, s, 0, y): the elements of */
                          /* x, seen as [c/(s*s)][h*s][w*s], in the order of y, seen as [c][h][w] */
    KURE_REORG_REVERSE,   /* [c][h][w] -> [c/(s*s)][h*s][w*s]; reorg_cpu(..., 1, y) */
    KURE_REORG_FLATTEN,   /* [c][h*w] -> [h*w][c], out of any shape; stride 1 */
    KURE_REORG_UNFLATTEN, /* its inverse */
    KURE_REORGS
};

/*
 * Arithmetic: how an accumulator, a sum or a mean becomes a code. math/kure_intmath.h holds
 * each to the bit, and names the runtime's source file that it follows. Then the zero point
 * is added, and the code is clamped to low..high. multipliers[r] of CONVOLUTION and CONNECTED,
 * parameter[0..1] of AVERAGE_POOL are the two words m0, m1:
 *
 *                       m0                      m1
 *   FLOAT32             scale, float32, >= 0    0
 *   FLOAT32_MULTIPLIED  scale, float32, >= 0    bias, float32 (biases is 0; AVERAGE_POOL: 0)
 *   FLOAT32_DIVIDED     the same
 *   DOUBLE_ROUNDING     multiplier, 0 .. 2^31-1 shift, signed, -31 .. 30: x * multiplier * 2^(shift-31)
 *   SINGLE_ROUNDING     the same
 *   SHIFT_HALF_UP       0                       shift, signed, -30 .. 62: x * 2^-shift
 *   SHIFT_HALF_AWAY     the same
 *
 * and of the FLOAT32_MULTIPLIED and _DIVIDED ones, parameter[2] = slope (float32; 1: linear) and
 * parameter[3] = last (float32, > 0): v = float32(x) * scale + bias; v > 0 ? v : v * slope;
 * v * last or v / last.
 *
 * AVERAGE_POOL, x = sum of (code - zero_point_in), n = height * width <= 2^23:
 *   FLOAT32: x, scale = scale_in / (scale_out * float32(n)): QLinearGlobalAveragePool
 *   FLOAT32_MULTIPLIED, _DIVIDED: the same as above, scale = scale_in / n. (ncnn adds floats
 *     one by one, in an order that depends on the machine; this is their exact sum.)
 *   DOUBLE_ROUNDING, SINGLE_ROUNDING: AVERAGE_POOL_2D, arm_avgpool_s8: the mean of the codes
 *     themselves, ties away from zero. scale and zero point of input and output are equal;
 *     parameter[0..1] = 0.
 *   SHIFT_*: x / n * 2^-m1, -24 <= m1 <= 24, exact before the one rounding
 *
 * ADD, parameter[0..]:
 *   FLOAT32             ratio_a, ratio_b, fixed: scale_a / scale_out, scale_b / scale_out, zero_point_out -
 *                       (ratio_a * zero_point_a + ratio_b * zero_point_b): QLinearAdd on x86 with FMA; |ratio| <= 2^20,
 *                       |fixed| <= 2^30
 *   FLOAT32_MULTIPLIED  step_a, step_b, slope, last: v = a * step_a + b * step_b, without zero points
 *   FLOAT32_DIVIDED     the same
 *   DOUBLE_ROUNDING     multiplier_a, shift_a, multiplier_b, shift_b, multiplier, shift (-31 .. 0), left (0 .. 20)
 *   SINGLE_ROUNDING     the same
 *   SHIFT_*             left_a, left_b (0 .. 22), shift (-30 .. 62): (a * 2^left_a + b * 2^left_b) * 2^-shift
 * Ratios, steps and fixed are float32 and may be negative (shortcut with alpha or beta);
 * fixed may be 0.
 *
 * Other kinds have arithmetic 0.
 */
enum kure_arithmetic {
    KURE_ARITHMETIC_NONE, KURE_ARITHMETIC_FLOAT32, KURE_ARITHMETIC_FLOAT32_MULTIPLIED, KURE_ARITHMETIC_FLOAT32_DIVIDED,
    KURE_ARITHMETIC_DOUBLE_ROUNDING, KURE_ARITHMETIC_SINGLE_ROUNDING, KURE_ARITHMETIC_SHIFT_HALF_UP, KURE_ARITHMETIC_SHIFT_HALF_AWAY,
    KURE_ARITHMETICS
};

/* ---- the runtime ------------------------------------------------------------ */

enum kure_runtime_status {
    KURE_RUNTIME_OK,
    KURE_RUNTIME_NOT_A_MODEL, /* the first bytes are not those of a model */
    KURE_RUNTIME_NEWER,       /* a version that this runtime does not know */
    KURE_RUNTIME_CUT,         /* fewer or more bytes than the header says */
    KURE_RUNTIME_CHECKSUM,    /* bytes were changed */
    KURE_RUNTIME_RANGE,       /* a field outside its limits */
    KURE_RUNTIME_OUTSIDE,     /* an array that does not lie in the file, or a tensor not in the arena */
    KURE_RUNTIME_SHAPE,       /* shapes that do not follow from each other */
    KURE_RUNTIME_ORDER,       /* a tensor read before it is written, or after its bytes were taken */
    KURE_RUNTIME_OVERFLOW,    /* weights whose sums may leave int32 */
    KURE_RUNTIME_ARENA,       /* an arena that is too small, or not aligned to 4 bytes */
    KURE_RUNTIME_NO_PIXELS,   /* the model has no table of pixels */
    KURE_RUNTIME_STATUSES
};

/* Where a file is wrong. Texts are static. field: NULL where there is none. value is
 * outside least..most where status is RANGE or SHAPE. */
struct kure_runtime_error {
    enum kure_runtime_status status;
    const char *place; /* "header", "tensor", "layer", "output" */
    uint32_t index;    /* of the tensor, layer or output */
    const char *field;
    int64_t value, least, most;
};

/* "the file is damaged: its checksum does not fit"; static, without a full stop */
const char *kure_runtime_status_text(enum kure_runtime_status status);
const char *kure_model_kind_name(enum kure_model_kind kind);           /* "convolution"; "?" beyond the last */
const char *kure_arithmetic_name(enum kure_arithmetic arithmetic);    /* "double_rounding" */

/* A file that was checked. Filled by kure_runtime_open; to be read only. */
struct kure_model {
    const uint8_t *bytes; /* the file, borrowed: must stay as it is while the model is in use */
    uint32_t file_bytes, layer_count, output_count;
    uint32_t tensors, layers, outputs; /* offsets */
    uint32_t activation_bytes;         /* of the arena */
    uint32_t work_bytes;               /* behind them: the largest layer's working space */
};

struct kure_model_tensor {
    const char *name; /* in the file */
    uint32_t channels, height, width, elements, place, last_reader;
    float scale;
    uint32_t scale_bits; /* the bits of scale */
    int32_t zero_point, low, high, bits;
};

struct kure_model_layer {
    enum kure_model_kind kind;
    enum kure_arithmetic arithmetic;
    uint32_t number, source, input_count, size, stride, padding, groups, weight_bits;
    uint32_t inputs, weights, biases, multipliers, table; /* offsets */
    uint32_t parameter[10];
    uint32_t rows, row; /* of weights; 0 where there are none */
};

/* Checks every count, offset and number of a file, reads all of it once, keeps no memory.
 * After KURE_RUNTIME_OK no other function can read or write outside the file and the arena,
 * whatever the file says, and no accumulator can leave int32.
 *   model  [out]: unspecified after an error
 *   bytes  [in]: [size], any alignment; borrowed as long as the model is in use
 *   error  [out]: what is wrong; may be NULL
 * Returns any status up to KURE_RUNTIME_OVERFLOW. */
KURE_RUNTIME_CHECKED enum kure_runtime_status kure_runtime_open(struct kure_model *model, const void *bytes, size_t size,
                                                                struct kure_runtime_error *error);

/* Bytes of the arena that a run needs, activations and working space. */
size_t kure_runtime_arena_bytes(const struct kure_model *model);

/* Tensor 0 .. layer_count, layer 0 .. layer_count - 1. */
struct kure_model_tensor kure_runtime_tensor(const struct kure_model *model, uint32_t tensor);
struct kure_model_layer kure_runtime_layer(const struct kure_model *model, uint32_t layer);
/* Number of the tensor that is input i of the layer, i < input_count */
uint32_t kure_runtime_input(const struct kure_model *model, const struct kure_model_layer *layer, uint32_t i);
/* Number of the tensor that is output i of the model, i < output_count */
uint32_t kure_runtime_output(const struct kure_model *model, uint32_t i);
/* Name of the profile, in the file */
const char *kure_runtime_profile(const struct kure_model *model);

/* Values to codes of tensor 0, as the profile rounds them; NaN becomes the zero point,
 * what lies beyond low..high the nearest of them; subnormal values count as 0.
 *   x      [in]: elements of tensor 0, [channels][height][width]
 *   codes  [out]: as many */
void kure_runtime_quantize(const struct kure_model *model, const float *x, int8_t *codes);

/* The same of pixels, whose value is pixel/255. KURE_RUNTIME_NO_PIXELS: no table. */
KURE_RUNTIME_CHECKED enum kure_runtime_status kure_runtime_pixels(const struct kure_model *model, const uint8_t *x, int8_t *codes);

/* y = scale * (code - zero_point) of a tensor, in float32.
 *   codes  [in], y [out]: elements of the tensor */
void kure_runtime_dequantize(const struct kure_model *model, uint32_t tensor, const int8_t *codes, float *y);

/* Runs all layers on one image.
 *   arena  [in, out]: [arena_bytes], aligned to 4 bytes; what it holds before does not matter
 *   input  [in]: codes of tensor 0; those beyond its low..high are clamped
 * KURE_RUNTIME_ARENA: arena_bytes below kure_runtime_arena_bytes, or not aligned. */
KURE_RUNTIME_CHECKED enum kure_runtime_status kure_runtime_run(const struct kure_model *model, void *arena, size_t arena_bytes,
                                                               const int8_t *input);

/* The same in steps, to look at every tensor: start puts the input in its place, then
 * step runs layer 0, 1, ... layer_count - 1, each once. After step(i) the codes of tensor
 * i + 1 lie where kure_runtime_codes says, until after its last reader. */
KURE_RUNTIME_CHECKED enum kure_runtime_status kure_runtime_start(const struct kure_model *model, void *arena, size_t arena_bytes,
                                                                 const int8_t *input);
void kure_runtime_step(const struct kure_model *model, void *arena, uint32_t layer);
const int8_t *kure_runtime_codes(const struct kure_model *model, const void *arena, uint32_t tensor);

#ifdef __cplusplus
}
#endif
#endif
