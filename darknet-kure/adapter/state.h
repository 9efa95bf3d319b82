/*
 * state.h: what the plugin keeps for one network (network.kure and layer.kure).
 */
#ifndef KURE_STATE_H
#define KURE_STATE_H

#include "host_darknet.h"
#include "kure.h"
#include "kure_math.h" /* kure_is_finite goes by bits: Darknet's link switches the float environment */
#include "plan.h"

struct kure_log;
struct kure_cuda_kurtosis;
struct kure_simulation;
struct kure_reestimation;
struct kure_correction;

typedef void kure_tensor_function(void *context, const char *name, float *data, size_t count);

struct kure_network {
    network *net;                 /* stable in this flavour: allocated once by the parser */
    struct kure_options options;
    struct kure_plan plan;

    /* regularization (regularize.c): state of the update under way */
    int first;                    /* the layer whose update function is wrapped; -1: none */
    void (*update)(layer, update_args); /* Darknet's own, of that layer */
    struct kure_kurtosis_measure *measures; /* [plan.count] */
    float **scratch;              /* [plan.count] folded weights, with fold=1 and batch norm; else NULL */
    char *reported;               /* [plan.count] skip already said */
    double loss;                  /* lambda-free L_K of the plan */
    double rate;                  /* learning rate of this update */
    int capped;                   /* tensors on which max_step acted */
    int measured;                 /* the above hold for this update */
    int unseen;                   /* updates since kure_iteration was called */
    struct kure_cuda_kurtosis *cuda; /* regularize_cuda.c; NULL: the CPU does the loops */

    /* weights file (weights.c) */
    int extent_known;
    int loaded_layers;            /* one past the last layer that the file filled */
    size_t bytes_left;

    struct kure_simulation *simulation; /* NULL: no [quantization] */
    struct kure_reestimation *reestimation; /* batchnorm.c; NULL: none under way */
    struct kure_correction *correction;     /* bias_correction.c, likewise */

    int trained;                  /* momentum buffers hold a training's state */
    struct kure_log *log;         /* NULL until the first row */
};

/* Prints the sentence and ends the process with status 1. */
void kure_stop(const struct kure_error *error) __attribute__((noreturn));

/* Updates done, as Darknet counts them; survives saving and loading. */
long long kure_updates_done(const network *net);

/* views.c: [net->n] descriptions of the layers, to be freed with kure_views_free. */
struct kure_layer_view *kure_views_of(const network *net);
void kure_views_free(struct kure_layer_view *views);

/* views.c: a layer's weights as the core sees them; scratch may be NULL. */
struct kure_tensor kure_tensor_of(const layer *l, float *scratch);

/* regularize.c: wraps one update function; called at attach. */
void kure_regularize_attach(struct kure_network *k);

/* simulation.c: wraps the layers that the plan quantizes, if there are any; called at attach. */
void kure_simulation_attach(struct kure_network *k);
void kure_simulation_release(struct kure_network *k);
int kure_simulation_is_ready(const struct kure_network *k); /* are ranges of activations known? */
void kure_simulation_touch(struct kure_network *k);   /* weights have changed other than by training */
void kure_simulation_settle(struct kure_network *k);  /* before its state is saved */
void kure_simulation_restore(struct kure_network *k); /* after its state was loaded */
void kure_simulation_average(network **nets, int n);  /* of the same cfg, on several GPUs: all get the mean of their state */
/* The state: scales of weights, ranges of activations. Nothing without [quantization]. */
void kure_simulation_each_tensor(struct kure_network *k, kure_tensor_function *function, void *context);

/* log.c: open once, before the row of that update */
void kure_log_open(struct kure_network *k, long long update);
void kure_log_row(struct kure_network *k, long long update, double loss);
void kure_log_free(struct kure_log *log);

/* sidecar.c */
int kure_has_sidecar(const struct kure_network *k); /* does this cfg keep one? */
void kure_sidecar_load(struct kure_network *k, const char *weights);
void kure_sidecar_save(struct kure_network *k, const char *weights); /* of a file that stays as it is */

#endif
