/*
 * check.c: what each kind of layer wants of its words, shapes and arrays.
 *
 * Whoever calls has seen to the tensors' own limits, to the input numbers, to words that are
 * not used, and that what moves codes keeps scale and zero point (open.c).
 *
 * Tested by tests/test_runtime_files.py.
 */
#include "kinds.h"

enum kure_runtime_status kure_check_fail(struct kure_check *c, enum kure_runtime_status status, const char *field, int64_t value, int64_t least,
                                         int64_t most)
{
    c->error->status = status;
    c->error->field = field;
    c->error->value = value;
    c->error->least = least;
    c->error->most = most;
    return status;
}

enum kure_runtime_status kure_check_range(struct kure_check *c, const char *field, int64_t value, int64_t least, int64_t most)
{
    return value >= least && value <= most ? KURE_RUNTIME_OK : kure_check_fail(c, KURE_RUNTIME_RANGE, field, value, least, most);
}

enum kure_runtime_status kure_check_shape(struct kure_check *c, const char *field, int64_t value, int64_t wanted)
{
    return value == wanted ? KURE_RUNTIME_OK : kure_check_fail(c, KURE_RUNTIME_SHAPE, field, value, wanted, wanted);
}

enum kure_runtime_status kure_check_array(struct kure_check *c, const char *field, uint32_t offset, uint64_t bytes)
{
    uint32_t all = c->model->file_bytes;
    if (offset >= KURE_MODEL_HEADER_BYTES && offset <= all && bytes <= all - offset) return KURE_RUNTIME_OK;
    return kure_check_fail(c, KURE_RUNTIME_OUTSIDE, field, offset, KURE_MODEL_HEADER_BYTES, bytes <= all ? (int64_t)(all - bytes) : 0);
}

/* Output shape c, h, w */
static enum kure_runtime_status check_output(struct kure_check *c, const struct kure_placed_layer *v, int64_t channels, int64_t height,
                                             int64_t width)
{
    KURE_TRY(kure_check_shape(c, "channels of the output", v->out.channels, channels));
    KURE_TRY(kure_check_shape(c, "height of the output", v->out.height, height));
    return kure_check_shape(c, "width of the output", v->out.width, width);
}

/* ---- words of the arithmetic ---------------------------------------------- */

static enum kure_runtime_status check_word(struct kure_check *c, const char *field, unsigned type, uint32_t word)
{
    int64_t least, most;
    if (kure_word_fits((enum kure_word_type)type, word, &least, &most)) return KURE_RUNTIME_OK;
    return kure_check_fail(c, KURE_RUNTIME_RANGE, field, least <= most ? kure_signed(word) : (int64_t)word, least, most);
}

static const char *const parameter_names[10] = {"parameter[0]", "parameter[1]", "parameter[2]", "parameter[3]", "parameter[4]",
                                                "parameter[5]", "parameter[6]", "parameter[7]", "parameter[8]", "parameter[9]"};

static enum kure_runtime_status check_parameters(struct kure_check *c, const struct kure_placed_layer *v, const unsigned char *types, int count)
{
    for (int i = 0; i < 10; i++) {
        KURE_TRY(check_word(c, parameter_names[i], i < count ? types[i] : KURE_WORD_ZERO, v->l.parameter[i]));
    }
    return KURE_RUNTIME_OK;
}

/* int8[256], all codes within those of the output */
static enum kure_runtime_status check_table(struct kure_check *c, const struct kure_placed_layer *v)
{
    KURE_TRY(kure_check_array(c, "table", v->l.table, 256));
    const int8_t *table = kure_array_codes(c->model, v->l.table);
    for (int i = 0; i < 256; i++) KURE_TRY(kure_check_range(c, "code of the table", table[i], v->out.low, v->out.high));
    return KURE_RUNTIME_OK;
}

/* ---- weights --------------------------------------------------------------- */

/* The largest magnitude that row r's sum, its bias included, can take on the way. */
static uint64_t largest_sum(const struct kure_model *m, const struct kure_placed_layer *v, uint32_t r)
{
    uint64_t sum = 0, first = (uint64_t)r * v->l.row;
    int32_t below = v->a.zero_point + 128, above = 127 - v->a.zero_point;
    if (v->l.weight_bits == 8) {
        const int8_t *w = kure_array_codes(m, v->l.weights) + first;
        for (uint32_t i = 0; i < v->l.row; i++) sum += (uint64_t)(w[i] < 0 ? -w[i] : w[i]);
    } else {
        for (uint32_t i = 0; i < v->l.row; i++) {
            int32_t w = kure_nibble(m->bytes + v->l.weights, (size_t)(first + i));
            sum += (uint64_t)(w < 0 ? -w : w);
        }
    }
    int32_t bias = v->l.biases ? kure_signed(kure_array_word(m, v->l.biases, r)) : 0;
    return sum * (uint64_t)(below > above ? below : above) + kure_magnitude(bias);
}

