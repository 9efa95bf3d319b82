/* learned_parameter.c: see learned_parameter.h. Tested by tests/test_learned.py. */
#include "learned_parameter.h"

#include <math.h>

const char *kure_learned_name(const struct kure_quantizer *q)
{
    return q->step == KURE_STEP_POWER_OF_TWO ? "tqt" : "lsq";
}

void kure_learned_begin(struct kure_learned_parameter *p, struct kure_scale scale, const struct kure_quantizer *q)
{
    double most = fmax((1 << (q->bits - 1)) - 1 - scale.zero_point, 1);
    double step = scale.step > 0 ? scale.step : 1 / most;
    *p = (struct kure_learned_parameter){
        .value = (float)(q->step == KURE_STEP_POWER_OF_TWO ? log2(step) : step),
        .zero_point = (float)scale.zero_point,
        .least = (float)(step / 1024),
    };
}

struct kure_scale kure_learned_scale(const struct kure_learned_parameter *p, const struct kure_quantizer *q)
{
    struct kure_learned_step step = {p->value, p->least};
    return kure_learned_step_scale(&step, (int)p->zero_point, q);
}

void kure_learned_descend(struct kure_learned_parameter *p, double descent, const struct kure_learned_rate *rate,
                          const struct kure_quantizer *q)
{
    struct kure_learned_step step = {p->value, p->least};
    p->momentum += (float)(descent - rate->decay * p->value);
    kure_learned_step_move(&step, rate->rate * p->momentum, q);
    p->value = (float)step.value;
    p->momentum *= (float)rate->momentum;
}
