/*
 * decode.c: image files as a network's inputs, and those that cannot be read.
 *
 * Prepared as by `darknet classifier valid`: the centre square resized to the network's
 * input; for a detector as by `darknet detector test`: the whole image with grey bars.
 * Darknet's own loader ends the process at a file that it cannot read; here it is
 * found, named and counted, or left out. With OPENCV=1 that loader reads formats which
 * nothing else here knows, and is used as it is.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "evaluate.h"
#ifndef OPENCV
#include "stb_image.h"
#endif

enum {
    KEEP_BYTES = 1 << 30,      /* decoded images are kept up to this size */
    KEEP_ONCE_BYTES = 1 << 25, /* those that are looked at once */
    NAMED = 4,                 /* of the images that cannot be read */
};

/* Why a file cannot hold an image; NULL: perhaps it does. */
static const char *fault_of_file(const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0 || access(path, R_OK) != 0) return "no such file, or it cannot be read";
    if (S_ISDIR(status.st_mode)) return "a directory";
    return status.st_size == 0 ? "an empty file" : NULL;
}

static image prepare(const network *net, image im)
{
    return kure_detector_layer(net) >= 0 ? letterbox_image(im, net->w, net->h) : center_crop_image(im, net->w, net->h);
}

#ifdef OPENCV

static const char *fault_of(const char *path)
{
    return fault_of_file(path);
}

static int decode(const network *net, const char *path, float *out, int size[2])
{
    image im = load_image_color((char *)(uintptr_t)path, 0, 0), square = prepare(net, im);
    size[0] = im.w;
    size[1] = im.h;
    if (out) memcpy(out, square.data, (size_t)net->inputs * sizeof(float));
    free_image(im);
    free_image(square);
    return 1;
}

#else

/* stb takes what is missing of a bitmap for zeros. */
static int is_cut_bitmap(const char *path)
{
    unsigned char head[34];
    struct stat status;
    FILE *file = fopen(path, "rb");
    size_t n = file ? fread(head, 1, sizeof head, file) : 0;
    int known = file && fstat(fileno(file), &status) == 0;
    if (file) fclose(file);
    if (!known || n < sizeof head || memcmp(head, "BM", 2) != 0) return 0;
#define LITTLE_ENDIAN_32(p) ((p)[0] | (uint32_t)(p)[1] << 8 | (uint32_t)(p)[2] << 16 | (uint32_t)(p)[3] << 24)
    uint32_t start = LITTLE_ENDIAN_32(head + 10), header = LITTLE_ENDIAN_32(head + 14), compression = LITTLE_ENDIAN_32(head + 30);
    int64_t width = (int32_t)LITTLE_ENDIAN_32(head + 18), height = (int32_t)LITTLE_ENDIAN_32(head + 22), bits = head[28] | head[29] << 8;
#undef LITTLE_ENDIAN_32
    if (header < 40 || width < 0 || (compression != 0 && compression != 3)) return 0; /* rows are of another size */
    int64_t row_bytes = (width * bits + 31) / 32 * 4;
    return (int64_t)start + row_bytes * llabs(height) > (int64_t)status.st_size;
}

/* Where decode has failed. */
static const char *fault_of(const char *path)
{
    const char *fault = fault_of_file(path);
    int w, h, channels;
    if (fault) return fault;
    return stbi_info(path, &w, &h, &channels) ? "damaged, or cut short" : "no image that Darknet can read";
}

/* out: [3][net->h][net->w], values as of load_image_color; NULL: only whether it can be. size [out]: width and height of
 * the file's image. 0: no image */
static int decode(const network *net, const char *path, float *out, int size[2])
{
    int w = 0, h = 0, channels;
    unsigned char *bytes = stbi_load(path, &w, &h, &channels, 3); /* [h][w][3] */
    int good = bytes && !is_cut_bitmap(path);
    size[0] = w;
    size[1] = h;
    if (!good || !out) {
        free(bytes);
        return good;
    }
    int fits = w == h && w == net->w && h == net->h; /* nothing to cut off or to resize */
    image im = fits ? (image){.w = w, .h = h, .c = 3, .data = out} : make_image(w, h, 3);
    for (int c = 0; c < 3; ++c) {
        for (int i = 0; i < w * h; ++i) im.data[c * w * h + i] = (float)(bytes[3 * i + c] / 255.);
    }
    free(bytes);
    if (fits) return 1;
    image square = prepare(net, im);
    memcpy(out, square.data, (size_t)net->inputs * sizeof(float));
    free_image(im);
    free_image(square);
    return 1;
}

#endif

/* Images first .. first+n-1 to out: [n][net->inputs], or NULL to see only whether they can be
 * read. bad [out]: [n] flags. Returns how many are bad. */
