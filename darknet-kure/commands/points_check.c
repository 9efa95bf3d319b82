/* points_check.c: do the quantizer keys of a command line go together? See points.h. */
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "points.h"

static enum kure_status check_widths(const struct kure_quantizer *q, int inner, int first, int last, const char *whose, struct kure_error *error)
{
    const int bits[] = {inner, first, last};
    struct kure_error reason;
    for (size_t b = 0; inner && b < sizeof bits / sizeof *bits; ++b) {
        struct kure_quantizer wide = *q;
        wide.bits = bits[b];
        if (kure_quantizer_check(&wide, &reason) != KURE_OK) return kure_fail(error, KURE_ERROR_INPUT, "the %s quantizer: %s", whose, reason.text);
    }
    return KURE_OK;
}

/* A key of activations that no point reads. */
static enum kure_status check_read(const struct kure_points *points, const char *prefix, int read, struct kure_error *error)
{
    char bits[64];
    snprintf(bits, sizeof bits, "%sbits", prefix);
    for (int i = 0; kure_point_key(i) && !read; ++i) {
        const char *name = kure_point_key(i);
        if (!kure_points_has(points, name) || points->bare[i] || strncmp(name, prefix, strlen(prefix)) != 0 || strcmp(name, bits) == 0) continue;
        return kure_fail(error, KURE_ERROR_INPUT, "%s=%s: has no meaning with %s=%s, which leaves them float", name, points->values[i], bits,
                         kure_points_list(points, bits));
    }
    return KURE_OK;
}

static int is_paired(const struct kure_points *points, const char *key)
{
    int i = 0;
    while (strcmp(kure_point_key(i), key) != 0) ++i;
    return points->paired[i];
}

static enum kure_status check_value_read(const struct kure_points *points, const char *prefix, int takers, struct kure_error *error)
{
    char value[64], policy[64];
    snprintf(value, sizeof value, "%struncation_value", prefix);
    snprintf(policy, sizeof policy, "%struncation", prefix);
    if (takers || !kure_points_has(points, value) || is_paired(points, value)) return KURE_OK;
    return kure_fail(error, KURE_ERROR_INPUT, "%s=%s: %s=%s takes none", value, kure_points_list(points, value), policy,
                     kure_points_list(points, policy));
}

enum kure_status kure_points_check(const struct kure_points *points, struct kure_error *error)
{
    int count = kure_points_count(points), weight_takers = 0, activation_takers = 0, weights = 0, activations = 0;
    enum kure_status status = KURE_OK;
    for (int i = 0; status == KURE_OK && i < count; ++i) {
        struct kure_point p = kure_points_get(points, i);
        weights |= p.weights.bits;
        activations |= p.activations.bits;
        weight_takers += kure_point_takes_value(&p.weights);
        activation_takers += kure_point_takes_value(&p.activations);
        if (p.weights.bits && p.weights.truncation == KURE_TRUNCATION_EMA) {
            return kure_fail(error, KURE_ERROR_INPUT, "weight_truncation=ema: it averages over batches, which weights do not come in");
        }
        status = check_widths(&p.weights, p.weights.bits, p.first_bits, p.last_bits, "weights'", error);
        if (status == KURE_OK) status = check_widths(&p.activations, p.activations.bits, 0, p.last_bits, "activations'", error);
    }
    if (status == KURE_OK) status = check_read(points, "weight_", weights, error);
    if (status == KURE_OK) status = check_read(points, "activation_", activations, error);
    if (status == KURE_OK) status = check_value_read(points, "weight_", weight_takers, error);
    return status == KURE_OK ? check_value_read(points, "activation_", activation_takers, error) : status;
}
