/* fuzz_model.h: see fuzz_model.c. */
#ifndef FUZZ_MODEL_H
#define FUZZ_MODEL_H

#include <stddef.h>
#include <stdint.h>

/* Makes size and checksum of a file fit. */
void fuzz_seal(uint8_t *data, size_t size);

/* Opens a copy of the bytes, sealed or as they are, and runs it if it is sound. Returns its
 * enum kure_runtime_status. */
int fuzz_open(const uint8_t *data, size_t size, int sealed);

#endif
