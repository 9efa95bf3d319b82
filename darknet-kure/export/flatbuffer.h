/*
 * flatbuffer.h: a FlatBuffer while it is written, from its root on: what a table refers to comes
 * behind it, as offsets there are unsigned. Debian has no C library for FlatBuffers, and its C++
 * one needs a schema that no package holds; this is what a writer of one format needs of it.
 *
 * The format: google.github.io/flatbuffers, "FlatBuffer Internals". Memory that runs out is
 * remembered in `failed`.
 */
#ifndef KURE_EXPORT_FLATBUFFER_H
#define KURE_EXPORT_FLATBUFFER_H

#include <stddef.h>
#include <stdint.h>

struct kure_flatbuffer {
    uint8_t *bytes;
    size_t size, capacity;
    int failed;
};

/* A field of a table: its number in the schema, its bytes (1, 4; 0: an offset, given later), its value. */
struct kure_flat_field {
    int id, bytes;
    uint32_t value;
};

/* Begins a file: the offset of its root, then the identifier of four letters. Returns the slot of that offset. */
size_t kure_flat_begin(struct kure_flatbuffer *f, const char *identifier);

/* Writes a table where `slot` refers to.
 *   slot  [in]: where the offset of this table stands
 *   fields  [in]: [count], ids rising
 *   slots  [out]: [count] where the offsets of those with bytes = 0 stand; may be NULL when there are none */
void kure_flat_table(struct kure_flatbuffer *f, size_t slot, const struct kure_flat_field *fields, int count, size_t *slots);

/* Writes a vector of elements of 1, 4 or 8 bytes. align [in]: of its first element, at least their bytes */
void kure_flat_vector(struct kure_flatbuffer *f, size_t slot, const void *elements, size_t count, size_t bytes, size_t align);
void kure_flat_text(struct kure_flatbuffer *f, size_t slot, const char *text);

/* Writes a vector of offsets; returns the slot of the first, the others follow 4 bytes apart. */
size_t kure_flat_offsets(struct kure_flatbuffer *f, size_t slot, size_t count);

void kure_flat_free(struct kure_flatbuffer *f);

#endif
