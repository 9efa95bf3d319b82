/*
 * harness.c: Darknet driven from a fixed source of data, for the host tests.
 *
 * Uses the public interface of Darknet alone, so that the same file compiles against
 * the stock tree, the seam with the plugin off, and the seam with the plugin on.
 *
 *   harness train   CFG OUT [options]   updates by train_network, then save_weights
 *   harness step    CFG OUT [options]   the same by hand; tensors before and after each update
 *   harness forward CFG OUT [options]   one batch forward without training; every layer's output
 *   harness many    CFG OUT CFG OUT...  trains the networks in turns, one update each
 *   harness gpus    CFG OUT [options]   GPUs 0 and 1, averaged every -interval N updates; saves OUT.0 and OUT.1
 *   harness show    CFG OUT [options]   loads; writes the tensors, prints updates done
 *   harness predict CFG LIST [options]  network_predict alone, over the images of a list that were decoded
 *                                       before; prints seconds and processor seconds of each of -passes N
 *
 *   -updates N   up to update N in all (default 1)      -weights FILE   loaded first
 *   -seed N      of srand and of the data (default 1)   -clear          as of Darknet's commands
 *   -save_every  saves after each update                -sizes 64,32    resizes, one size an update
 *
 * KURE_TEST_GPU=1: on the GPU, where built with GPU=1.
 *
 * Tensors are written as lines "NAME COUNT" each followed by COUNT float32.
 */
#include "darknet.h"

#include <stdint.h>
#include <time.h>

struct request {
    char *cfg, *out, *weights, *sizes;
    int updates, seed, clear, save_every;
};

/* ---- data: a function of seed, update, image and position alone ---------------- */

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

/* [0, 1) in steps of 2^-24 */
static float uniform(uint64_t seed, uint64_t image, uint64_t i)
{
    return (mix(mix(mix(seed + 1) + image) + i) >> 40) * 0x1p-24f;
}

static void fill_boxes(float *truth, layer l, uint64_t seed, uint64_t image)
{
    for (int b = 0; b < 3; ++b) {
        for (int k = 0; k < 4; ++k) truth[b * 5 + k] = .1f + .8f * uniform(seed, image, 1000 + b * 5 + k);
        truth[b * 5 + 4] = (int)(uniform(seed, image, 1000 + b * 5 + 4) * l.classes);
    }
}

static data make_data(network *net, int seed, size_t update)
{
    data d = {0};
    int images = net->batch * net->subdivisions;
    layer last = net->layers[net->n - 1];
    d.X = make_matrix(images, net->inputs);
    d.y = make_matrix(images, net->truths);
    for (int i = 0; i < images; ++i) {
        uint64_t image = update * images + i;
        for (int k = 0; k < net->inputs; ++k) d.X.vals[i][k] = uniform(seed, image, k + 100000);
        if (last.type == YOLO) fill_boxes(d.y.vals[i], last, seed, image);
        else d.y.vals[i][(int)(uniform(seed, image, 0) * net->outputs)] = 1;
    }
    return d;
}

/* ---- tensors -------------------------------------------------------------------- */

static void write_tensor(FILE *out, int i, const char *name, const float *x, size_t n)
{
    if (!x || n == 0) return;
    fprintf(out, "layers.%d.%s %zu\n", i, name, n);
    fwrite(x, sizeof(float), n, out);
}

/* What training keeps on the GPU, to where it lies on the CPU. */
static void pull(network *net, int outputs)
{
#ifdef GPU
    for (int i = 0; i < net->n && net->gpu_index >= 0; ++i) {
        layer l = net->layers[i];
        size_t weights = l.type == CONVOLUTIONAL ? l.nweights : (size_t)l.inputs * l.outputs, rows = l.type == CONVOLUTIONAL ? l.n : l.outputs;
        if (outputs && l.output_gpu && l.output) cuda_pull_array(l.output_gpu, l.output, (size_t)l.outputs * l.batch);
        if (l.type != CONVOLUTIONAL && l.type != CONNECTED) continue;
        struct { float *from, *to; size_t n; } arrays[] = {
            {l.weights_gpu, l.weights, weights}, {l.weight_updates_gpu, l.weight_updates, weights}, {l.biases_gpu, l.biases, rows},
            {l.bias_updates_gpu, l.bias_updates, rows}, {l.scales_gpu, l.scales, rows}, {l.scale_updates_gpu, l.scale_updates, rows},
            {l.rolling_mean_gpu, l.rolling_mean, rows}, {l.rolling_variance_gpu, l.rolling_variance, rows},
        };
        for (size_t k = 0; k < sizeof arrays / sizeof *arrays; ++k) {
            if (arrays[k].from && arrays[k].to) cuda_pull_array(arrays[k].from, arrays[k].to, arrays[k].n);
        }
    }
#endif
}

