/* network_quantize.c: the weights of a network replaced by their quantized values. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate.h"
#ifdef GPU
#include "connected_layer.h"
#include "convolutional_layer.h"
#endif

struct kure_float_weights {
    network *net;
    float **weights; /* [net->n] copies, NULL where a layer has none that are quantized */
    float *scratch;  /* the largest tensor, for folding */
};

static size_t weight_count(const struct kure_plan_row *row)
{
    int quantized = row->weights == KURE_WEIGHTS_CONVOLUTIONAL || row->weights == KURE_WEIGHTS_CONNECTED;
    return quantized ? row->rows * row->row_length : 0;
}

static const struct kure_plan_row *row_of(const network *net, int i)
{
    return &((const struct kure_network *)net->kure)->plan.rows[i];
}

static void push_weights(const layer *l)
{
#ifdef GPU
    if (gpu_index < 0) return;
    if (l->type == CONVOLUTIONAL) push_convolutional_layer(*l);
    if (l->type == CONNECTED) push_connected_layer(*l);
#else
    (void)l;
#endif
}

struct kure_float_weights *kure_float_weights_keep(network *net)
{
    struct kure_float_weights *kept = calloc(1, sizeof *kept);
    size_t largest = 1;
    if (kept) kept->weights = calloc((size_t)net->n, sizeof *kept->weights);
    int ok = kept && kept->weights;
    for (int i = 0; ok && i < net->n; ++i) {
        size_t n = weight_count(row_of(net, i));
        if (n == 0) continue;
        if (n > largest) largest = n;
        kept->weights[i] = malloc(n * sizeof(float));
        ok = kept->weights[i] != NULL;
        if (ok) memcpy(kept->weights[i], net->layers[i].weights, n * sizeof(float));
    }
    if (ok) kept->scratch = malloc(largest * sizeof(float));
    if (!ok || !kept->scratch) kure_stop(&(struct kure_error){"not enough memory for a copy of the weights"});
    kept->net = net;
    return kept;
}

void kure_float_weights_restore(struct kure_float_weights *kept)
{
    for (int i = 0; i < kept->net->n; ++i) {
        if (!kept->weights[i]) continue;
        memcpy(kept->net->layers[i].weights, kept->weights[i], weight_count(row_of(kept->net, i)) * sizeof(float));
        push_weights(&kept->net->layers[i]);
    }
}

void kure_float_weights_free(struct kure_float_weights *kept)
{
    for (int i = 0; i < kept->net->n; ++i) free(kept->weights[i]);
    free(kept->weights);
    free(kept->scratch);
    free(kept);
}

void kure_report_float_layers(const network *net)
{
    const char *gap = "not quantized: layers of these kinds stay float: ";
    for (int i = 0; i < net->n; ++i) {
        const struct kure_plan_row *row = row_of(net, i);
        if (row->weights != KURE_WEIGHTS_OTHER) continue;
        fprintf(stderr, "%s%d [%s]", gap, i, row->type);
        gap = ", ";
    }
    if (gap[0] == ',') fprintf(stderr, "\n");
}

static int bits_of(const struct kure_plan_row *row, const struct kure_point *point)
{
    if (point->weights.bits == 0) return 0;
    return row->reads_input ? point->first_bits : row->feeds_head ? point->last_bits : point->weights.bits;
}

double kure_quantize_network(struct kure_float_weights *kept, const struct kure_point *point)
{
    double inner = 0, outer = 0; /* sums of dB */
    int inner_count = 0, outer_count = 0;
    kure_float_weights_restore(kept);
    for (int i = 0; i < kept->net->n; ++i) {
        const struct kure_plan_row *row = row_of(kept->net, i);
        int bits = bits_of(row, point);
        if (!kept->weights[i] || bits == 0) continue;
        struct kure_quantizer q = point->weights;
        q.bits = bits;
        struct kure_tensor t = kure_tensor_of(&kept->net->layers[i], kept->scratch);
        struct kure_quantization result;
        struct kure_error error;
        const struct kure_noise noise = {0, (uint64_t)i, 0};
        if (kure_quantize_tensor(&t, &q, point->fold, &noise, &result, &error) != KURE_OK) kure_stop(&error);
        push_weights(&kept->net->layers[i]);
        double sqnr = 10 * log10(result.signal / result.noise);
        if (row->reads_input || row->feeds_head) {
            outer += sqnr;
            ++outer_count;
        } else {
            inner += sqnr;
            ++inner_count;
        }
    }
    return inner_count ? inner / inner_count : outer_count ? outer / outer_count : NAN;
}
