/* multiplier.c: see multiplier.h. Tested by tests/test_export_numbers.py. */
#include "multiplier.h"

#include <math.h>

#include "kure_intmath.h"

void kure_quantize_multiplier(double x, int single, uint32_t words[2])
{
    int shift = 0;
    double fraction = frexp(x, &shift);
    int64_t multiplier = (int64_t)round(fraction * 0x1p31);
    if (multiplier == INT64_C(1) << 31) {
        multiplier /= 2;
        ++shift;
    }
    if (shift < -31) {
        shift = 0;
        multiplier = 0;
    }
    if (single && shift > 30) {
        shift = 30;
        multiplier = INT32_MAX;
    }
    words[0] = (uint32_t)multiplier;
    words[1] = (uint32_t)shift;
}

int kure_leaky_code(int x, float in, float out, float slope, int single)
{
    uint32_t words[2];
    float ratio = x < 0 ? in * slope / out : in / out;
    kure_quantize_multiplier((double)ratio, single, words);
    return single ? kure_requantize_single_rounding(x, (int32_t)words[0], (int32_t)words[1])
                  : kure_requantize_double_rounding(x, (int32_t)words[0], (int32_t)words[1]);
}
