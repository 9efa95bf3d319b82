/* export_layout.c: sizes and places of the structs that tests/integer_model.py makes. */
#include "model.h"

#define PLACE(type, field) offsetof(struct kure_integer_##type, field)

const size_t kure_test_layout[] = {
    sizeof(struct kure_integer_tensor), sizeof(struct kure_integer_layer), sizeof(struct kure_integer_output), sizeof(struct kure_integer_golden),
    sizeof(struct kure_integer_model), PLACE(tensor, source), PLACE(layer, codes), PLACE(layer, activation), PLACE(layer, parameter),
    PLACE(output, decoder_type), PLACE(model, pixels), PLACE(model, golden), PLACE(model, file),
};
