/* kure_run.h: what the program kure-run is made of: files in, files out. */
#ifndef KURE_RUN_H
#define KURE_RUN_H

#include <stdio.h>

#include "kure_runtime.h"

/* Prints "kure-run: " and a sentence to stderr; returns 0. */
int kure_run_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* What the bytes of an input file are. */
enum kure_run_format { KURE_RUN_BY_NAME, KURE_RUN_CODES, KURE_RUN_FLOAT32, KURE_RUN_PIXELS };

struct kure_run_bytes {
    unsigned char *data; /* owned */
    size_t size;
};

/* All functions: 1, or 0 after a sentence. */

int kure_run_read(const char *path, struct kure_run_bytes *out);

/* The images of a file as codes of tensor 0, one after another; codes [out]: owned */
int kure_run_images(const struct kure_model *model, const char *path, enum kure_run_format format, signed char **codes, size_t *images);

/* A file, or a folder of one file for each tensor, that takes its name when all is written. */
struct kure_run_output {
    const char *path; /* NULL: nothing is wanted */
    char part[4096];  /* what it is called until then */
    FILE *file;       /* of --output */
    const struct kure_model *model;
};
int kure_run_output_open(struct kure_run_output *o, const char *path);
int kure_run_dump_open(struct kure_run_output *o, const char *path, const struct kure_model *model);
int kure_run_output_write(struct kure_run_output *o, const signed char *codes, size_t n);
int kure_run_dump_write(struct kure_run_output *o, uint32_t tensor, const signed char *codes, size_t n);
int kure_run_output_close(struct kure_run_output *o, int keep);
int kure_run_dump_close(struct kure_run_output *o, int keep);

/* Tables of the model's tensors and layers to stdout */
void kure_run_describe(const struct kure_model *model);

#endif