static void write_tensors(network *net, const char *prefix, int update, const char *moment, int outputs)
{
    char path[4096];
    snprintf(path, sizeof path, "%s.%d.%s", prefix, update, moment);
    FILE *out = fopen(path, "wb");
    if (!out) exit(3);
    pull(net, outputs);
    for (int i = 0; i < net->n; ++i) {
        layer l = net->layers[i];
        int convolutional = l.type == CONVOLUTIONAL, connected = l.type == CONNECTED;
        size_t weights = convolutional ? l.nweights : connected ? (size_t)l.inputs * l.outputs : 0;
        size_t rows = convolutional ? l.n : connected ? l.outputs : 0;
        write_tensor(out, i, "weights", l.weights, weights);
        write_tensor(out, i, "weight_updates", l.weight_updates, weights);
        write_tensor(out, i, "biases", l.biases, rows);
        write_tensor(out, i, "bias_updates", l.bias_updates, rows);
        write_tensor(out, i, "scales", l.scales, rows);
        write_tensor(out, i, "scale_updates", l.scale_updates, rows);
        write_tensor(out, i, "rolling_mean", l.rolling_mean, rows);
        write_tensor(out, i, "rolling_variance", l.rolling_variance, rows);
        if (outputs) write_tensor(out, i, "output", l.output, (size_t)l.outputs * l.batch);
    }
    if (outputs) write_tensor(out, -1, "input", net->input, (size_t)net->inputs * net->batch);
    if (outputs) write_tensor(out, -1, "truth", net->truth, (size_t)net->truths * net->batch);
    fclose(out);
}

/* ---- commands ------------------------------------------------------------------- */

static network *load(struct request *r)
{
    srand(r->seed);
    return load_network(r->cfg, r->weights, r->clear);
}

static size_t updates_done(network *net)
{
    return *net->seen / ((size_t)net->batch * net->subdivisions);
}

/* "64,32": the size of update 0, 1, 0, 1 ... */
static void resize(network *net, const char *sizes, size_t update)
{
    int size[16], n = 0;
    for (const char *p = sizes; p && n < 16; p = strchr(p, ',') ? strchr(p, ',') + 1 : 0) size[n++] = atoi(p);
    if (n) resize_network(net, size[update % n], size[update % n]);
}

static void train_once(network *net, struct request *r)
{
    resize(net, r->sizes, updates_done(net));
    data d = make_data(net, r->seed, updates_done(net));
    train_network(net, d);
    free_data(d);
}

static void train(struct request *r)
{
    network *net = load(r);
    while (updates_done(net) < r->updates) {
        train_once(net, r);
        if (r->save_every) save_weights(net, r->out);
    }
    if (!r->save_every) save_weights(net, r->out);
    free_network(net);
}

/* What train_network does, taken apart. */
static void step(struct request *r)
{
    network *net = load(r);
    for (int u = 0; u < r->updates; ++u) {
        data d = make_data(net, r->seed, updates_done(net));
        for (int i = 0; i < net->subdivisions; ++i) {
            get_next_batch(d, net->batch, i * net->batch, net->input, net->truth);
            *net->seen += net->batch;
            net->train = 1;
            forward_network(net);
            backward_network(net);
        }
        write_tensors(net, r->out, u, "before", 1);
        update_network(net);
        write_tensors(net, r->out, u, "after", 0);
        free_data(d);
    }
    save_weights(net, r->out);
    free_network(net);
}

static void forward(struct request *r)
{
    network *net = load(r);
    data d = make_data(net, r->seed, 0);
    get_next_batch(d, net->batch, 0, net->input, net->truth);
    net->train = 0;
    forward_network(net);
    write_tensors(net, r->out, 0, "forward", 1);
    free_data(d);
    free_network(net);
}

