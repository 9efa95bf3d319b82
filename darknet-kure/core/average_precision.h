/*
 * average_precision.h: how well a detector finds boxes: average precision as COCO defines it.
 *
 * Source: pycocotools/cocoeval.py (COCOeval.evaluateImg, accumulate, summarize), iouType
 * "bbox", without crowds; the same numbers but for the rounding of sums.
 *   - Of an image and category, the 100 detections of the highest scores count. In that order,
 *     each takes the free box of the largest overlap that reaches a threshold; of equal ones the last.
 *   - Overlap: intersection over union. Thresholds: 0.50, 0.55 ... 0.95.
 *   - Precision, made falling from the right, is read off at the recalls 0, 0.01 ... 1; AP is
 *     its mean over recalls, thresholds and the categories that have a box.
 *   - By size: a box of another size, and a detection that has met it, do not count; neither
 *     does a detection of another size that has met none.
 */
#ifndef KURE_AVERAGE_PRECISION_H
#define KURE_AVERAGE_PRECISION_H

#include "kure.h"

struct kure_rectangle {
    double x, y, width, height; /* pixels of the image; x, y: the upper left corner */
};

struct kure_truth {
    int image, category;        /* from 0 */
    struct kure_rectangle box;
};

struct kure_detected {
    int image, category;
    double score;
    struct kure_rectangle box;  /* one without an area is of no size, and counts as nothing */
};

/* By width * height: small up to 32^2, medium 32^2 to 96^2, large from 96^2; 32^2 and 96^2 are of both. */
enum kure_box_size { KURE_BOX_ANY, KURE_BOX_SMALL, KURE_BOX_MEDIUM, KURE_BOX_LARGE, KURE_BOX_SIZES };

enum { KURE_MOST_DETECTED = 100 }; /* of an image and category */

struct kure_average_precision {
    double ap[KURE_BOX_SIZES];      /* 0..1, mean over the thresholds; NaN: there is no box of that size */
    double ap50, ap75;              /* of any size; NaN: no box */
    double precision, recall, f1;   /* 0..1, at overlap 0.5, of the detections whose score is above `threshold`; precision NaN:
                                     * there are none, recall: no box, f1: neither */
    size_t truths, detections, hits; /* boxes; detections above `threshold`, and those of them that met a box */
};

struct kure_detection_set {
    const struct kure_truth *truths;       /* [truth_count] images in ascending order */
    size_t truth_count;
    const struct kure_detected *detected;  /* [detected_count] images in ascending order; of equal scores the first counts first */
    size_t detected_count;
    int categories;                        /* > 0 */
    double threshold;                      /* of scores */
};

/* categories [out]: [set->categories]; all [out]: the means of their AP, the sums of their counts.
 * Depends on the order of nothing but equal scores. KURE_ERROR_MEMORY. */
KURE_CHECKED enum kure_status kure_average_precision(const struct kure_detection_set *set, struct kure_average_precision *categories,
                                                     struct kure_average_precision *all, struct kure_error *error);

#endif
