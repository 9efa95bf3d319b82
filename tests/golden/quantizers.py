"""Golden values of quantizers: policies.txt, learned.txt. A part of generate.py.

policies.txt: NumPy and scipy: brute force, numerical integration, and NVIDIA's entropy calibration written as theirs.
learned.txt: PyTorch autograd in float32. Inputs are the LCG's of tests/unit/check.c, changed as `shape` says.
"""
import numpy as np
import scipy.integrate
import scipy.optimize
import scipy.stats
import torch

POLICIES = ("minmax", "ema", "percentile", "mse", "kl", "gauss", "laplace", "lp", "sigma", "fixed")  # enum kure_truncation
SHAPES = ("plain", "cubed", "relu", "shifted", "outlier", "constant")
BITS = (2, 4, 8)


def shape_of(x, shape):
    """float32 operations only, as in tests/unit/test_policies.c"""
    x = x.copy()
    if shape == "cubed":
        x = x * x * x
    elif shape == "relu":
        x = np.maximum(x, np.float32(0))
    elif shape == "shifted":
        x = x + np.float32(1.5)
    elif shape == "outlier":
        x[5] = 60
    elif shape == "constant":
        x[:] = np.float32(-0.3)
    return x


# ---- ranges ----------------------------------------------------------------

def entropy_bound(x, bits, unsigned):
    """NVIDIA pytorch-quantization, calib/histogram.py, _compute_amax_entropy with 2048 bins, start_bin 128, stride 1."""
    bins, edges = np.histogram(np.abs(x), bins=2048, range=(0, np.abs(x).max()))
    bins[0] = bins[1]
    nbins = 1 << (bits - 1 + int(unsigned))
    divergences = []
    start = max(128, nbins)
    for i in range(start, len(bins) + 1):
        space = np.linspace(0, i, num=nbins + 1)
        cell = np.digitize(range(i), space) - 1
        filled = bins[:i] > 0
        sums = np.bincount(cell[filled], weights=bins[:i][filled], minlength=nbins)
        counts = np.bincount(cell[filled], minlength=nbins)
        new = np.where(filled, (sums / np.maximum(counts, 1))[cell], 0)
        reference = bins[:i].astype(np.float64)
        reference[-1] += bins[i:].sum()
        with np.errstate(all="ignore"):
            divergences.append(scipy.stats.entropy(reference, new) if new.sum() > 0 else np.inf)
    divergences = np.round(divergences, 12)  # equal ones differ in their last bits
    return edges[len(divergences) - 1 - np.argmin(divergences[::-1]) + start]


def best_clip(density, bits):
    """argmin of the expected squared error of 2^bits intervals between -r and r, by integration"""
    def error(r):
        tail = scipy.integrate.quad(lambda t: t * t * density(r + t), 0, 60, epsabs=1e-15, epsrel=1e-11, limit=200)[0]
        return 2 * tail + (2 * r / 2**bits) ** 2 / 12
    return scipy.optimize.minimize_scalar(error, bounds=(0.1, 14), method="bounded", options={"xatol": 1e-10}).x


NORMAL = {bits: best_clip(scipy.stats.norm.pdf, bits) for bits in (2, 3, 4, 5, 8, 9)}
LAPLACE = {bits: best_clip(scipy.stats.laplace.pdf, bits) for bits in (2, 3, 4, 5, 8, 9)}


def aciq(x, bits, symmetric, clips, spread):
    if x.min() < 0 < x.max():
        center, reach = x.mean(), clips[bits] * spread(x - x.mean())
    else:
        center, reach = 0, clips[bits if symmetric else bits + 1] * spread(x[x != 0])
    return max(center - reach, x.min()), min(center + reach, x.max())


