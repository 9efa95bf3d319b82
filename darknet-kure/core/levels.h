/*
 * levels.h: the levels of a grid, from bits and step.
 */
#ifndef KURE_LEVELS_H
#define KURE_LEVELS_H

#include "kure.h"
#include "../math/kure_math.h"

/* bits: 2..16 */
static inline struct kure_levels kure_levels_of(float step, int bits, enum kure_grid grid)
{
    int half = 1 << (bits - 1);
    return (struct kure_levels){
        .step = step,
        .low = (float)(grid == KURE_GRID_NARROW ? 1 - half : -half),
        .high = (float)(half - 1),
        .offset = grid == KURE_GRID_MIDRISE ? 0.5f : 0.0f,
    };
}

#endif
