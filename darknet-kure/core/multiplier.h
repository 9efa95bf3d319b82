/*
 * multiplier.h: a ratio of scales as TensorFlow Lite and CMSIS-NN have it: a fixed point multiplier and a shift.
 */
#ifndef KURE_MULTIPLIER_H
#define KURE_MULTIPLIER_H

#include <stdint.h>

/* x = multiplier * 2^(shift - 31), kernels/internal/quantization_util.cc, QuantizeMultiplier; x >= 0.
 *   single  [in]: 1: of a build with TFLITE_SINGLE_ROUNDING, whose shift ends at 30
 *   words   [out]: multiplier, 0 .. 2^31-1, and shift, signed */
void kure_quantize_multiplier(double x, int single, uint32_t words[2]);

/* LEAKY_RELU of those kernels, of one code: x and the result less their zero points, before the limits.
 *   in, out, slope  [in]: scales; their ratios are taken in float32, as there */
int kure_leaky_code(int x, float in, float out, float slope, int single);

#endif
