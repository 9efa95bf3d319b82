"""client_coco.py: in the environment of the clients: pycocotools' COCOeval on in.npz.

in.npz: truths [n][6] image, category, x, y, width, height; detected [n][7] image, category, score, x, y, width, height; categories.
out.npz: ap [categories + 1][any, small, medium, large], the last row that of all; ap50, ap75 [categories + 1]; NaN: no box."""
import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def dataset(rows, images, categories, score):
    annotations = [dict(id=i + 1, image_id=int(row[0]), category_id=int(row[1]), bbox=[float(x) for x in row[-4:]], area=float(row[-2] * row[-1]),
                        iscrowd=0, **({"score": float(row[2])} if score else {})) for i, row in enumerate(rows)]
    coco = COCO()
    coco.dataset = dict(images=[dict(id=i) for i in images], categories=[dict(id=c) for c in range(categories)], annotations=annotations)
    coco.createIndex()
    return coco


def mean(precision):
    return precision[precision > -1].mean() if (precision > -1).any() else np.nan


with np.load("in.npz") as given, contextlib.redirect_stdout(io.StringIO()):
    truths, detected, categories = given["truths"], given["detected"], int(given["categories"])
    images = sorted({int(i) for rows in (truths, detected) for i in rows[:, 0]})
    evaluation = COCOeval(dataset(truths, images, categories, False), dataset(detected, images, categories, True), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
precision = evaluation.eval["precision"][..., -1]  # [threshold][recall][category][size], 100 detections
rows = [precision[:, :, c:c + 1] for c in range(categories)] + [precision]
np.savez("out.npz", ap=np.array([[mean(p[..., s]) for s in range(4)] for p in rows]), ap50=np.array([mean(p[0, ..., 0]) for p in rows]),
         ap75=np.array([mean(p[5, ..., 0]) for p in rows]))