static enum kure_runtime_status check_weights(struct kure_check *c, const struct kure_placed_layer *v)
{
    const struct kure_arithmetic_row *arithmetic = &kure_arithmetic_rows[v->l.arithmetic];
    const struct kure_model *m = c->model;
    uint64_t count = (uint64_t)v->l.rows * v->l.row;
    if (v->l.weight_bits != 4) KURE_TRY(kure_check_range(c, "weight_bits", v->l.weight_bits, 8, 8));
    KURE_TRY(kure_check_array(c, "weights", v->l.weights, v->l.weight_bits == 8 ? count : (count + 1) / 2));
    if (v->l.weight_bits == 4 && count % 2) {
        KURE_TRY(kure_check_range(c, "unused half byte of the weights", m->bytes[v->l.weights + count / 2] >> 4, 0, 0));
    }
    if (!arithmetic->biases) KURE_TRY(kure_check_range(c, "biases", v->l.biases, 0, 0));
    if (v->l.biases) KURE_TRY(kure_check_array(c, "biases", v->l.biases, 4 * (uint64_t)v->l.rows));
    KURE_TRY(kure_check_array(c, "multipliers", v->l.multipliers, 8 * (uint64_t)v->l.rows));
    KURE_TRY(check_parameters(c, v, arithmetic->convolution, 4));
    for (uint32_t r = 0; r < v->l.rows; r++) {
        KURE_TRY(check_word(c, "first word of a row's multiplier", arithmetic->multiplier[0], kure_array_word(m, v->l.multipliers, 2 * r)));
        KURE_TRY(check_word(c, "second word of a row's multiplier", arithmetic->multiplier[1], kure_array_word(m, v->l.multipliers, 2 * r + 1)));
        uint64_t sum = largest_sum(m, v, r);
        if (sum > INT32_MAX) return kure_check_fail(c, KURE_RUNTIME_OVERFLOW, "row of weights", r, 0, INT32_MAX);
    }
    return KURE_RUNTIME_OK;
}

enum kure_runtime_status kure_convolution_check(struct kure_check *c, const struct kure_placed_layer *v)
{
    KURE_TRY(kure_check_range(c, "size", v->l.size, 1, KURE_MODEL_MOST_EDGE));
    KURE_TRY(kure_check_range(c, "stride", v->l.stride, 1, KURE_MODEL_MOST_EDGE));
    KURE_TRY(kure_check_range(c, "padding", v->l.padding, 0, KURE_MODEL_MOST_EDGE));
    KURE_TRY(kure_check_range(c, "groups", v->l.groups, 1, v->a.channels < v->out.channels ? v->a.channels : v->out.channels));
    KURE_TRY(kure_check_shape(c, "channels of the input beyond a multiple of groups", v->a.channels % v->l.groups, 0));
    KURE_TRY(kure_check_shape(c, "channels of the output beyond a multiple of groups", v->out.channels % v->l.groups, 0));
    int64_t around = 2 * (int64_t)v->l.padding, height = v->a.height + around - v->l.size, width = v->a.width + around - v->l.size;
    KURE_TRY(kure_check_range(c, "size", v->l.size, 1, (v->a.height < v->a.width ? v->a.height : v->a.width) + around));
    KURE_TRY(check_output(c, v, v->out.channels, height / v->l.stride + 1, width / v->l.stride + 1));
    uint64_t row = (uint64_t)(v->a.channels / v->l.groups) * v->l.size * v->l.size;
    KURE_TRY(kure_check_range(c, "weights of a row", (int64_t)row, 1, KURE_MODEL_MOST_ELEMENTS));
    return check_weights(c, v);
}

enum kure_runtime_status kure_connected_check(struct kure_check *c, const struct kure_placed_layer *v)
{
    KURE_TRY(check_output(c, v, v->out.channels, 1, 1));
    return check_weights(c, v);
}

/* ---- pools ------------------------------------------------------------------ */

