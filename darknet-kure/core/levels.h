/*
 * levels.h: the levels of a grid, from a quantizer and a scale.
 */
#ifndef KURE_LEVELS_H
#define KURE_LEVELS_H

#include "../backend/backend.h"

/* the codes of a grid; bits: 2..16 */
static inline int kure_lowest_code(const struct kure_quantizer *q)
{
    int half = 1 << (q->bits - 1);
    return q->grid == KURE_GRID_NARROW ? 1 - half : -half;
}

static inline int kure_highest_code(const struct kure_quantizer *q)
{
    return (1 << (q->bits - 1)) - 1;
}

static inline struct kure_levels kure_levels_of(struct kure_scale scale, const struct kure_quantizer *q)
{
    return (struct kure_levels){
        .step = scale.step,
        .low = (float)(kure_lowest_code(q) - scale.zero_point),
        .high = (float)(kure_highest_code(q) - scale.zero_point),
        .offset = q->grid == KURE_GRID_MIDRISE ? 0.5f : 0.0f,
    };
}

static inline struct kure_codec kure_codec_of(struct kure_scale scale, const struct kure_quantizer *q,
                                              const struct kure_noise *noise)
{
    struct kure_codec codec = {kure_levels_of(scale, q), q->rounding, {0, 0, 0}};
    if (noise) codec.noise = *noise;
    /* a step up to 2^-125 is 0: half of it, a level of midrise, would be subnormal */
    codec.levels.step = kure_beyond(scale.step, 0x01000000);
    return codec;
}

/* the codec of the chunk that starts at element `start` */
static inline struct kure_codec kure_codec_from(struct kure_codec codec, size_t start)
{
    codec.noise.first += start;
    return codec;
}

#endif