def range_of(x, policy, value, bits, symmetric):
    if policy == "percentile":
        if not symmetric:
            return np.percentile(x, 100 - value), np.percentile(x, value)
        reach = np.percentile(np.abs(x), value)
    elif policy == "kl":
        reach = entropy_bound(x, bits, not symmetric and (x.min() >= 0 or x.max() <= 0))
    elif policy == "gauss":
        return aciq(x, bits, symmetric, NORMAL, lambda d: np.sqrt((d**2).mean()))
    elif policy == "laplace":
        return aciq(x, bits, symmetric, LAPLACE, lambda d: np.abs(d).mean())
    elif policy == "sigma":
        return max(x.mean() - value * x.std(), x.min()), min(x.mean() + value * x.std(), x.max())
    elif policy == "fixed":
        return (-value if symmetric or x.min() < 0 else 0), (value if symmetric or x.max() > 0 else 0)
    else:
        return x.min(), x.max()
    return max(-reach, x.min()), min(reach, x.max())


def scale_of(low, high, bits, symmetric):
    """(step, zero point): narrow grid, or full with a free zero point"""
    if symmetric:
        return max(-low, high, 0) / (2 ** (bits - 1) - 1), 0
    low, high = min(low, 0), max(high, 0)
    step = np.float64(np.float32((high - low) / (2**bits - 1)))
    lowest = -(2 ** (bits - 1))
    return step, int(np.clip(lowest - np.round(low / step), lowest, -lowest - 1))


def mean_error(x, step, zero_point, bits, symmetric, p):
    lowest = 1 - 2 ** (bits - 1) if symmetric else -(2 ** (bits - 1))
    codes = np.clip(np.round(x / step) + zero_point, lowest, 2 ** (bits - 1) - 1)
    return (np.abs(x - step * (codes - zero_point)) ** p).mean()


def least_error(x, bits, symmetric, p):
    """By brute force: over steps, or over both ends of the range."""
    shares = np.geomspace(0.01, 1.05, 400) if symmetric else np.geomspace(0.04, 1, 45)
    if symmetric:
        return min(mean_error(x, scale_of(s * x.min(), s * x.max(), bits, True)[0], 0, bits, True, p) for s in shares)
    ends = [(a * min(x.min(), 0), b * max(x.max(), 0)) for a in (shares if x.min() < 0 else (1,)) for b in (shares if x.max() > 0 else (1,))]
    return min(mean_error(x, *scale_of(*end, bits, False), bits, False, p) for end in ends)


def policies_file(File, lcg):
    file = File("policies.txt", "of n LCG numbers, seed n, in a shape (test_policies.c); scales: policy, value, bits, symmetric, "
                                "step, zero point; errors: policy, value, bits, symmetric, least mean |x - Q(x)|^p")
    for n in (3000, 20000):
        for shape in SHAPES:
            x = np.float64(shape_of(np.float32(lcg(n, n)) / np.float32(65536), shape))
            scales, errors = [], []
            for bits in BITS:
                for symmetric in (1, 0):
                    for policy, value in (("minmax", 0), ("percentile", 99), ("percentile", 80.5), ("kl", 0), ("gauss", 0), ("laplace", 0),
                                          ("sigma", 2.5), ("fixed", 0.5)):
                        found = scale_of(*range_of(x, policy, value, bits, symmetric), bits, symmetric)
                        scales.append((POLICIES.index(policy), value, bits, symmetric, *found))
                    for policy, value in (("mse", 0), ("lp", 1), ("lp", 2.5), ("lp", 4)) if n == 3000 and bits < 8 else ():
                        errors.append((POLICIES.index(policy), value, bits, symmetric, least_error(x, bits, symmetric, value or 2)))
            file.case(f"{shape}_{n}", n=n, shape=SHAPES.index(shape), scales=np.array(scales), errors=np.array(errors))
    file.write()


# ---- backward --------------------------------------------------------------

class Round(torch.autograd.Function):
    """torch.round, straight through"""
    @staticmethod
    def forward(context, t):
        return torch.round(t)

    @staticmethod
    def backward(context, gradient):
        return gradient


class ScaleGradient(torch.autograd.Function):
    """LSQ's gradscale, without its rounding of the value."""
    @staticmethod
    def forward(context, value, scale):
        context.scale = scale
        return value.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * context.scale, None


