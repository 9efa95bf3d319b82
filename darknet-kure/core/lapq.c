/* lapq.c: see lapq.h. Tested by tests/unit/test_lapq.c. */
#include "lapq.h"

#include <math.h>
#include <nlopt.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

enum { EXPONENTS = 3 };
static const double exponents[EXPONENTS] = {2, 2.5, 3}, MOST_EXPONENT = 5, LEAST_EXPONENT = 1;

#define EVALUATIONS(count) (20 * (count) + 40)

int kure_lapq_calls(int count)
{
    return EXPONENTS + 2 + EVALUATIONS(count);
}

struct search {
    struct kure_lapq *problem;
    double *best; /* [count] logarithms to base 2 */
    double least;
};

static double finite(double loss)
{
    return isfinite(loss) ? loss : HUGE_VAL;
}

/* The lowest point of the parabola through three points; NaN where it opens downwards. */
static double vertex(const double *x, const double *y)
{
    double a = (y[1] - y[0]) / (x[1] - x[0]), b = (y[2] - y[1]) / (x[2] - x[1]), curvature = (b - a) / (x[2] - x[0]);
    if (!(curvature > 0)) return NAN;
    return (x[0] + x[1]) / 2 - a / (2 * curvature);
}

/* The exponent of least loss; leaves its steps in force. */
static double choose_exponent(struct kure_lapq *problem, double *least)
{
    double loss[EXPONENTS], p = exponents[0];
    *least = HUGE_VAL;
    for (int i = 0; i < EXPONENTS; ++i) {
        loss[i] = finite(problem->start(problem->context, exponents[i]));
        if (loss[i] >= *least) continue;
        *least = loss[i];
        p = exponents[i];
    }
    problem->first = loss[0];
    double lowest = vertex(exponents, loss);
    if (!isnan(lowest)) {
        lowest = fmin(fmax(lowest, LEAST_EXPONENT), MOST_EXPONENT);
        double there = finite(problem->start(problem->context, lowest));
        if (there < *least) {
            *least = there;
            return lowest;
        }
    }
    problem->start(problem->context, p);
    return p;
}

static double evaluate(unsigned n, const double *x, double *gradient, void *data)
{
    struct search *s = data;
    double ratio[n];
    (void)gradient;
    for (unsigned i = 0; i < n; ++i) ratio[i] = exp2(x[i]);
    double loss = finite(s->problem->loss(s->problem->context, ratio));
    if (loss < s->least) {
        s->least = loss;
        memcpy(s->best, x, n * sizeof *x);
    }
    return loss;
}

enum kure_status kure_lapq(struct kure_lapq *problem, double *ratio, struct kure_error *error)
{
    unsigned n = (unsigned)problem->count;
    struct search s = {.problem = problem};
    problem->p = choose_exponent(problem, &s.least);
    problem->least = s.least;
    if (n == 0) return KURE_OK;
    double *x = calloc(n, sizeof *x);
    nlopt_opt search = nlopt_create(NLOPT_LN_SBPLX, n);
    s.best = calloc(n, sizeof *s.best);
    int ok = x && s.best && search && nlopt_set_min_objective(search, evaluate, &s) > 0 && nlopt_set_lower_bounds1(search, -1) > 0 &&
             nlopt_set_upper_bounds1(search, 1) > 0 && nlopt_set_initial_step1(search, 0.25) > 0 && nlopt_set_xtol_abs1(search, 0.01) > 0 &&
             nlopt_set_maxeval(search, EVALUATIONS(problem->count)) > 0;
    double value;
    nlopt_result result = ok ? nlopt_optimize(search, x, &value) : NLOPT_OUT_OF_MEMORY;
    for (unsigned i = 0; ok && i < n; ++i) ratio[i] = exp2(s.best[i]);
    nlopt_destroy(search);
    free(x);
    free(s.best);
    problem->least = s.least;
    return result == NLOPT_OUT_OF_MEMORY ? kure_fail_memory(error) : KURE_OK;
}
