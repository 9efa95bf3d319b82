/*
 * weights.h: the rows of one layer: batch norm folded, quantized, biases and multipliers.
 */
#ifndef KURE_EXPORT_WEIGHTS_H
#define KURE_EXPORT_WEIGHTS_H

#include "arithmetic.h"
#include "network.h"

struct kure_weights_target {
    const struct kure_integer_tensor *in, *out;
    enum kure_arithmetic arithmetic;
    const char *place; /* "net.cfg: layer 3 [convolutional]", for messages */
};

/* What had to be done to the rows, for the user. */
struct kure_weights_report {
    int zero_rows;     /* of zero codes, the bias alone is left */
    int larger_rows;   /* whose bias did not fit into 2^30: a larger scale */
    int larger_row;    /* the one that needed most */
    double largest;    /* and how much: a power of two */
    double bias_error; /* in codes of the output, of int32 biases: the most that rounding one has moved it */
};

/* Fills rows, row, weight_bits ... multipliers of `to`, whose kind, rows and source_rows are set.
 * KURE_ERROR_INPUT: no integer form. */
KURE_CHECKED enum kure_status kure_integer_weights(const struct kure_network_layer *from, const struct kure_weights_target *target,
                                                   struct kure_integer_layer *to, struct kure_weights_report *report,
                                                   struct kure_error *error);

#endif
