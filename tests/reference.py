"""KURE in NumPy float64, from the definition and not from the gradient's formula: derivatives are taken by the
complex step (f(x + ih).imag / h, exact to double rounding, since K is a quotient of polynomials)."""
import numpy as np

STEP = 1e-30
MIN_WEIGHTS = 16


def kurtosis(w, std="unbiased"):
    """m4 / s^4 along the last axis."""
    n = w.shape[-1]
    d = w - w.mean(-1, keepdims=True)
    square = d * d
    m2, m4 = square.mean(-1), (square * square).mean(-1)
    s2 = m2 * n / (n - 1) if std == "unbiased" else m2
    return m4 / (s2 * s2)


def loss(w, target, std="unbiased", granularity="tensor", fold=None):
    """(K - K_T)^2 of w[..., rows, row_length], or its mean over rows; fold = (gamma[..., rows], variance[rows])."""
    if fold is not None:
        gamma, variance = fold
        w = w * (gamma / np.sqrt(variance + 1e-5))[..., None]
    if granularity == "tensor":
        return (kurtosis(w.reshape(*w.shape[:-2], -1), std) - target) ** 2
    return ((kurtosis(w, std) - target) ** 2).mean(-1)


def derivative(function, x):
    """d function / d x, element by element; function takes a stack [k, *x.shape] and returns [k]."""
    out = np.empty(x.size)
    for first in range(0, x.size, 64):
        elements = np.arange(first, min(first + 64, x.size))
        stack = np.repeat(np.asarray(x, np.complex128).reshape(1, -1), elements.size, 0)
        stack[np.arange(elements.size), elements] += 1j * STEP
        out[elements] = function(stack.reshape(elements.size, *x.shape)).imag / STEP
    return out.reshape(x.shape)


def gradients(w, target, std="unbiased", granularity="tensor", fold=None):
    """(d loss / d w, d loss / d gamma or None). With fold the weights' part loses its component along each row."""
    w = np.asarray(w, np.float64)
    gw = derivative(lambda x: loss(x, target, std, granularity, fold), w)
    if fold is None:
        return gw, None
    gamma, variance = (np.asarray(x, np.float64) for x in fold)
    gg = derivative(lambda x: loss(w, target, std, granularity, (x, variance)), gamma)
    along = (gw * w).sum(1) / (w * w).sum(1)
    return gw - along[:, None] * w, gg


def updated(w, updates, rate, batch, momentum, decay):
    """Darknet's SGD on one tensor: (weights, momentum buffer) afterwards."""
    updates = updates - decay * batch * w
    return w + rate / batch * updates, momentum * updates
