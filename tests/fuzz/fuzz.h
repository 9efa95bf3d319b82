/*
 * fuzz.h: any bytes as each kind of file that is read. A target aborts where a reader breaks
 * its promise: a status without a sentence, a sound model that does not run; whatever else is
 * wrong the sanitizers find.
 *
 * `make fuzz` builds them with libFuzzer or AFL++ (fuzz_main.c); tests/unit/test_fuzz.c and
 * test_runtime.c call them on tests/fuzz/corpus and on changed copies.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

typedef void fuzz_target(const uint8_t *data, size_t size);

fuzz_target fuzz_model;   /* model.kure, with size and checksum made to fit: opened, and run where it is a model */
fuzz_target fuzz_bundle;  /* one file of tests/fuzz/bundle replaced: fuzz_bundle.c has the bytes' order */
fuzz_target fuzz_sidecar; /* <weights>.kure, with the hash of its tensors made to fit: read, written, read again */
fuzz_target fuzz_cfg;     /* a cfg: its text, our keys, and the cfg without them */

/* Makes size and checksum of a model file fit. */
void fuzz_seal(uint8_t *data, size_t size);

/* Opens a copy of the bytes, sealed or as they are, and runs it if it is sound. Returns its
 * enum kure_runtime_status. */
int fuzz_open(const uint8_t *data, size_t size, int sealed);

/* fuzz_file.c: the bytes as a file in memory; number 0 or 1, each replaces its last one. Returns its path. */
const char *fuzz_file(int number, const uint8_t *data, size_t size);

/* Aborts unless an error comes with one line of text. */
struct kure_error;
void fuzz_check_error(int status, const struct kure_error *error);

#endif
