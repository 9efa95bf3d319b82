/* bit_budget.c: see bit_budget.h. Tested by tests/unit/test_bit_budget.c. */
#include "bit_budget.h"

#include <math.h>

/* What layer i costs at width w: the most of this and any larger width, and at least nothing. */
static double loss_at(const struct kure_bit_budget *b, int i, int w)
{
    double most = 0;
    for (int k = 0; k <= w; ++k) {
        double loss = b->loss[i * b->widths + k];
        most = isnan(loss) ? HUGE_VAL : fmax(most, loss);
    }
    return most;
}

static int width_of(const struct kure_bit_budget *b, int bits)
{
    int w = 0;
    while (b->bits[w] != bits) ++w;
    return w;
}

static double average(const struct kure_bit_budget *b, const int *bits)
{
    double sum = 0, weights = 0;
    for (int i = 0; i < b->layers; ++i) {
        sum += (double)b->weights[i] * bits[i];
        weights += (double)b->weights[i];
    }
    return sum / weights;
}

/* Growth of the loss, and of the noise, for each bit saved by the next width of layer i. */
static void price(const struct kure_bit_budget *b, int i, int w, double *loss, double *noise)
{
    double saved = (double)b->weights[i] * (b->bits[w] - b->bits[w + 1]);
    double here = loss_at(b, i, w), next = loss_at(b, i, w + 1);
    *loss = next == here ? 0 : (next - here) / saved;
    *noise = (b->noise[i * b->widths + w + 1] - b->noise[i * b->widths + w]) / saved;
}

double kure_bit_budget(const struct kure_bit_budget *b, int *bits)
{
    for (int i = 0; i < b->layers; ++i) bits[i] = b->bits[0];
    while (average(b, bits) > b->average) {
        int best = -1;
        double best_loss = 0, best_noise = 0;
        for (int i = 0; i < b->layers; ++i) {
            double loss, noise;
            int w = width_of(b, bits[i]);
            if (w == b->widths - 1) continue;
            price(b, i, w, &loss, &noise);
            if (best >= 0 && !(loss < best_loss || (loss == best_loss && noise < best_noise))) continue;
            best = i;
            best_loss = loss;
            best_noise = noise;
        }
        if (best < 0) break;
        bits[best] = b->bits[width_of(b, bits[best]) + 1];
    }
    return average(b, bits);
}