def learned_file(File, lcg):
    file = File("learned.txt", "PyTorch autograd, float32, of n LCG numbers, seed n, gradient: seed n + 1; case: y and dx, and the "
                               "gradient of the step, clip or exponent (parameter)")
    n = 97
    x = np.float32(lcg(n, n)) / np.float32(65536)
    dy = torch.tensor(np.float32(lcg(n, n + 1)) / np.float32(65536))

    def case(name, y, tx, parameter=None, **values):
        y.backward(dy)
        gradient = {} if parameter is None else {"gradient": parameter.grad.item()}
        file.case(name, **values, y=y.detach().numpy() + np.float32(0), dx=tx.grad.numpy() + np.float32(0), **gradient)

    for bits, step, zero_point in ((4, 0.1, 0), (4, 0.25, -3), (3, 0.3, 2), (8, 0.01, 100)):
        tx = torch.tensor(x, requires_grad=True)
        low, high = (1 - 2 ** (bits - 1) if zero_point == 0 else -(2 ** (bits - 1))), 2 ** (bits - 1) - 1
        y = torch.fake_quantize_per_tensor_affine(tx, step, zero_point, low, high)
        case("ste", y, tx, bits=bits, step=np.float32(step), zero_point=zero_point)
    for bits, step, zero_point, exponent in ((4, 0.1, 0, 0), (3, 0.2, -4, 0), (2, 0.7, 0, 0), (4, -2.3, 0, 1)):
        tx = torch.tensor(x, requires_grad=True)
        low, high = (1 - 2 ** (bits - 1) if zero_point == 0 else -(2 ** (bits - 1))) - zero_point, 2 ** (bits - 1) - 1 - zero_point
        parameter = torch.tensor(np.float32(step), requires_grad=True)
        scaled = ScaleGradient.apply(parameter, 1 / np.sqrt(n * high))
        s = 2 ** Round.apply(scaled) if exponent else scaled
        t = torch.clamp(tx / s, low - 0.5, high + 0.5)  # the mask is that of the code before clamping
        y = torch.where(Round.apply(tx / s) < low, low * s, torch.where(Round.apply(tx / s) > high, high * s, Round.apply(t) * s))
        case("lsq", y, tx, parameter, bits=bits, step=np.float32(step), zero_point=zero_point, exponent=exponent)
    for bits, clip in ((4, 1.1), (2, 0.4)):
        tx = torch.tensor(x, requires_grad=True)
        alpha = torch.tensor(np.float32(clip), requires_grad=True)
        clipped = torch.where(tx < 0, torch.zeros_like(tx), torch.where(tx < alpha, tx, alpha))
        step = (alpha / (2**bits - 1)).detach()
        y = clipped + (torch.round(clipped / step) * step - clipped).detach()
        case("pact", y, tx, alpha, bits=bits, clip=np.float32(clip))
    for bits, ties in ((2, 0), (4, 0), (4, 1)):
        values = x.copy()
        if ties:
            values[[3, 7]], values[9] = 1.9, -1.9
        tx = torch.tensor(values, requires_grad=True)
        out = tx.tanh()
        out = out / (2 * out.abs().max()) + 0.5
        levels = 2**bits - 1
        out = out + (torch.round(levels * out) / levels - out).detach()
        case("dorefa", 2 * out - 1, tx, bits=bits, ties=ties)
    file.write()


def observer_file(File, lcg):
    """PyTorch's own observers over batches of 50 numbers, the k-th of them times k + 1, plus shift."""
    file = File("observer.txt", "PyTorch's MinMaxObserver and MovingAverageMinMaxObserver, qint8 affine: step and zero point after each of 6 batches")
    for shift in (0, 0.75, -5):
        observers = [torch.ao.quantization.MinMaxObserver(dtype=torch.qint8, qscheme=torch.per_tensor_affine),
                     torch.ao.quantization.MovingAverageMinMaxObserver(averaging_constant=0.1, dtype=torch.qint8, qscheme=torch.per_tensor_affine)]
        x, scales = np.float32(lcg(300, 9)) / np.float32(65536), []
        for k in range(6):
            batch = x[50 * k:50 * k + 50] * np.float32(k + 1) + np.float32(shift)
            for observer in observers:
                observer(torch.tensor(batch))
                step, zero_point = observer.calculate_qparams()
                scales += [step.item(), zero_point.item()]
        file.case(f"shift_{shift}", shift=shift, scales=np.array(scales))
    file.write()
