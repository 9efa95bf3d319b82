/* views.c: Darknet's layers as the plan and the core see them. */
#include <stdlib.h>

#include "state.h"

/* Kinds that have weights, and how many rows of how many weights. */
static void view_weights(const layer *l, struct kure_layer_view *v)
{
    switch (l->type) {
    case CONVOLUTIONAL:
        v->weights = KURE_WEIGHTS_CONVOLUTIONAL;
        v->rows = (size_t)l->n;
        v->row_length = (size_t)l->nweights / (size_t)l->n;
        v->groups = l->groups;
        break;
    case CONNECTED: /* nweights is 0 here */
        v->weights = KURE_WEIGHTS_CONNECTED;
        v->rows = (size_t)l->outputs;
        v->row_length = (size_t)l->inputs;
        v->groups = 1;
        break;
    case DECONVOLUTIONAL:
    case LOCAL:
    case RNN:
    case GRU:
    case LSTM:
    case CRNN:
        v->weights = KURE_WEIGHTS_OTHER;
        break;
    default:
        v->weights = KURE_WEIGHTS_NONE;
    }
    v->batch_normalize = l->batch_normalize;
}

static const char *type_name(LAYER_TYPE type)
{
    switch (type) {
    case UPSAMPLE: return "upsample";
    case REORG: return "reorg";
    case LOGXENT: return "logistic";
    case L2NORM: return "l2norm";
    case COST: return "cost";
    case ISEG: return "iseg";
    default: return get_layer_string(type);
    }
}

static int is_head(LAYER_TYPE type)
{
    return type == YOLO || type == REGION || type == DETECTION || type == SOFTMAX || type == COST;
}

static enum kure_flow flow_of(const layer *l)
{
    switch (l->type) {
    case CONVOLUTIONAL:
    case CONNECTED:
    case SHORTCUT:
    case AVGPOOL: return KURE_FLOW_MAKES;
    case ROUTE: return l->n > 1 ? KURE_FLOW_JOINS : KURE_FLOW_SELECTS;
    case MAXPOOL:
    case UPSAMPLE:
    case REORG:
    case DROPOUT: return KURE_FLOW_SELECTS;
    default: return KURE_FLOW_DECODES;
    }
}

static enum kure_activation activation_of(const layer *l)
{
    if (l->type != CONVOLUTIONAL && l->type != CONNECTED && l->type != SHORTCUT) return KURE_ACTIVATION_LINEAR;
    return l->activation == LINEAR ? KURE_ACTIVATION_LINEAR : l->activation == RELU ? KURE_ACTIVATION_RELU : KURE_ACTIVATION_OTHER;
}

/* Rows of an anchor in what [yolo] and [region] read: the box's first, then the scores. */
static void view_head(const network *net, int i, struct kure_layer_view *v)
{
    if (i + 1 >= net->n || (net->layers[i].type != CONVOLUTIONAL && net->layers[i].type != CONNECTED)) return;
    const layer *next = &net->layers[i + 1];
    if (next->type != YOLO && next->type != REGION) return;
    v->head_boxes = next->type == YOLO ? 4 : next->coords;
    v->head_rows = v->head_boxes + 1 + next->classes;
}

/* Darknet's backward pass ends at the flagged layer: it and all before it are frozen. */
static int last_frozen(const network *net)
{
    int last = -1;
    for (int i = 0; i < net->n; ++i) {
        if (net->layers[i].stopbackward) last = i;
    }
    return last;
}

/* The layers that feed layer i; `own` is room for two numbers. */
static void view_inputs(const layer *l, int i, int *own, struct kure_layer_view *v)
{
    if (l->type == ROUTE) {
        v->inputs = l->input_layers;
        v->input_count = l->n;
        return;
    }
    own[0] = i - 1;
    own[1] = l->index;
    v->inputs = own;
    v->input_count = l->type == SHORTCUT ? 2 : 1;
}

/* One block: the views, then two input numbers for each. */
struct kure_layer_view *kure_views_of(const network *net)
{
    size_t n = (size_t)net->n;
    struct kure_layer_view *views = calloc(1, n * sizeof *views + 2 * n * sizeof(int));
    if (!views) return NULL;
    int *own = (int *)(void *)(views + n);
    int frozen = last_frozen(net);
    for (int i = 0; i < net->n; ++i) {
        const layer *l = &net->layers[i];
        struct kure_layer_view *v = &views[i];
        v->type = type_name(l->type);
        v->is_head = is_head(l->type);
        v->flow = flow_of(l);
        v->activation = activation_of(l);
        v->is_binary = l->binary || l->xnor;
        view_head(net, i, v);
        view_weights(l, v);
        view_inputs(l, i, own + 2 * i, v);
        if (i <= frozen) v->left_out = "frozen by stopbackward";
        else if (l->learning_rate_scale == 0) v->left_out = "frozen by learning_rate=0";
        else if (l->binary || l->xnor) v->left_out = "binary weights";
    }
    return views;
}

void kure_views_free(struct kure_layer_view *views)
{
    free(views);
}

struct kure_tensor kure_tensor_of(const layer *l, float *scratch)
{
    struct kure_layer_view v = {0};
    view_weights(l, &v);
    struct kure_tensor t = {.weights = l->weights, .updates = l->weight_updates, .rows = v.rows, .row_length = v.row_length};
    if (l->batch_normalize) {
        t.gamma = l->scales;
        t.variance = l->rolling_variance;
        t.gamma_updates = l->scale_updates;
        t.scratch = scratch;
    }
    return t;
}
