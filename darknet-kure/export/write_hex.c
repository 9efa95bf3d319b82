/*
 * write_hex.c: the model's numbers and the golden feature maps as text for memories of FPGAs
 * and for simulation: hex/NAME.hex for Verilog's $readmemh, mem/NAME.mem for Vivado's
 * updatemem and readers of addresses, coe/NAME.coe for Xilinx's memory generator.
 *
 * A value a line, two's complement, as many hexadecimal digits as its bits take. Arrays are in
 * the order of model.kure: weights [rows][channels][height][width], codes of tensors
 * [channels][height][width]. NAME is that of the tensor which the layer writes and what is in it:
 *
 *   T_weights      1 digit (stored in 4 bits) or 2      T_table      2 digits, index code + 128
 *   T_biases       8 digits; float32 of ncnn, tensorrt  T_parameter  8 digits: 10 words, kure_runtime.h
 *   T_multipliers  8 digits: two words a row            T_codes      2 digits: the golden feature map
 *
 * index.txt says for each file how many values, of how many bits. Tested by tests/test_clients_hex.py.
 */
#define _GNU_SOURCE
#include <stdio.h>

#include "bundle.h"
#include "error.h"
#include "formats.h"

static const struct text_form {
    const char *folder, *begin, *between, *end;
} forms[] = {
    {"hex", "", "\n", "\n"},
    {"mem", "@00000000\n", "\n", "\n"},
    {"coe", "memory_initialization_radix=16;\nmemory_initialization_vector=\n", ",\n", ";\n"},
};
enum { FORMS = sizeof forms / sizeof forms[0], NAME_BYTES = 96 };

struct writer {
    const char *folder;
    const struct text_form *form;
    FILE *index;
};

/* Millions of values: fprintf takes five times as long. */
static void put_hexadecimal(FILE *file, uint32_t value, int digits)
{
    char text[8];
    for (int i = digits; i-- > 0; value >>= 4) text[i] = "0123456789abcdef"[value & 15];
    fwrite(text, 1, (size_t)digits, file);
}

/* One array as one file.
 *   data  [in]: [count] int8, or of 32 bits where bits = 32 */
static enum kure_status array(struct writer *w, const char *tensor, const char *what, int bits, const void *data, size_t count, struct kure_error *error)
{
    char name[NAME_BYTES];
    FILE *file;
    snprintf(name, sizeof name, "%s/%s_%s.%s", w->form->folder, tensor, what, w->form->folder);
    enum kure_status status = kure_bundle_open(w->folder, name, "wb", &file, error);
    if (status != KURE_OK) return status;
    fputs(w->form->begin, file);
    for (size_t i = 0; i < count; ++i) {
        put_hexadecimal(file, bits == 32 ? ((const uint32_t *)data)[i] : (uint32_t)((const int8_t *)data)[i], bits / 4);
        fputs(i + 1 < count ? w->form->between : w->form->end, file);
    }
    fprintf(w->index, "%s %zu values of %d bits\n", name + sizeof "hex/" - 1, count, bits);
    return kure_bundle_close(w->folder, name, file, error);
}

static enum kure_status layer_arrays(struct writer *w, const struct kure_integer_layer *l, const char *name, struct kure_error *error)
{
    size_t rows = (size_t)l->rows;
    enum kure_status status = KURE_OK;
    if (rows) {
        status = array(w, name, "weights", l->stored_bits, l->codes, rows * (size_t)l->row, error);
        if (status == KURE_OK) status = array(w, name, "biases", 32, l->bias_codes ? (const void *)l->bias_codes : l->biases, rows, error);
        if (status == KURE_OK) status = array(w, name, "multipliers", 32, l->multipliers, 2 * rows, error);
    }
    if (status == KURE_OK && l->table) status = array(w, name, "table", 8, l->table, 256, error);
    if (status == KURE_OK && l->arithmetic != KURE_ARITHMETIC_NONE) status = array(w, name, "parameter", 32, l->parameter, 10, error);
    return status;
}

static enum kure_status form_files(struct writer *w, const struct kure_integer_model *m, struct kure_error *error)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s/index.txt", w->form->folder);
    enum kure_status status = kure_bundle_open(w->folder, name, "wb", &w->index, error);
    if (status != KURE_OK) return status;
    for (int i = 0; i < m->layer_count && status == KURE_OK; ++i) status = layer_arrays(w, &m->layers[i], m->tensors[i + 1].name, error);
    for (int t = 0; t <= m->layer_count && m->golden && status == KURE_OK; ++t) {
        status = array(w, m->tensors[t].name, "codes", 8, m->golden->codes[t], kure_integer_elements(&m->tensors[t]), error);
    }
    if (status == KURE_OK) return kure_bundle_close(w->folder, name, w->index, error);
    fclose(w->index);
    return status;
}

enum kure_status kure_write_hex(const struct kure_integer_model *model, const char *folder, struct kure_error *error)
{
    enum kure_status status = KURE_OK;
    for (int i = 0; i < FORMS && status == KURE_OK; ++i) {
        struct writer w = {folder, &forms[i], NULL};
        status = form_files(&w, model, error);
    }
    return status;
}
