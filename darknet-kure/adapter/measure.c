/* measure.c: see measure.h. */
#include "measure.h"

#include <math.h>

static const struct kure_measure_text texts[] = {
#define KURE_MEASURE(value, column, name, format) {column, name, format},
#include "measures.def"
#undef KURE_MEASURE
};

struct kure_measure_text kure_measure_text(int value)
{
    return texts[value];
}

int kure_main_measure(const network *net)
{
    return kure_detector_layer(net) >= 0 ? KURE_MEASURE_AP : KURE_MEASURE_TOP1;
}

void kure_measure_describe(const struct kure_measure *m, char *out, size_t size)
{
    static const int said[] = {KURE_MEASURE_TOP1, KURE_MEASURE_TOP5, KURE_MEASURE_AP, KURE_MEASURE_AP50, KURE_MEASURE_AP75, KURE_MEASURE_F1};
    size_t used = 0;
    *out = 0;
    for (size_t i = 0; i < sizeof said / sizeof *said; ++i) {
        if (isnan(m->value[said[i]]) || used >= size) continue;
        used += (size_t)snprintf(out + used, size - used, "%s%s %.2f %%", used ? ", " : "", texts[said[i]].name, m->value[said[i]]);
    }
}

float *kure_predict(const struct kure_measuring *how, network *net, float *pixels, int count)
{
    return how->predict ? how->predict(how->predictor, net, pixels, count) : network_predict(net, pixels);
}

struct kure_measure kure_measure(network *net, struct kure_images *images, const struct kure_measuring *how)
{
    return kure_detector_layer(net) >= 0 ? kure_detect(net, images, how) : kure_classify(net, images, how);
}
