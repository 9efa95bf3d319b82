/* kinds.c: the table of layers. */
#include "kinds.h"

#define WORD(name) (1u << KURE_LAYER_##name)
#define PARAMETERS (0x3ffu << KURE_LAYER_PARAMETER) /* arithmetic.c says which */
#define ALWAYS (WORD(KIND) | WORD(SOURCE) | WORD(INPUT_COUNT) | WORD(INPUTS))
#define WEIGHTED (ALWAYS | WORD(ARITHMETIC) | WORD(WEIGHT_BITS) | WORD(WEIGHTS) | WORD(BIASES) | WORD(MULTIPLIERS) | PARAMETERS)

const struct kure_kind_row kure_kind_rows[KURE_KINDS] = {
    [KURE_KIND_CONVOLUTION] = {"convolution", WEIGHTED | WORD(SIZE) | WORD(STRIDE) | WORD(PADDING) | WORD(GROUPS), 1, 1, 1, 0,
                               kure_convolution_check, kure_convolution_run, kure_convolution_work},
    [KURE_KIND_CONNECTED] = {"connected", WEIGHTED, 1, 1, 1, 0, kure_connected_check, kure_convolution_run, kure_convolution_work},
    [KURE_KIND_MAXPOOL] = {"maxpool", ALWAYS | WORD(SIZE) | WORD(STRIDE) | WORD(PADDING), 1, 1, 0, 1, kure_maxpool_check, kure_maxpool_run, NULL},
    [KURE_KIND_AVERAGE_POOL] = {"average_pool", ALWAYS | WORD(ARITHMETIC) | PARAMETERS, 1, 1, 1, 0, kure_average_pool_check,
                                kure_average_pool_run, NULL},
    [KURE_KIND_UPSAMPLE] = {"upsample", ALWAYS | WORD(STRIDE), 1, 1, 0, 1, kure_upsample_check, kure_upsample_run, NULL},
    [KURE_KIND_REORG] = {"reorg", ALWAYS | WORD(STRIDE) | WORD(PARAMETER), 1, 1, 0, 1, kure_reorg_check, kure_reorg_run, NULL},
    [KURE_KIND_CONCATENATE] = {"concatenate", ALWAYS, 1, KURE_MODEL_MOST_LAYERS, 0, 1, kure_concatenate_check, kure_concatenate_run, NULL},
    [KURE_KIND_LOOKUP] = {"lookup", ALWAYS | WORD(TABLE), 1, 1, 0, 0, kure_lookup_check, kure_lookup_run, NULL},
    [KURE_KIND_ADD] = {"add", ALWAYS | WORD(ARITHMETIC) | WORD(TABLE) | PARAMETERS, 2, 2, 1, 0, kure_add_check, kure_add_run, NULL},
};

const char *kure_model_kind_name(enum kure_model_kind kind)
{
    return kind > 0 && kind < KURE_KINDS ? kure_kind_rows[kind].name : "?";
}
