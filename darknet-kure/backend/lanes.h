/*
 * lanes.h: the order in which every backend adds, so that all give the same bits.
 *
 * Sums run in LANES lanes: within a block of BLOCK elements, element i belongs to lane
 * i % LANES and a lane adds its elements in order, from 0; then a lane adds its blocks in
 * order; then the lanes are added pairwise.
 */
#ifndef KURE_LANES_H
#define KURE_LANES_H

enum { LANES = 8, BLOCK = 256 }; /* a block of doubles stays in a CPU's nearest cache */

#endif
