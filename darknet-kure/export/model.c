/* model.c: see model.h. */
#include "model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kure_math.h"

void kure_integer_folded_row(const struct kure_integer_layer *layer, int r, float *out)
{
    size_t k = (size_t)layer->row, row = (size_t)(layer->source_rows ? layer->source_rows[r] : r);
    const float *w = layer->master + row * k;
    for (size_t i = 0; i < k; ++i) out[i] = kure_flush_result(kure_flush(w[i]) * layer->factors[r]);
}

void kure_integer_quantized_row(const struct kure_integer_layer *layer, int r, float *out)
{
    const int8_t *codes = layer->codes + (size_t)r * (size_t)layer->row;
    for (int i = 0; i < layer->row; ++i) out[i] = layer->weight_scales[r] * (float)codes[i];
}

int kure_integer_input_code(const struct kure_integer_model *m, float x)
{
    const struct kure_integer_tensor *t = &m->tensors[0];
    float quotient = m->input_rounding == KURE_INPUT_MULTIPLIED_HALF_AWAY ? x * m->input_factor : x / m->input_factor;
    double rounded = m->input_rounding == KURE_INPUT_DIVIDED_HALF_EVEN ? rint((double)quotient)
                     : m->input_rounding == KURE_INPUT_DIVIDED_HALF_UP ? floor((double)quotient + 0.5)
                                                                       : round((double)quotient);
    double code = rounded + t->zero_point;
    return code < t->low ? t->low : code > t->high ? t->high : (int)code;
}

static void free_layer(struct kure_integer_layer *l)
{
    free(l->inputs);
    free(l->codes);
    free(l->weight_scales);
    free(l->source_rows);
    free(l->factors);
    free(l->biases);
    free(l->bias_codes);
    free(l->multipliers);
    free(l->table);
}

void kure_integer_free(struct kure_integer_model *m)
{
    for (int i = 0; i < m->layer_count; ++i) free_layer(&m->layers[i]);
    free(m->layers);
    free(m->tensors);
    free(m->outputs);
    free(m->proofs);
    free(m->notes);
    free(m->file);
    memset(m, 0, sizeof *m);
}
