/*
 * cpu_lanes.h: sums that do not depend on the width of a vector (lanes.h), for the
 * loops of cpu_kernels.c and cpu_quantize.h, which are compiled once per instruction
 * set.
 */
#ifndef KURE_CPU_LANES_H
#define KURE_CPU_LANES_H

#if defined(__AVX2__)
#include <immintrin.h>
#endif
#include <string.h>

#include "lanes.h"

#if defined(__AVX512F__)
enum { WIDTH = 8 }; /* doubles in a vector */
#elif defined(__AVX2__)
enum { WIDTH = 4 };
#else
enum { WIDTH = 2 };
#endif

typedef double doubles __attribute__((vector_size(8 * WIDTH)));
typedef float floats __attribute__((vector_size(4 * WIDTH)));

static doubles load(const double *x)
{
    doubles d;
    memcpy(&d, x, sizeof d);
    return d;
}

/* gcc takes __builtin_convertvector apart into halves */
static doubles load_floats(const float *x)
{
#if defined(__AVX512F__)
    return _mm512_cvtps_pd(_mm256_loadu_ps(x));
#elif defined(__AVX2__)
    return _mm256_cvtps_pd(_mm_loadu_ps(x));
#else
    floats f;
    memcpy(&f, x, sizeof f);
    return __builtin_convertvector(f, doubles);
#endif
}

/* lanes[0..WIDTH-1] += s */
static void add_to(double *lanes, doubles s)
{
    s = load(lanes) + s;
    memcpy(lanes, &s, sizeof s);
}

static double lanes_sum(const double lanes[LANES])
{
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
           ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

/* block[n ..] = 0 up to a whole number of lanes: adds nothing to any sum */
static void fill_up(double *block, size_t n)
{
    for (; n % LANES; n++) block[n] = 0;
}

static size_t block_size(size_t left)
{
    return left < BLOCK ? left : BLOCK;
}

static void add_sum(double lanes[LANES], const double *x, size_t n)
{
    for (size_t v = 0; v < LANES; v += WIDTH) {
        doubles s = {0};
        for (size_t i = v; i < n; i += LANES) s += load(x + i);
        add_to(lanes + v, s);
    }
}

static void add_products(double lanes[LANES], const double *x, const double *y, size_t n)
{
    for (size_t v = 0; v < LANES; v += WIDTH) {
        doubles s = {0};
        for (size_t i = v; i < n; i += LANES) s += load(x + i) * load(y + i);
        add_to(lanes + v, s);
    }
}

#endif
