/*
 * quantizer.c: what a quantizer may be: names, limits, texts of the tables.
 *
 * Tested by tests/unit/test_scale.c.
 */
#include <math.h>

#include "error.h"
#include "kure.h"

static const struct kure_choice_text roundings[] = {
#define KURE_ROUNDING(ENUM, name, draws, help) [KURE_ROUNDING_##ENUM] = {#name, help, "", 0, 0, 16, ""},
#include "../math/rounding.def"
#undef KURE_ROUNDING
};
static const struct kure_choice_text policies[] = {
#define KURE_POLICY(ENUM, name, needs, bits, value, from, to, help, source) \
    [KURE_TRUNCATION_##ENUM] = {#name, help, value, from, to, bits, source},
#include "policies.def"
#undef KURE_POLICY
};
_Static_assert(sizeof roundings / sizeof *roundings == KURE_ROUNDINGS, "a row for each rounding");
_Static_assert(sizeof policies / sizeof *policies == KURE_TRUNCATIONS, "a row for each policy");

static const char *const grids[] = {"narrow", "full", "midrise"};
static const char *const steps[] = {"free", "power_of_two"};
static const char *const granularities[] = {"tensor", "channel"};

struct kure_choice_text kure_rounding_text(int rounding)
{
    int there = rounding >= 0 && rounding < KURE_ROUNDINGS;
    return there ? roundings[rounding] : (struct kure_choice_text){0};
}

struct kure_choice_text kure_policy_text(int truncation)
{
    int there = truncation >= 0 && truncation < KURE_TRUNCATIONS;
    return there ? policies[truncation] : (struct kure_choice_text){0};
}

const char *kure_grid_name(enum kure_grid grid)
{
    return grids[grid];
}

const char *kure_step_name(enum kure_step step)
{
    return steps[step];
}

const char *kure_granularity_name(enum kure_granularity granularity)
{
    return granularities[granularity];
}

static enum kure_status check_value(const struct kure_quantizer *q, struct kure_error *error)
{
    const struct kure_choice_text *p = &policies[q->truncation];
    double value = q->truncation_value;
    if (!*p->value && value != 0)
        return kure_fail(error, KURE_ERROR_INPUT, "truncation_value is %g: truncation %s takes none", value, p->name);
    if (!*p->value || (value >= p->value_from && value <= p->value_to)) return KURE_OK;
    if (value == 0)
        return kure_fail(error, KURE_ERROR_INPUT, "truncation %s needs a truncation_value: %s", p->name, p->value);
    return kure_fail(error, KURE_ERROR_INPUT, "truncation_value is %g: for %s %s, from %g to %g", value, p->name, p->value,
                     p->value_from, p->value_to);
}

int kure_quantizer_equal(const struct kure_quantizer *a, const struct kure_quantizer *b)
{
    return a->bits == b->bits && a->rounding == b->rounding && a->truncation == b->truncation && a->truncation_value == b->truncation_value &&
           a->step == b->step && a->step_ratio == b->step_ratio && a->granularity == b->granularity && a->grid == b->grid &&
           a->symmetric == b->symmetric;
}

enum kure_status kure_quantizer_check(const struct kure_quantizer *q, struct kure_error *error)
{
    if (q->bits != 0 && (q->bits < 2 || q->bits > 16))
        return kure_fail(error, KURE_ERROR_INPUT, "bits is %d: possible are 0 (float) and 2 to 16", q->bits);
    if (q->bits == 0) return KURE_OK;
    if ((unsigned)q->rounding >= KURE_ROUNDINGS || (unsigned)q->truncation >= KURE_TRUNCATIONS ||
        (unsigned)q->grid > KURE_GRID_MIDRISE || (unsigned)q->step > KURE_STEP_POWER_OF_TWO)
        return kure_fail(error, KURE_ERROR_INPUT, "a choice is not one of its list");
    if (q->bits > policies[q->truncation].most_bits)
        return kure_fail(error, KURE_ERROR_INPUT, "bits is %d: truncation %s serves 2 to %d", q->bits,
                         policies[q->truncation].name, policies[q->truncation].most_bits);
    if (!(q->step_ratio > 0) || isinf(q->step_ratio))
        return kure_fail(error, KURE_ERROR_INPUT, "step_ratio is %g: it must be a positive number", q->step_ratio);
    if (!q->symmetric && q->grid != KURE_GRID_FULL)
        return kure_fail(error, KURE_ERROR_INPUT, "symmetric is 0 and grid %s: a free zero point needs grid full",
                         grids[q->grid]);
    return check_value(q, error);
}
