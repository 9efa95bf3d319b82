/* evaluation_save.c: `darknet kure eval ... --save NAME`: a refined network as files; see evaluation.h. */
#include <stdio.h>
#include <string.h>

#include "evaluation.h"
#include "interrupt.h"

static int has_ending(const char *name, const char *ending)
{
    size_t length = strlen(name), end = strlen(ending);
    return length >= end && strcmp(name + length - end, ending) == 0;
}

static int check_name(const char *command, const char *name)
{
    static const char *const endings[] = {".cfg", ".weights"};
    if (!*name || has_ending(name, "/")) return kure_usage_error(command, "--save %s: must be a name: --save refined writes refined.cfg and refined.weights", name);
    for (int i = 0; i < 2; ++i) {
        int length = (int)(strlen(name) - strlen(endings[i]));
        if (!has_ending(name, endings[i])) continue;
        return kure_usage_error(command, "--save %s: a name without its ending is wanted: --save %.*s writes %.*s.cfg and %.*s.weights", name, length, name,
                                length, name, length, name);
    }
    return -1;
}

/* One network, with quantizers that a cfg can have. */
int kure_evaluation_check_save(const char *command, const struct kure_evaluation_request *r)
{
    int status = r->save ? check_name(command, r->save) : -1;
    if (!r->save || status >= 0) return status;
    if (r->simulate || r->integer) {
        return kure_usage_error(command, "--save %s: what --%s takes has its quantizers in files already", r->save, r->integer ? "integer" : "simulate");
    }
    int count = r->points.given ? kure_points_count(&r->points) : 1;
    struct kure_point point = r->points.given ? kure_points_get(&r->points, 0) : (struct kure_point){0};
    if (count > 1) return kure_usage_error(command, "--save %s: %d networks are evaluated, one is saved: give each key one value", r->save, count);
    if (!point.weights.bits || !point.activations.bits) {
        return kure_usage_error(command, "--save %s: an integer model has weights and activations quantized: say --bits, or --weight-bits and --activation-bits",
                                r->save);
    }
    if (point.weights.grid == KURE_GRID_MIDRISE || point.activations.grid == KURE_GRID_MIDRISE) {
        return kure_usage_error(command, "--save %s: grid=midrise is for evaluation only: no cfg and no target has it", r->save);
    }
    return -1;
}

void kure_evaluation_save(const struct kure_evaluation *e, const struct kure_point *point)
{
    const struct kure_evaluation_request *r = e->request;
    struct kure_point found = e->lapq ? kure_lapq_found(e->lapq, point) : *point;
    kure_interrupt_hold(1);
    kure_ptq_save(e->ptq, &found, e->calibration, r->cfg, r->save);
    fprintf(stderr, "wrote %s.cfg, %s.weights and %s.weights.kure: 'darknet kure export %s.cfg %s.weights -o %s.edge' makes integers of them\n", r->save,
            r->save, r->save, r->save, r->save, r->save);
}
