/* proof.c: see proof.h. Tested by tests/test_export.py against exact sums. */
#include "proof.h"

#include <stdlib.h>

#include "error.h"

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* One row: the smallest and the largest sum, every order of its terms, every pair of products. */
static void add_row(const struct kure_integer_layer *l, const struct kure_integer_tensor *in, int r, struct kure_integer_proof *p)
{
    const int8_t *w = l->codes + (size_t)r * (size_t)l->row;
    int64_t low = in->low - in->zero_point, high = in->high - in->zero_point; /* of x; padding is 0 */
    int64_t bias = l->bias_codes ? l->bias_codes[r] : 0, below = 0, above = 0;
    int64_t first = 0, second = 0, first_negative = 0, second_negative = 0; /* the two largest weights on each side */
    if (low > 0) low = 0;
    if (high < 0) high = 0;
    for (int i = 0; i < l->row; ++i) {
        below += w[i] < 0 ? w[i] * high : w[i] * low;
        above += w[i] < 0 ? w[i] * low : w[i] * high;
        if (w[i] > first) {
            second = first;
            first = w[i];
        } else if (w[i] > second) {
            second = w[i];
        }
        if (-w[i] > first_negative) {
            second_negative = first_negative;
            first_negative = -w[i];
        } else if (-w[i] > second_negative) {
            second_negative = -w[i];
        }
    }
    int64_t pair = larger(first + second, first_negative + second_negative) * (in->high + 128); /* x as uint8 */
    p->accumulator_low = p->accumulator_low < below + bias ? p->accumulator_low : below + bias;
    p->accumulator_high = larger(p->accumulator_high, above + bias);
    p->accumulator_partial = larger(p->accumulator_partial, larger(above + larger(bias, 0), -below + larger(-bias, 0)));
    p->pair_high = larger(p->pair_high, pair);
    p->bias_high = larger(p->bias_high, bias < 0 ? -bias : bias);
}

static int bits_of(int64_t magnitude)
{
    int bits = 1;
    while (magnitude >> (bits - 1)) ++bits;
    return bits;
}

/* What the runtime wants of a row, whatever the codes of the input: kure_runtime_open. */
static int64_t runtime_sum(const struct kure_integer_layer *l, const struct kure_integer_tensor *in, int r)
{
    const int8_t *w = l->codes + (size_t)r * (size_t)l->row;
    int64_t sum = 0, most = larger(in->zero_point + 128, 127 - in->zero_point), bias = l->bias_codes ? l->bias_codes[r] : 0;
    for (int i = 0; i < l->row; ++i) sum += w[i] < 0 ? -w[i] : w[i];
    return sum * most + (bias < 0 ? -bias : bias);
}

static enum kure_status prove_layer(struct kure_builder *b, int number, struct kure_integer_proof *p)
{
    const struct kure_integer_layer *l = &b->model->layers[number];
    const struct kure_integer_tensor *in = &b->model->tensors[l->inputs[0]];
    b->layer = l->source;
    *p = (struct kure_integer_proof){.layer = number, .accumulator_low = INT64_MAX, .accumulator_high = INT64_MIN};
    for (int r = 0; r < l->rows; ++r) {
        int64_t sum = runtime_sum(l, in, r);
        if (sum > INT32_MAX) {
            return kure_builder_fail(b, "row %d: the sum of its %d products can reach %lld, int32 holds 2147483647: use fewer weight_bits, or groups",
                                     l->source_rows ? l->source_rows[r] : r, l->row, (long long)sum);
        }
        add_row(l, in, r, p);
    }
    p->accumulator_bits = bits_of(p->accumulator_partial);
    p->fits_pair = p->pair_high <= INT16_MAX;
    p->fits_float = p->accumulator_partial <= 1 << 24;
    return KURE_OK;
}

enum kure_status kure_integer_prove(struct kure_builder *b)
{
    struct kure_integer_model *m = b->model;
    enum kure_status status = KURE_OK;
    m->proofs = calloc((size_t)m->layer_count, sizeof *m->proofs);
    if (!m->proofs) return kure_fail_memory(b->error);
    for (int i = 0; status == KURE_OK && i < m->layer_count; ++i) {
        if (m->layers[i].rows) status = prove_layer(b, i, &m->proofs[m->proof_count++]);
    }
    return status;
}
