/* host_keys.c: see host_keys.h. */
#include "host_keys.h"

#include "options.h"

static const char *const net_keys[] = {
    "B1", "B2", "adam", "angle", "aspect", "batch", "burn_in", "center", "channels", "clip", "decay", "eps", "exposure",
    "gamma", "height", "hue", "inputs", "learning_rate", "max_batches", "max_crop", "max_ratio", "min_crop", "min_ratio",
    "momentum", "notruth", "policy", "power", "random", "saturation", "scale", "scales", "step", "steps", "subdivisions",
    "time_steps", "width",
};

static const char *const layer_keys[] = {
    "absolute", "activation", "alpha", "anchors", "angle", "background", "batch_normalize", "beta", "bias_match", "binary",
    "class_scale", "classes", "classfix", "coord_scale", "coords", "crop_height", "crop_width", "dontload",
    "dontloadscales", "dontsave", "dot", "exposure", "extra", "filters", "flatten", "flip", "flipped", "forced", "from",
    "groups", "hidden_filters", "ids", "ignore_thresh", "jitter", "kappa", "layers", "learning_rate", "log", "map", "mask",
    "mask_scale", "max", "noadjust", "noloss", "noobj", "noobject_scale", "num", "numload", "object_scale", "onlyforward",
    "output", "output_filters", "pad", "padding", "probability", "random", "ratio", "reorg", "rescore", "reverse",
    "saturation", "scale", "shift", "shortcut", "side", "size", "smooth", "softmax", "spatial", "sqrt", "stopbackward",
    "stride", "tanh", "temperature", "thresh", "tree", "truth", "truth_thresh", "type", "xnor",
};

int kure_host_key_distance(int in_net, const char *name)
{
    const char *const *names = in_net ? net_keys : layer_keys;
    int count = in_net ? (int)(sizeof net_keys / sizeof *net_keys) : (int)(sizeof layer_keys / sizeof *layer_keys);
    int nearest = 1000;
    for (int i = 0; i < count; ++i) {
        int distance = kure_edit_distance(name, names[i]);
        if (distance < nearest) nearest = distance;
    }
    return nearest;
}

int kure_is_host_key(const char *name)
{
    return kure_host_key_distance(0, name) == 0 || kure_host_key_distance(1, name) == 0;
}
