"""Golden values of section 3 of the paper: theory.txt. A part of generate.py.

Densities by scipy.stats, integrals cell by cell by scipy.integrate.quad, the best step as the root of the integral of
the derivative. Of darknet-kure's formulas (erfc, tails) nothing is used.
"""
import numpy as np
import scipy
import scipy.integrate
import scipy.optimize
import scipy.stats

ROOT_3 = 3 ** 0.5
DENSITIES = {  # the order of enum kure_density; where the integrals end
    "uniform": (scipy.stats.uniform(-ROOT_3, 2 * ROOT_3), ROOT_3),
    "normal": (scipy.stats.norm(), 14.0),
    "laplace": (scipy.stats.laplace(0, 0.5 ** 0.5), 40.0),
}
GRIDS = ("narrow", "full", "midrise")  # the order of enum kure_grid
RATIOS = (0.5, 0.8, 0.9, 1.1, 1.2, 2.0)


def levels(bits, grid):
    half = 2 ** (bits - 1)
    return np.arange(1 - half if grid == "narrow" else -half, half) + (0.5 if grid == "midrise" else 0.0)


def expectation(pdf, end, steps, level, function):
    """E[function(x, D l)] where l is the nearest level: one quad a cell, and one a side of 0"""
    limits = np.concatenate(([-np.inf], (level[1:] + level[:-1]) / 2 * steps, [np.inf]))
    total = []
    for low, high, l in zip(limits[:-1], limits[1:], level):
        low, high = max(low, -end), min(high, end)
        edges = [low, *[e for e in (-7.0, 0.0, 7.0) if low < e < high], high]
        total += [scipy.integrate.quad(lambda x: function(x, l) * pdf(x), a, b, epsabs=1e-14, epsrel=1e-11, limit=200)[0]
                  for a, b in zip(edges[:-1], edges[1:]) if a < b]
    return float(np.sum(sorted(total, key=abs)))


def plain(name):
    """The density written out: scipy's own pdf is slow."""
    return {"uniform": lambda x: 1 / (2 * ROOT_3), "normal": lambda x: np.exp(-x * x / 2) / (2 * np.pi) ** 0.5,
            "laplace": lambda x: np.exp(-abs(x) * 2 ** 0.5) / 2 ** 0.5}[name]


def mse(name, step, level):
    return expectation(plain(name), DENSITIES[name][1], step, level, lambda x, l: (x - step * l) ** 2)


def slope(name, step, level):
    return expectation(plain(name), DENSITIES[name][1], step, level, lambda x, l: l * (step * l - x))


def best_step(name, level):
    """First among 300 steps on a table of the density, then by root finding."""
    x = np.linspace(-1, 1, 20001) * min(DENSITIES[name][1], 14)
    weight = DENSITIES[name][0].pdf(x)

    def rough(step):
        return (weight * (x - step * (np.clip(np.round(x / step - level[0]), 0, len(level) - 1) + level[0])) ** 2).sum()

    steps = np.geomspace(3.3, 16, 300) / len(level)
    guess = steps[np.argmin([rough(s) for s in steps])]
    return scipy.optimize.brentq(lambda s: slope(name, s, level), 0.97 * guess, 1.03 * guess, xtol=1e-13, rtol=1e-13)


def theory_file(File, lcg):
    file = File("theory.txt", f"MSE(X, step) of densities of variance 1 by scipy {scipy.__version__}; results: bits, best step, MSE there, "
                              f"MSE at {RATIOS} times the best step")
    for density, name in enumerate(DENSITIES):
        assert abs(DENSITIES[name][0].pdf(0.3) - plain(name)(0.3)) < 1e-15
        for grid in GRIDS:
            results = []
            for bits in (2, 3, 4, 5, 6, 8):
                level = levels(bits, grid)
                best = best_step(name, level)
                results.append([bits, best, mse(name, best, level), *[mse(name, r * best, level) for r in RATIOS]])
            file.case(f"{name}_{grid}", density=density, grid=GRIDS.index(grid), results=np.array(results))
    file.write()
