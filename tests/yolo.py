"""What Darknet does around a network with [yolo] layers, written anew in NumPy: the image in its grey frame, boxes of the heads' outputs,
suppression. From src/image.c, yolo_layer.c and box.c of Darknet; the numbers are those of `darknet detector valid`."""
import numpy as np

LEAST_SCORE, MOST_OVERLAP = np.float32(.005), np.float32(.45)


def fitted(width, height, to):
    """The size of an image inside `to` (width, height)"""
    w, h = to
    return (w, height * w // width) if w / width < h / height else (width * h // height, h)


def resize(x, width, height):
    """[channels][h][w] -> [channels][height][width]: between two pixels, along rows and then along columns"""
    for axis, size in ((2, width), (1, height)):
        have = x.shape[axis]
        at = np.arange(size, dtype=np.float32) * (np.float32(have - 1) / np.float32(max(size - 1, 1)))
        low = np.minimum(at.astype(int), have - 1)
        share = (at - low).astype(np.float32)
        share[-1] = 0  # the last one is the last one
        low[-1] = have - 1
        share = share.reshape([-1 if i == axis else 1 for i in range(3)])
        x = (1 - share) * np.take(x, low, axis) + share * np.take(x, np.minimum(low + 1, have - 1), axis)
    return x.astype(np.float32)


def letterbox(picture, to):
    """uint8 [h][w][3] -> float32 [3][height][width], 0..1"""
    w, h = fitted(picture.shape[1], picture.shape[0], to)
    out = np.full((3, to[1], to[0]), .5, np.float32)
    top, left = (to[1] - h) // 2, (to[0] - w) // 2
    out[:, top:top + h, left:left + w] = resize(picture.transpose(2, 0, 1).astype(np.float32) / np.float32(255), w, h)
    return out


def logistic(x):
    """To float32, as Darknet keeps it"""
    return (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32)


def decode(values, anchors, network, image):
    """Of one head: values [anchors * (5 + classes)][h][w]; network, image: (width, height). [n][4] centre x, y, width, height in pixels of
    the image, [n][classes] scores; cells row by row, the anchors of each one after the other."""
    rows, height, width = values.shape
    v = values.reshape(len(anchors), rows // len(anchors), height, width).transpose(2, 3, 0, 1)  # [y][x][anchor][row]
    y, x = np.mgrid[0:height, 0:width]
    sides = np.exp(v[..., 2:4].astype(np.float64)) * np.array(anchors) / network
    boxes = np.stack([(x[..., None] + logistic(v[..., 0])) / width, (y[..., None] + logistic(v[..., 1])) / height, sides[..., 0], sides[..., 1]], -1)
    inside = np.array(fitted(*image, network)) / np.array(network)  # the frame's share of the input
    boxes[..., :2] = (boxes[..., :2] - (1 - inside) / 2) / inside
    boxes[..., 2:] /= inside
    boxes *= np.array([*image, *image])
    objectness = logistic(v[..., 4])
    scores = objectness[..., None] * logistic(v[..., 5:])
    keep = objectness > LEAST_SCORE
    return boxes[keep], np.where(scores[keep] > LEAST_SCORE, scores[keep], 0)


def overlaps(a, b):
    """Intersection over union of [n][4] and [m][4], centre and size: [n][m]"""
    low = np.maximum((a[:, :2] - a[:, 2:] / 2)[:, None], (b[:, :2] - b[:, 2:] / 2)[None])
    high = np.minimum((a[:, :2] + a[:, 2:] / 2)[:, None], (b[:, :2] + b[:, 2:] / 2)[None])
    both = np.prod(np.clip(high - low, 0, None), -1)
    return both / (np.prod(a[:, 2:], 1)[:, None] + np.prod(b[:, 2:], 1)[None] - both)


def suppress(boxes, scores):
    """Scores, 0 where a box of the same class with a higher one overlaps too much; of equal scores the first stays, as the sort before left it."""
    scores, order, apart = scores.copy(), np.arange(len(boxes)), overlaps(boxes, boxes) <= MOST_OVERLAP
    for k in range(scores.shape[1]):
        order = order[np.argsort(-scores[order, k], kind="stable")]
        for place, i in enumerate(order):
            if scores[i, k]:
                later = order[place + 1:]
                scores[later, k] *= apart[i, later]
    return scores


def detect(heads, network, image):
    """heads: [(values, anchors)], in the order of the layers. [n][6] class, score, left, top, width, height, cut at the image's edges"""
    boxes, scores = (np.concatenate(part) for part in zip(*[decode(values, anchors, network, image) for values, anchors in heads]))
    scores = suppress(boxes, scores)
    low = np.maximum(boxes[:, :2] - boxes[:, 2:] / 2, 0)
    high = np.minimum(boxes[:, :2] + boxes[:, 2:] / 2, image)
    n, k = np.nonzero(scores)
    return np.c_[k, scores[n, k], low[n], (high - low)[n]]
