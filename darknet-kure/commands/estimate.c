/* estimate.c: see estimate.h. */
#include "estimate.h"

#include <math.h>
#ifdef _OPENMP
#include <omp.h>
#endif

static const double DAY = 24 * 3600;
enum { LEAST_IMAGES = 8 };

/* "about 3 minutes" */
static void describe(double seconds, char *out, size_t size)
{
    static const struct {
        double seconds;
        const char *name;
    } units[] = {{24 * 3600, "days"}, {3600, "hours"}, {60, "minutes"}, {1, "seconds"}};
    int i = 0;
    while (i < 3 && seconds < 2 * units[i].seconds) ++i;
    double n = seconds / units[i].seconds;
    if (seconds < 2) snprintf(out, size, "a second or two");
    else snprintf(out, size, "about %.*f %s", n < 10 && i < 2 ? 1 : 0, n, units[i].name);
}

/* On as many threads as a point will have. */
static double seconds_per_image(struct kure_evaluation *e, const struct kure_point *point, int jobs)
{
    int threads = 1;
    kure_ptq_set(e->ptq, point, e->calibration);
#ifdef _OPENMP
    int most = omp_get_max_threads();
    if (jobs > 1) omp_set_num_threads(1);
    threads = omp_get_max_threads();
#else
    (void)jobs;
#endif
    double seconds = kure_images_seconds(e->net, e->images, threads > LEAST_IMAGES ? threads : LEAST_IMAGES);
#ifdef _OPENMP
    omp_set_num_threads(most);
#endif
    return seconds;
}

int kure_estimate_allows(struct kure_evaluation *e, const struct kure_point *point, int points, int jobs)
{
    long long images = kure_evaluation_images(e);
    double seconds = seconds_per_image(e, point, jobs) * (double)images * ceil((double)points / jobs);
    char duration[64];
    describe(seconds, duration, sizeof duration);
    fprintf(stderr, "a grid of %d points x %lld images: %s", points, images, duration);
    int allowed = seconds <= DAY || e->request->lasting;
    fprintf(stderr, allowed ? "\n" : ", which is more than a day: --long begins it; --images N, fewer values and machines with --shard I/N of sweep shorten it\n");
    return allowed;
}
