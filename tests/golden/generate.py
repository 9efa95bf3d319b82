#!/usr/bin/python3
"""Writes the golden values of the unit tests next to this file: make golden.

Nothing here is shared with the C code: exact rational arithmetic (kurtosis.txt,
statistics.txt), PyTorch autograd in float64 (kurtosis_torch.txt), quantizers.py
(policies.txt, learned.txt, observer.txt), theory.py (theory.txt), NumPy (the rest). A file holds a head of # lines, then records: "case NAME" and lines
"KEY COUNT VALUE...".
"""
import pathlib
import platform
from fractions import Fraction

import numpy as np
import torch

import quantizers
import theory

SEED = 20200707
HERE = pathlib.Path(__file__).parent
GRIDS = ("narrow", "full", "midrise")  # the order of enum kure_grid


def decimal(x, digits):
    """float32: the shortest decimal that reads back as the same number; others: so many digits."""
    if isinstance(x, np.float32) and np.isfinite(x):
        return np.format_float_scientific(x, unique=True, trim="-").replace("e+00", "")
    return f"{x:.{digits}g}"


class File:
    def __init__(self, name, what):
        self.path = HERE / name
        self.lines = [
            f"# {what}",
            f"# tests/golden/generate.py, Python {platform.python_version()}, NumPy {np.__version__}, "
            f"PyTorch {torch.__version__}, seed {SEED}",
        ]

    def case(self, name, **values):
        self.lines.append(f"case {name}")
        for key, value in values.items():
            array = np.atleast_1d(value).ravel()
            self.lines.append(f"{key} {len(array)} " + " ".join(decimal(x, 13 if len(array) > 4 else 17) for x in array))

    def write(self):
        self.path.write_text("\n".join(self.lines) + "\n")
        print(f"{self.path.name}: {self.path.stat().st_size} bytes")


def lcg(n, seed):
    """Integers (sum of four 16-bit numbers - 131070), as tests/unit/check.c draws them."""
    state, out = seed, []
    for _ in range(n):
        total = 0
        for _ in range(4):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            total += state >> 48
        out.append(total - 131070)
    return out


# ---- exact -----------------------------------------------------------------

def exact_moments(values):
    """mean, [m2, m3, m4, m6] of Fractions or integers, exactly"""
    n = len(values)
    mean = Fraction(sum(values)) / n
    return mean, [sum((v - mean) ** k for v in values) / n for k in (2, 3, 4, 6)]


def exact_kurtosis(w, target):
    """For both definitions of s: K, (K - K_T)^2 and its gradient, exactly, then rounded. By
    kure.h a float below FLT_MIN counts as 0."""
    values = [Fraction(float(x)) if abs(x) >= np.finfo(np.float32).tiny else Fraction(0) for x in w]
    n = len(values)
    mean, (m2, m3, m4, _) = exact_moments(values)
    out = {}
    for std, s2 in (("unbiased", m2 * n / (n - 1)), ("biased", m2)):
        k = m4 / s2**2
        scale = 2 * (k - Fraction(target)) * 4 / (n * s2**2)
        gradient = [scale * ((v - mean) ** 3 - m3 - m4 / m2 * (v - mean)) for v in values]
        out[f"kurtosis_{std}"] = float(k)
        out[f"loss_{std}"] = float((k - Fraction(target)) ** 2)
        out[f"gradient_{std}"] = np.array([float(g) for g in gradient])
    return out


