/*
 * kure_format.h: the sidecar file `<weights>.kure`, and the bundle NAME.edge.
 *
 * ---- the sidecar --------------------------------------------------------------
 *
 * Layout: safetensors. All integers little-endian.
 *
 *   uint64  H            bytes of the header, a multiple of 8
 *   char[H]              JSON object, padded with blanks:
 *                        "__metadata__": {name: text, ...}
 *                        tensor name: {"dtype": "F32", "shape": [...], "data_offsets": [begin, end]}
 *   float32[]            tensors; offsets count from the end of the header
 *
 * Metadata of a sidecar (all values are text):
 *   format    KURE_SIDECAR_FORMAT
 *   weights   XXH3-128 of the .weights file that it belongs to, 32 hexadecimal digits
 *   state     XXH3-128 of the kinds and shapes of the network's layers
 *   update    updates done
 *   plan      one line: the [kurtosis] options in force, for comparison
 *   quantization   the same of [quantization], where there is one
 *   data      XXH3-128 of the bytes of all tensors; kure_file_write and kure_file_read see to it
 *
 * Tensors: layers.N.weights, layers.N.biases, layers.N.scales: Darknet's momentum
 * buffers (weight_updates, bias_updates, scale_updates) of layer N, as they stand
 * between two updates. plan.layers: for every layer whether [kurtosis] regularizes it
 * (1 or 0), its own kurtosis_target (0: none) and kurtosis_lambda (1: none), for comparison.
 * Of quantizers, named by what they depend on, so that another width or policy starts anew:
 * layers.N.weight_scales.POLICY.BITS, .lsq.BITS, .tqt.BITS: four numbers for each row of
 * weights (learned_parameter.h); layers.N.range_before.POLICY and range_after, for policies
 * that look at the levels POLICY.BITS: updates seen, low and high of two groups, two learned
 * parameters (activations.h). Momentum is missing where only a calibration has written.
 *
 * ---- the bundle -----------------------------------------------------------------
 *
 * A folder of files: export/README.md says what each holds.
 *   manifest.json   the model in words and numbers, format KURE_BUNDLE_FORMAT; the hashes of the other files
 *   model.kure      the model as the runtime reads it (kure_runtime.h)
 *   golden/         images, and the codes of every tensor for them (export/golden.h)
 *   SHA256SUMS      of every file but itself, as sha256sum -c reads it
 * and what other formats were asked for (export/formats.def).
 */
#ifndef KURE_FORMAT_H
#define KURE_FORMAT_H

#include "kure.h"

#define KURE_SIDECAR_FORMAT "kure-sidecar-1"
#define KURE_BUNDLE_FORMAT "kure-bundle-1"
#define KURE_VERSION "1.0" /* of this tool, as files name it */

/* A file to be written or just read. Tensors are float32 with one dimension. */
struct kure_file_tensor {
    char name[64];
    float *data; /* writing: borrowed; reading: inside the file's buffer */
    size_t count;
};

struct kure_file_text {
    char name[32];
    char value[512];
};

struct kure_file {
    struct kure_file_text texts[16];
    int text_count;
    struct kure_file_tensor *tensors; /* owned */
    int tensor_count;
    unsigned char *buffer; /* owned; reading only */
};

/* Adds metadata or a tensor to a file that starts as {0}. */
KURE_CHECKED enum kure_status kure_file_add_text(struct kure_file *file, const char *name, const char *value,
                                                 struct kure_error *error);
KURE_CHECKED enum kure_status kure_file_add_tensor(struct kure_file *file, const char *name, float *data, size_t count,
                                                   struct kure_error *error);

/* Writes and syncs `path`; after an error no file of that name is left. */
KURE_CHECKED enum kure_status kure_file_write(const struct kure_file *file, const char *path, struct kure_error *error);

/* Reads and checks every count and offset. KURE_ERROR_INPUT: damaged.
 * file [out]: to be freed also after an error. */
KURE_CHECKED enum kure_status kure_file_read(const char *path, struct kure_file *file, struct kure_error *error);

/* NULL: not in the file. */
const char *kure_file_text(const struct kure_file *file, const char *name);
const struct kure_file_tensor *kure_file_tensor(const struct kure_file *file, const char *name);

void kure_file_free(struct kure_file *file);

#endif
