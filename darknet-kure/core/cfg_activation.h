/*
 * cfg_activation.h: another activation in the place of a cfg's leaky ones, for chips that have none.
 */
#ifndef KURE_CFG_ACTIVATION_H
#define KURE_CFG_ACTIVATION_H

#include "cfg.h"

struct kure_activation_swap {
    const char *activation; /* "relu", "relu6", or "leaky" with a slope */
    double slope;           /* of leaky: it is written as slope=; else it is not read */
};

/* The text of cfg->path to `out`, another file, which is replaced only when all is written: every activation=leaky of a layer becomes
 * the other one, slope= lines of these layers go; all else, comments and line ends too, stays byte for byte.
 *   cfg [in]: of kure_cfg_read_text; KURE_ERROR_FILE */
KURE_CHECKED enum kure_status kure_cfg_swap_activation(const struct kure_cfg *cfg, const struct kure_activation_swap *swap, const char *out,
                                                       struct kure_error *error);

/* The last activation= of a section, or what Darknet takes where a weighted layer has none; NULL: no activation; borrowed. */
const char *kure_cfg_activation(const struct kure_cfg_section *section);

#endif