def kurtosis_file(rng):
    file = File("kurtosis.txt", "kurtosis, (K - K_T)^2 and its gradient, exact rational arithmetic")
    normal = rng.standard_normal
    outlier = lambda n, a: np.where(np.arange(n) == n // 3, a, normal(n))
    tensors = {
        "normal_16": (normal(16), 1.8),
        "normal_17": (0.03 * normal(17), 1.8),
        "normal_300": (0.03 * normal(300), 1.8),
        "uniform_64": (rng.uniform(-1, 1, 64), 3.0),
        "laplace_200": (0.01 * rng.laplace(size=200), 1.8),
        "exponential_100": (rng.exponential(size=100), 1.8),
        "mean_1e2_sigma": (1 + 1e-2 * normal(200), 1.8),
        "mean_1e4_sigma": (1 + 1e-4 * normal(200), 1.8),
        "mean_-1e4_sigma": (-30 + 3e-3 * rng.laplace(size=200), 1.8),
        "outlier_1e2": (outlier(200, 1e2), 1.8),
        "outlier_1e4": (outlier(200, 1e4), 1.8),
        "outlier_-1e6": (outlier(200, -1e6), 1.8),
        "two_clusters": (np.where(np.arange(200) % 2, 1, -1) + 1e-3 * normal(200), 1.8),
        "mostly_zero": (np.where(np.arange(300) % 30, 0, normal(300)), 1.8),
        "sigma_1e-15": (1e-15 * normal(100), 1.8),
        "sigma_1e15": (1e15 * normal(100), 1.8),
        "sigma_1e-36": (1e-36 * normal(100), 1.8),
        "with_subnormals": (np.where(np.arange(100) % 4, normal(100) * 1e-37, 0), 1.8),
    }
    for name, (w, target) in tensors.items():
        w = np.float32(w)
        file.case(name, w=w, target=target, **exact_kurtosis(w, target))
    file.write()


def statistics_file():
    file = File("statistics.txt", "moments of LCG integers * scale + shift (check.c), exact rational arithmetic")
    for n in (1, 2, 15, 16, 17, 1000, 16383, 16384, 16385, 32768, 65537, 100003):
        for shift in (0, 100):
            integers = lcg(n, n)
            mean, moments = exact_moments(integers)
            file.case(f"lcg_{n}_shift_{shift}", n=n, shift=shift, mean=float(mean / 65536 + shift),
                      moments=np.array([float(m / Fraction(65536) ** k) for m, k in zip(moments, (2, 3, 4, 6))]),
                      min=min(integers) / 65536 + shift, max=max(integers) / 65536 + shift)
    file.write()


# ---- PyTorch ---------------------------------------------------------------

def torch_loss(w, target, unbiased, by_row):
    rows = w if by_row else w.reshape(1, -1)
    mean = rows.mean(dim=1, keepdim=True)
    std = torch.std(rows, dim=1, unbiased=unbiased, keepdim=True)
    kurtosis = (((rows - mean) / std) ** 4).mean(dim=1)
    return kurtosis.mean(), ((kurtosis - target) ** 2).mean()


def torch_file(rng):
    file = File("kurtosis_torch.txt", "loss and gradients by autograd in float64; rows of w are output channels; "
                                      "gradient: with fold without its component along each row of w")
    shapes = ((4, 27, "normal"), (3, 72, "laplace"), (6, 16, "exponential"))
    for rows, length, shape in shapes:
        for by_row in (0, 1):
            for fold in (0, 1):
                for unbiased in (0, 1):
                    sample = {"normal": rng.standard_normal, "laplace": rng.laplace,
                              "exponential": rng.exponential}[shape]
                    w = np.float32(0.05 * sample(size=(rows, length)))
                    gamma = np.float32(rng.uniform(0.5, 2, rows))
                    gamma[1] *= -1
                    gamma[2] = 0
                    variance = np.float32(rng.uniform(0.01, 3, rows))
                    tw = torch.tensor(w, dtype=torch.float64, requires_grad=True)
                    tg = torch.tensor(gamma, dtype=torch.float64, requires_grad=True)
                    sigma = torch.sqrt(torch.tensor(variance, dtype=torch.float64) + 1e-5)
                    x = tw * (tg / sigma)[:, None] if fold and not by_row else tw
                    kurtosis, loss = torch_loss(x, 1.8, bool(unbiased), by_row)
                    loss.backward()
                    gradient = tw.grad.numpy()
                    gamma_gradient = np.zeros(rows)
                    if fold and not by_row:
                        along = (gradient * w).sum(1) / (np.float64(w) ** 2).sum(1)
                        gradient = gradient - along[:, None] * w
                        gamma_gradient = tg.grad.numpy()
                    file.case(f"{shape}_{rows}x{length}_{'channel' if by_row else 'tensor'}"
                              f"_fold{fold}_{'unbiased' if unbiased else 'biased'}",
                              rows=rows, by_row=by_row, fold=fold, unbiased=unbiased, w=w, gamma=gamma,
                              variance=variance, kurtosis=kurtosis.item(), loss=loss.item(),
                              gradient=gradient, gamma_gradient=gamma_gradient)
    file.write()


# ---- NumPy -----------------------------------------------------------------

def levels(bits, grid):
    half = 2 ** (bits - 1)
    return (1 - half if grid == "narrow" else -half), half - 1, 0.5 if grid == "midrise" else 0.0


def fake_quantize(x, step, bits, grid):
    """In the type of x; np.round rounds ties to even."""
    low, high, offset = (x.dtype.type(v) for v in levels(bits, grid))
    return step * (np.clip(np.round(x / step - offset), low, high) + offset)


def quantize_file(rng):
    file = File("quantize.txt", "fake quantization in float32 by NumPy")
    for bits in (2, 3, 4, 8, 16):
        for grid in GRIDS:
            for step in (0.125, 0.1, 3e-5, 7e10):
                step = np.float32(step)
                codes = np.arange(-10, 11) / 2  # ties and whole codes
                edge = 2.0 ** (bits - 1) + np.arange(-4, 5) / 4
                x = np.concatenate([codes, edge, -edge, rng.uniform(-1, 1, 40) * 2 ** (bits - 1),
                                    [1e-30, -1e-30, 1e20, -1e20]])
                x = np.float32(x * np.float64(step))
                x = np.concatenate([x, np.float32([0, 3e38, -3e38, np.inf, -np.inf, np.nan])])
                with np.errstate(all="ignore"):
                    y = fake_quantize(np.where(np.isnan(x), np.float32(0), x), step, bits, grid)
                file.case(f"{grid}_{bits}_{step}", bits=bits, grid=GRIDS.index(grid), step=step, x=x, y=y + 0)
    file.write()


def error(x, steps, bits, grid):
    """sum (x - Q(x))^2 in float64 for each of steps"""
    return np.array([((x - fake_quantize(x, s, bits, grid)) ** 2).sum() for s in steps])


def brute_force(x, bits, grid, points):
    """Least squared error over a dense grid of steps, then over a denser one around the best."""
    low, high, offset = levels(bits, grid)
    covering = max(x.max() / (high + offset), x.min() / (low + offset))
    steps = np.linspace(0, 1.1 * covering, points + 1)[1:]
    best = steps[np.argmin(error(x, steps, bits, grid))]
    steps = best + np.linspace(-2, 2, 401) * covering / points
    errors = error(x, steps[steps > 0], bits, grid)
    return covering, steps[steps > 0][np.argmin(errors)], errors.min()


def step_file(rng):
    file = File("step_size.txt", "step of least squared error by brute force in float64; x, or n numbers of the LCG "
                                 "of check.c; results: bits, grid, covering step, best step, its error")
    samples = {
        "normal": rng.standard_normal(150), "laplace": rng.laplace(size=300), "uniform": rng.uniform(-1, 1, 100),
        "exponential": rng.exponential(size=200), "negative": -rng.exponential(size=90),
        "outlier": np.append(rng.standard_normal(199), 60), "few": rng.standard_normal(5),
        "levels": 0.3 * rng.integers(-3, 4, 120),
    }
    tensors = {name: (np.float32(x * 0.02), 0) for name, x in samples.items()}
    tensors |= {f"lcg_{n}": (np.float32(lcg(n, n)) / 65536, n) for n in (8191, 8192, 20000)}
    for name, (x, n) in tensors.items():
        results = [(bits, GRIDS.index(grid), *brute_force(np.float64(x), bits, grid, 500 if n else 4000))
                   for bits in (2, 3, 4, 6, 8) for grid in GRIDS]
        file.case(name, n=n, x=x[:0] if n else x, signal=(np.float64(x) ** 2).sum(), results=np.array(results))
    file.write()


if __name__ == "__main__":
    for make in (kurtosis_file, torch_file, quantize_file, step_file):
        make(np.random.default_rng(SEED))
    statistics_file()
    for make in (quantizers.policies_file, quantizers.learned_file, quantizers.observer_file, theory.theory_file):
        make(File, lcg)