static void show(struct request *r)
{
    network *net = load(r);
    write_tensors(net, r->out, 0, "loaded", 0);
    printf("%zu\n", updates_done(net));
    free_network(net);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* [images][inputs], prepared as by `classifier valid`; room for whole batches */
static float *decode_list(network *net, char *list_file, int *images)
{
    list *paths = get_paths(list_file);
    char **names = (char **)list_to_array(paths);
    *images = paths->size;
    float *pixels = calloc((size_t)(*images + net->batch) * net->inputs, sizeof(float));
    for (int i = 0; i < *images; ++i) {
        image im = load_image_color(names[i], 0, 0), crop = center_crop_image(im, net->w, net->h);
        memcpy(pixels + (size_t)i * net->inputs, crop.data, net->inputs * sizeof(float));
        free_image(im);
        free_image(crop);
    }
    return pixels;
}

static void predict(struct request *r, int passes)
{
    network *net = load(r);
    int images, batch = net->batch;
    float *pixels = decode_list(net, r->out, &images);
    for (int pass = 0; pass < passes; ++pass) {
        double start = seconds();
        clock_t clocks = clock();
        for (int i = 0; i < images; i += batch) {
            if (images - i < batch) set_batch_network(net, images - i);
            network_predict(net, pixels + (size_t)i * net->inputs);
        }
        printf("%.6f %.6f\n", seconds() - start, (double)(clock() - clocks) / CLOCKS_PER_SEC);
        set_batch_network(net, batch);
    }
    free(pixels);
    free_network(net);
}

static void many(int argc, char **argv, struct request *r)
{
    network *nets[16];
    int n = 0;
    for (int i = 2; i + 1 < argc && argv[i + 1] && n < 16; i += 2) {
        r->cfg = argv[i];
        nets[n++] = load(r);
    }
    for (int u = 0; u < r->updates; ++u) {
        for (int i = 0; i < n; ++i) train_once(nets[i], r);
    }
    for (int i = 0; i < n; ++i) save_weights(nets[i], argv[3 + 2 * i]);
    for (int i = 0; i < n; ++i) free_network(nets[i]);
}

#ifdef GPU
static void gpus(struct request *r, int interval)
{
    network *nets[2];
    for (int i = 0; i < 2; ++i) {
        cuda_set_device(i);
        nets[i] = load(r);
    }
    for (int u = 0; u < r->updates; ++u) {
        data d = concat_data(make_data(nets[0], r->seed, 2 * u), make_data(nets[0], r->seed, 2 * u + 1));
        train_networks(nets, 2, d, interval);
    }
    for (int i = 0; i < 2; ++i) {
        char path[4096];
        snprintf(path, sizeof path, "%s.%d", r->out, i);
        cuda_set_device(i);
        save_weights(nets[i], path);
    }
}
#endif

int main(int argc, char **argv)
{
    struct request r = {0};
    if (argc < 4) return 2;
    r.updates = find_int_arg(argc, argv, "-updates", 1);
    r.seed = find_int_arg(argc, argv, "-seed", 1);
    r.weights = find_char_arg(argc, argv, "-weights", 0);
    r.sizes = find_char_arg(argc, argv, "-sizes", 0);
    r.clear = find_arg(argc, argv, "-clear");
    r.save_every = find_arg(argc, argv, "-save_every");
    gpu_index = getenv("KURE_TEST_GPU") ? 0 : -1;
#ifdef GPU
    if (gpu_index >= 0) cuda_set_device(gpu_index);
#endif
    r.cfg = argv[2];
    r.out = argv[3];
    if (!strcmp(argv[1], "train")) train(&r);
    else if (!strcmp(argv[1], "step")) step(&r);
    else if (!strcmp(argv[1], "forward")) forward(&r);
    else if (!strcmp(argv[1], "show")) show(&r);
    else if (!strcmp(argv[1], "predict")) predict(&r, find_int_arg(argc, argv, "-passes", 1));
#ifdef GPU
    else if (!strcmp(argv[1], "gpus")) gpus(&r, find_int_arg(argc, argv, "-interval", 4));
#endif
    else if (!strcmp(argv[1], "many")) many(argc, argv, &r);
    else return 2;
    return 0;
}
