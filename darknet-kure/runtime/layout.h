/* layout.h: how numbers lie in a model file. Any alignment, any byte order of the machine. */
#ifndef KURE_RUNTIME_LAYOUT_H
#define KURE_RUNTIME_LAYOUT_H

#include "kure_intmath.h"
#include "kure_runtime.h"

static inline uint32_t kure_word(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* The word as a signed one */
static inline int32_t kure_signed(uint32_t word)
{
    return word <= INT32_MAX ? (int32_t)word : -(int32_t)(UINT32_MAX - word) - 1;
}

static inline uint32_t kure_header_word(const struct kure_model *m, enum kure_header_word word)
{
    return kure_word(m->bytes + 8 + 4 * word);
}

/* Word i of an array at `offset` */
static inline uint32_t kure_array_word(const struct kure_model *m, uint32_t offset, uint32_t i)
{
    return kure_word(m->bytes + offset + 4 * (size_t)i);
}

static inline const int8_t *kure_array_codes(const struct kure_model *m, uint32_t offset)
{
    return (const int8_t *)(m->bytes + offset);
}

/* Code i of packed int4: the low half of a byte comes first. */
static inline int32_t kure_nibble(const uint8_t *packed, size_t i)
{
    int32_t code = packed[i / 2] >> (i % 2 ? 4 : 0) & 15;
    return code < 8 ? code : code - 16;
}

#endif
