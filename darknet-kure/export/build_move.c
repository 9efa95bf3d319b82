/* build_move.c: layers that select codes: maxpool, upsample, reorg; and dropout, which is none. */
#include "builder.h"

/* A layer of `kind` whose output has the scale and limits of its input. */
static enum kure_status add_moving(struct kure_builder *b, struct kure_integer_layer *layer)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    int from;
    enum kure_status status = kure_builder_input(b, l->inputs[0], &from);
    if (status != KURE_OK) return status;
    struct kure_integer_tensor out = b->model->tensors[from];
    out.channels = l->channels;
    out.height = l->height;
    out.width = l->width;
    layer->input_count = 1;
    status = kure_builder_add(b, layer, &from, &out, "");
    b->tensors[b->layer][0] = kure_builder_last(b);
    return status;
}

enum kure_status kure_build_maxpool(struct kure_builder *b)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    struct kure_integer_layer layer = {.kind = KURE_KIND_MAXPOOL, .size = l->size, .stride = l->stride, .padding = l->padding};
    return add_moving(b, &layer);
}

enum kure_status kure_build_upsample(struct kure_builder *b)
{
    struct kure_integer_layer layer = {.kind = KURE_KIND_UPSAMPLE, .stride = kure_builder_layer(b)->stride};
    return add_moving(b, &layer);
}

enum kure_status kure_build_reorg(struct kure_builder *b)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    struct kure_integer_layer layer = {.kind = KURE_KIND_REORG, .stride = l->stride, .parameter = {(uint32_t)l->reorg}};
    return add_moving(b, &layer);
}

enum kure_status kure_build_nothing(struct kure_builder *b)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    return kure_builder_input(b, l->inputs[0], &b->tensors[b->layer][0]);
}
