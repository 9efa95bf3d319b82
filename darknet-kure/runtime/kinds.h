/* kinds.h: a row for each enum kure_model_kind: what a layer's words may be, and what runs it. */
#ifndef KURE_RUNTIME_KINDS_H
#define KURE_RUNTIME_KINDS_H

#include "arithmetic.h"

/* What kure_runtime_open has in hand. */
struct kure_check {
    struct kure_model *model;
    struct kure_runtime_error *error; /* not NULL; place and index are those of what is checked */
};

/* A check that must hold before the next is tried. */
#define KURE_TRY(check)                                           \
    do {                                                          \
        enum kure_runtime_status kure_try_status = (check);       \
        if (kure_try_status != KURE_RUNTIME_OK) return kure_try_status; \
    } while (0)

/* Fills the error and returns its status. */
enum kure_runtime_status kure_check_fail(struct kure_check *c, enum kure_runtime_status status, const char *field, int64_t value, int64_t least,
                                         int64_t most);
/* RANGE unless least <= value <= most */
enum kure_runtime_status kure_check_range(struct kure_check *c, const char *field, int64_t value, int64_t least, int64_t most);
/* SHAPE unless value == wanted */
enum kure_runtime_status kure_check_shape(struct kure_check *c, const char *field, int64_t value, int64_t wanted);
/* OUTSIDE unless bytes offset .. offset + bytes - 1 lie behind the header and in the file */
enum kure_runtime_status kure_check_array(struct kure_check *c, const char *field, uint32_t offset, uint64_t bytes);

/* A layer with its tensors at hand; b: the second input, or the first. */
struct kure_placed_layer {
    struct kure_model_layer l;
    struct kure_model_tensor a, b, out;
};
/* The layer's own words; rows and row are 0 */
struct kure_model_layer kure_layer_words(const struct kure_model *m, uint32_t layer);
/* Input numbers must be those of tensors */
void kure_layer_see(const struct kure_model *m, uint32_t layer, struct kure_placed_layer *v);

typedef enum kure_runtime_status kure_check_function(struct kure_check *c, const struct kure_placed_layer *v);
/* Runs a layer on the codes of its tensors in the arena; work: kure_work_function bytes, aligned to 4 */
typedef void kure_run_function(const struct kure_model *m, const struct kure_placed_layer *v, uint8_t *arena, void *work);
typedef uint64_t kure_work_function(const struct kure_placed_layer *v);

struct kure_kind_row {
    const char *name;
    uint32_t used;                       /* bit w: word w of enum kure_layer_word may be other than 0 */
    uint32_t least_inputs, most_inputs;
    unsigned char computes;              /* 1: has an arithmetic */
    unsigned char moves;                 /* 1: scale and zero point stay */
    kure_check_function *check;          /* shapes, arrays and numbers of its own */
    kure_run_function *run;
    kure_work_function *work;            /* bytes; NULL: none */
};
extern const struct kure_kind_row kure_kind_rows[KURE_KINDS]; /* [0] is empty */

kure_check_function kure_convolution_check, kure_connected_check, kure_maxpool_check, kure_average_pool_check, kure_upsample_check,
    kure_reorg_check, kure_concatenate_check, kure_lookup_check, kure_add_check;
kure_run_function kure_convolution_run, kure_maxpool_run, kure_average_pool_run, kure_upsample_run, kure_reorg_run, kure_concatenate_run,
    kure_lookup_run, kure_add_run;
kure_work_function kure_convolution_work;

#endif
