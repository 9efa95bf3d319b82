/*
 * golden.h: golden vectors: images through every layer of the integer runtime, as .npy files.
 *
 * golden/values.npy     float32 [images][channels][height][width]: what the network input is
 * golden/NAME.npy       int8, the codes of tensor NAME of the model, likewise
 * golden/output_N.npy   float32, output N as values: scale * (code - zero_point)
 *
 * .npy is NumPy's own format, version 1.0, little-endian, in C order.
 */
#ifndef KURE_EXPORT_GOLDEN_H
#define KURE_EXPORT_GOLDEN_H

#include "model.h"

/* Runs the images and writes their files into `folder`; keeps the codes of the first one.
 *   values  [in]: [images][elements of tensor 0]
 *   golden  [out]: to be freed with kure_golden_free, also after an error */
KURE_CHECKED enum kure_status kure_golden_write(const struct kure_integer_model *model, const char *folder, const float *values, int images,
                                                struct kure_integer_golden *golden, struct kure_error *error);
void kure_golden_free(const struct kure_integer_model *model, struct kure_integer_golden *golden);

/* Names of the files inside the bundle: tensor -1 is values, `output` >= 0 an output. */
enum { KURE_GOLDEN_NAME = 64 };
void kure_golden_tensor_name(const char *tensor, char out[KURE_GOLDEN_NAME]);
void kure_golden_output_name(int output, char out[KURE_GOLDEN_NAME]);
#define KURE_GOLDEN_VALUES "golden/values.npy"

/* What a check of golden vectors finds. */
struct kure_golden_difference {
    int tensors, images;  /* looked at */
    uint64_t codes, different; /* codes of all tensors and images; those that differ */
    int most;             /* the largest difference in codes */
    char first[KURE_INTEGER_NAME]; /* the first tensor that differs, "" */
    int first_image;
};

/* Runs the golden images of a bundle through the runtime and compares every tensor of every layer.
 * KURE_ERROR_INPUT, KURE_ERROR_FILE: a file is missing, or not of the shape that the model gives it. */
KURE_CHECKED enum kure_status kure_golden_check(const struct kure_model *model, const char *folder, int images,
                                                struct kure_golden_difference *difference, struct kure_error *error);

#endif