enum kure_runtime_status kure_maxpool_check(struct kure_check *c, const struct kure_placed_layer *v)
{
    KURE_TRY(kure_check_range(c, "size", v->l.size, 1, KURE_MODEL_MOST_EDGE));
    KURE_TRY(kure_check_range(c, "stride", v->l.stride, 1, KURE_MODEL_MOST_EDGE));
    KURE_TRY(kure_check_range(c, "padding", v->l.padding, 0, 2 * (int64_t)v->l.size - 1)); /* the first window holds an element */
    uint32_t shorter = v->a.height < v->a.width ? v->a.height : v->a.width;
    KURE_TRY(kure_check_range(c, "size", v->l.size, 1, (int64_t)shorter + v->l.padding));
    int64_t size = v->l.size, stride = v->l.stride, padding = v->l.padding;
    int64_t down = (v->a.height + padding - size) / stride, right = (v->a.width + padding - size) / stride;
    KURE_TRY(check_output(c, v, v->a.channels, down + 1, right + 1));
    KURE_TRY(kure_check_range(c, "first row of the last window", down * stride - padding / 2, -padding, (int64_t)v->a.height - 1));
    return kure_check_range(c, "first column of the last window", right * stride - padding / 2, -padding, (int64_t)v->a.width - 1);
}

enum kure_runtime_status kure_average_pool_check(struct kure_check *c, const struct kure_placed_layer *v)
{
    const struct kure_arithmetic_row *arithmetic = &kure_arithmetic_rows[v->l.arithmetic];
    KURE_TRY(check_output(c, v, v->a.channels, 1, 1));
    KURE_TRY(kure_check_range(c, "elements of a channel", (int64_t)v->a.height * v->a.width, 1, 1 << 23));
    if (arithmetic->same_scale) {
        KURE_TRY(kure_check_shape(c, "scale of the output, as bits", v->out.scale_bits, v->a.scale_bits));
        KURE_TRY(kure_check_shape(c, "zero point of the output", v->out.zero_point, v->a.zero_point));
    }
    return check_parameters(c, v, arithmetic->average, 4);
}

/* ---- layers that move codes --------------------------------------------------- */

enum kure_runtime_status kure_upsample_check(struct kure_check *c, const struct kure_placed_layer *v)
{
    KURE_TRY(kure_check_range(c, "stride", v->l.stride, 1, KURE_MODEL_MOST_EDGE));
    return check_output(c, v, v->a.channels, (int64_t)v->a.height * v->l.stride, (int64_t)v->a.width * v->l.stride);
}

enum kure_runtime_status kure_reorg_check(struct kure_check *c, const struct kure_placed_layer *v)
{
    int64_t s = v->l.stride, mode = v->l.parameter[0];
    KURE_TRY(kure_check_range(c, "parameter[0]", mode, 0, KURE_REORGS - 1));
    if (mode >= KURE_REORG_FLATTEN) {
        KURE_TRY(kure_check_range(c, "stride", s, 1, 1));
        return kure_check_shape(c, "elements of the output", v->out.elements, v->a.elements);
    }
    KURE_TRY(kure_check_range(c, "stride", s, 1, 256));
    KURE_TRY(kure_check_shape(c, "channels of the input beyond a multiple of stride * stride", v->a.channels % (s * s), 0));
    if (mode == KURE_REORG_REVERSE) return check_output(c, v, v->a.channels / (s * s), v->a.height * s, v->a.width * s);
    KURE_TRY(kure_check_shape(c, "height of the input beyond a multiple of stride", v->a.height % s, 0));
    KURE_TRY(kure_check_shape(c, "width of the input beyond a multiple of stride", v->a.width % s, 0));
    return check_output(c, v, v->a.channels * s * s, v->a.height / s, v->a.width / s);
}

enum kure_runtime_status kure_concatenate_check(struct kure_check *c, const struct kure_placed_layer *v)
{
    int64_t elements = 0;
    for (uint32_t i = 0; i < v->l.input_count; i++) elements += kure_runtime_tensor(c->model, kure_runtime_input(c->model, &v->l, i)).elements;
    return kure_check_shape(c, "elements of the output", v->out.elements, elements);
}

enum kure_runtime_status kure_lookup_check(struct kure_check *c, const struct kure_placed_layer *v)
{
    KURE_TRY(check_output(c, v, v->a.channels, v->a.height, v->a.width));
    return check_table(c, v);
}

/* ---- addition ------------------------------------------------------------------ */

enum kure_runtime_status kure_add_check(struct kure_check *c, const struct kure_placed_layer *v)
{
    KURE_TRY(check_output(c, v, v->a.channels, v->a.height, v->a.width));
    KURE_TRY(kure_check_shape(c, "height of the second input over that of the first", v->b.height / v->a.height, v->b.width / v->a.width));
    KURE_TRY(kure_check_shape(c, "height of the first input over that of the second", v->a.height / v->b.height, v->a.width / v->b.width));
    int covered = v->b.channels >= v->a.channels && v->b.height >= v->a.height && v->b.width >= v->a.width;
    if (covered) KURE_TRY(kure_check_range(c, "table", v->l.table, 0, 0));
    else KURE_TRY(check_table(c, v));
    return check_parameters(c, v, kure_arithmetic_rows[v->l.arithmetic].add, 7);
}
