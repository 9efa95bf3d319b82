/* flatbuffer.c: see flatbuffer.h. Tested by tests/test_clients_litert.py. */
#include "flatbuffer.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers go into the file as they lie in memory");

/* `count` zeros at the end; returns where they begin. */
static size_t extend(struct kure_flatbuffer *f, size_t count)
{
    size_t at = f->size;
    if (f->size + count > f->capacity) {
        size_t capacity = 2 * (f->size + count) + 1024;
        uint8_t *larger = f->failed ? NULL : realloc(f->bytes, capacity);
        if (!larger) {
            f->failed = 1;
            return 0;
        }
        f->bytes = larger;
        f->capacity = capacity;
    }
    if (count) memset(f->bytes + at, 0, count);
    f->size += count;
    return at;
}

/* So many bytes that place `size + ahead` is a multiple of `to`. */
static void align(struct kure_flatbuffer *f, size_t ahead, size_t to)
{
    extend(f, (to - (f->size + ahead) % to) % to);
}

static void put(struct kure_flatbuffer *f, size_t at, const void *value, size_t bytes)
{
    if (!f->failed && bytes) memcpy(f->bytes + at, value, bytes);
}

static void refer(struct kure_flatbuffer *f, size_t slot, size_t to)
{
    uint32_t offset = (uint32_t)(to - slot);
    put(f, slot, &offset, sizeof offset);
}

size_t kure_flat_begin(struct kure_flatbuffer *f, const char *identifier)
{
    memset(f, 0, sizeof *f);
    size_t slot = extend(f, 8);
    put(f, slot + 4, identifier, 4);
    return slot;
}

void kure_flat_table(struct kure_flatbuffer *f, size_t slot, const struct kure_flat_field *fields, int count, size_t *slots)
{
    int ids = count ? fields[count - 1].id + 1 : 0;
    uint16_t table_bytes = (uint16_t)(4 + 4 * count), vtable_bytes = (uint16_t)(4 + 2 * ids); /* every field on 4 bytes of its own */
    align(f, vtable_bytes, 4);
    size_t vtable = extend(f, vtable_bytes), table = extend(f, table_bytes);
    int32_t back = (int32_t)(table - vtable);
    put(f, vtable, &vtable_bytes, 2);
    put(f, vtable + 2, &table_bytes, 2);
    put(f, table, &back, sizeof back);
    refer(f, slot, table);
    for (int i = 0; i < count; ++i) {
        uint16_t place = (uint16_t)(4 + 4 * i);
        put(f, vtable + 4 + 2 * (size_t)fields[i].id, &place, 2);
        if (fields[i].bytes == 0) slots[i] = table + place;
        else put(f, table + place, &fields[i].value, (size_t)fields[i].bytes);
    }
}

void kure_flat_vector(struct kure_flatbuffer *f, size_t slot, const void *elements, size_t count, size_t bytes, size_t to)
{
    uint32_t length = (uint32_t)count;
    align(f, 4, to < 4 ? 4 : to);
    size_t at = extend(f, 4 + count * bytes);
    put(f, at, &length, sizeof length);
    put(f, at + 4, elements, count * bytes);
    refer(f, slot, at);
}

void kure_flat_text(struct kure_flatbuffer *f, size_t slot, const char *text)
{
    kure_flat_vector(f, slot, text, strlen(text), 1, 4);
    extend(f, 1); /* a zero that the length does not count */
}

size_t kure_flat_offsets(struct kure_flatbuffer *f, size_t slot, size_t count)
{
    uint32_t length = (uint32_t)count;
    align(f, 0, 4);
    size_t at = extend(f, 4 + 4 * count);
    put(f, at, &length, sizeof length);
    refer(f, slot, at);
    return at + 4;
}

void kure_flat_free(struct kure_flatbuffer *f)
{
    free(f->bytes);
    memset(f, 0, sizeof *f);
}