static int decode_some(const network *net, const struct kure_images *images, int first, int n, float *out, char *bad)
{
    int count = 0;
    size_t inputs = (size_t)net->inputs;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) reduction(+ : count)
#endif
    for (int i = 0; i < n; ++i) {
        bad[i] = !decode(net, images->paths[first + i], out ? out + (size_t)i * inputs : NULL, images->sizes[first + i]);
        count += bad[i];
    }
    return count;
}

/* ---- what is bad ----------------------------------------------------------------------- */

static const char *plural(int n)
{
    return n == 1 ? "" : "s";
}

/* One sentence: the first by name, how many there are in all. bad: [images->count] */
static void stop_bad(const struct kure_images *images, const char *bad, int count)
{
    struct kure_error error;
    int first = 0, used;
    while (!bad[first]) ++first;
    used = snprintf(error.text, sizeof error.text, "%s:%d: image %.400s: %s; ", images->file, images->lines[first], images->paths[first],
                    fault_of(images->paths[first]));
    size_t at = used < (int)sizeof error.text ? (size_t)used : sizeof error.text - 1;
    snprintf(error.text + at, sizeof error.text - at, "of %d image%s %d cannot be read%s", images->count, plural(images->count), count,
             count < images->count ? ": --skip-bad leaves such out" : "");
    kure_stop(&error);
}

static void leave_out(const network *net, struct kure_images *images, const char *bad, int count)
{
    int kept = 0, named = 0;
    fprintf(stderr, "%s: %d of %d image%s cannot be read and %s left out:", images->file, count, images->count, plural(images->count),
            count == 1 ? "is" : "are");
    for (int i = 0; i < images->count; ++i) {
        if (bad[i]) {
            if (named < NAMED) fprintf(stderr, "%s %s (line %d: %s)", named ? "," : "", images->paths[i], images->lines[i], fault_of(images->paths[i]));
            else if (named == NAMED) fprintf(stderr, ", and %d more", count - NAMED);
            ++named;
            if (images->boxes) free(images->boxes[i]);
            continue;
        }
        images->paths[kept] = images->paths[i];
        images->lines[kept] = images->lines[i];
        if (images->classes) images->classes[kept] = images->classes[i];
        if (images->boxes) {
            images->boxes[kept] = images->boxes[i];
            images->box_counts[kept] = images->box_counts[i];
        }
        memcpy(images->sizes[kept], images->sizes[i], sizeof images->sizes[kept]);
        if (images->decoded && kept != i) {
            size_t inputs = (size_t)net->inputs;
            memcpy(images->pixels + (size_t)kept * inputs, images->pixels + (size_t)i * inputs, inputs * sizeof(float));
        }
        ++kept;
    }
    fprintf(stderr, "\n");
    images->count = kept;
}

/* ---- the calls --------------------------------------------------------------------------- */

static int fits(const network *net, const struct kure_images *images)
{
    return (size_t)images->count * (size_t)net->inputs * sizeof(float) <= (size_t)(images->once ? KEEP_ONCE_BYTES : KEEP_BYTES);
}

void kure_images_check(const network *net, struct kure_images *images, int skip_bad)
{
    char *bad = calloc((size_t)images->count, 1);
    int count = 0;
    images->sizes = calloc((size_t)images->count, sizeof *images->sizes);
    if (!bad || !images->sizes) kure_stop(&(struct kure_error){"not enough memory for a list of images"});
#ifdef OPENCV
    if (skip_bad) kure_stop(&(struct kure_error){"--skip-bad: this build has OPENCV=1, whose loader ends the process at an image that it cannot read"});
#endif
    for (int i = 0; i < images->count; ++i) count += bad[i] = fault_of_file(images->paths[i]) != NULL; /* before what takes long */
    if (count && !skip_bad) stop_bad(images, bad, count);
    if (fits(net, images)) images->pixels = malloc((size_t)images->count * (size_t)net->inputs * sizeof(float));
    if (images->pixels) count = decode_some(net, images, 0, images->count, images->pixels, bad);
    else if (skip_bad) count = decode_some(net, images, 0, images->count, NULL, bad);
    images->decoded = images->pixels != NULL;
    if (count == images->count || (count && !skip_bad)) stop_bad(images, bad, count);
    if (count) leave_out(net, images, bad, count);
    free(bad);
}

void kure_images_decode_batch(const network *net, const struct kure_images *images, int first, int n, float *out)
{
    char *bad = calloc((size_t)images->count, 1);
    if (!bad) kure_stop(&(struct kure_error){"not enough memory for a list of images"});
    int count = decode_some(net, images, first, n, out, bad + first), next = first + n;
    if (count) { /* and how many more there are */
        count += decode_some(net, images, next, images->count - next, NULL, bad + next);
        stop_bad(images, bad, count);
    }
    free(bad);
}
