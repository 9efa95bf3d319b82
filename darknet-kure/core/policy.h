/*
 * policy.h: a truncation policy: from statistics to the range a grid covers.
 */
#ifndef KURE_POLICY_H
#define KURE_POLICY_H

#include "../backend/backend.h"

/* What a policy sees of n > 0 finite values; fields above its needs are 0. */
struct kure_summary {
    uint64_t n;
    double min, max, ema_min, ema_max; /* RANGE */
    double mean, m2, deviation;        /* MOMENTS: deviation = (1/n) sum |x - mean|, or nearly */
    uint64_t zeros;
    struct kure_points points;         /* VALUES, ascending */
};

struct kure_range {
    double low, high;
};

/* Row by row as in policies.def. q has passed kure_quantizer_check, bits > 0. */
typedef struct kure_range kure_policy(const struct kure_summary *s, const struct kure_quantizer *q);
#define KURE_POLICY(ENUM, name, needs, bits, value, from, to, help, source) kure_policy kure_policy_##name;
#include "policies.def"
#undef KURE_POLICY

enum kure_needs { KURE_NEEDS_RANGE, KURE_NEEDS_MOMENTS, KURE_NEEDS_VALUES };
enum kure_needs kure_policy_needs(enum kure_truncation policy);

/* The scale that covers a range, before step_ratio and step kind. */
double kure_range_step(struct kure_range range, const struct kure_quantizer *q);
int kure_range_zero_point(struct kure_range range, double step, const struct kure_quantizer *q);

/* ACIQ's clip in units of sigma and of b (policies.c). intervals: half of 2^bits. */
double kure_aciq_clip_normal(double intervals);
double kure_aciq_clip_laplace(double intervals);

/* The policy's scale: step_ratio and the kind of step included. */
enum kure_status kure_summary_scale(const struct kure_summary *s, const struct kure_quantizer *q,
                                    struct kure_scale *scale, struct kure_error *error);

#endif
