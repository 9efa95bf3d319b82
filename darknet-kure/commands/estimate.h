/*
 * estimate.h: how long a grid of points will take, said before it begins.
 */
#ifndef KURE_ESTIMATE_H
#define KURE_ESTIMATE_H

#include "evaluation.h"

/* Measures a point on a few images and says on stderr what all would take.
 * e [in, out]: after kure_evaluation_begin; point [in]: one as costly as any; points: how many;
 * jobs: processes of one thread each, 1: one process on all threads.
 * 0: more than a day, and no --long: so it has been said. */
int kure_estimate_allows(struct kure_evaluation *e, const struct kure_point *point, int points, int jobs);

#endif
