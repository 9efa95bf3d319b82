/* run.c: from an image's codes to those of all tensors. */
#include "kinds.h"

#include <string.h>

enum kure_runtime_status kure_runtime_start(const struct kure_model *model, void *arena, size_t arena_bytes, const int8_t *input)
{
    struct kure_model_tensor t = kure_runtime_tensor(model, 0);
    int8_t *codes = (int8_t *)arena + t.place;
    if (arena_bytes < kure_runtime_arena_bytes(model) || (uintptr_t)arena % 4) return KURE_RUNTIME_ARENA;
    for (uint32_t i = 0; i < t.elements; i++) codes[i] = (int8_t)kure_limit(input[i], t.low, t.high);
    return KURE_RUNTIME_OK;
}

void kure_runtime_step(const struct kure_model *model, void *arena, uint32_t layer)
{
    struct kure_placed_layer v;
    kure_layer_see(model, layer, &v);
    kure_kind_rows[v.l.kind].run(model, &v, arena, (uint8_t *)arena + ((size_t)model->activation_bytes + 3) / 4 * 4);
}

enum kure_runtime_status kure_runtime_run(const struct kure_model *model, void *arena, size_t arena_bytes, const int8_t *input)
{
    enum kure_runtime_status status = kure_runtime_start(model, arena, arena_bytes, input);
    for (uint32_t i = 0; status == KURE_RUNTIME_OK && i < model->layer_count; i++) kure_runtime_step(model, arena, i);
    return status;
}

const int8_t *kure_runtime_codes(const struct kure_model *model, const void *arena, uint32_t tensor)
{
    return (const int8_t *)arena + kure_runtime_tensor(model, tensor).place;
}
