"""Chooses the range of an activation tensor from its histogram: five methods, one function each.

Values beyond the range saturate, a wider range has coarser steps; the methods differ in how they
weigh the two. All see the same statistics, so one pass over the images serves them all.
The range depends on the grid it is for: int8 is symmetric around zero, uint8 has a zero point.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from resdeploy.calibration.ranges.observers import Extremes, Histogram
from resdeploy.calibration.ranges.ranges import Range
from resdeploy.deploy.arrays import Float64s, Indices
from resdeploy.deploy.targets import Grid

_PERCENTILE = 0.9999
# Entropy: fine bins of |x|, and the levels a signed 8-bit grid has on either side of zero.
_FINE, _LEVELS = 2048, 128
# Mean squared error: candidates per octave, octaves searched below the extreme, refinement.
_PER_OCTAVE, _OCTAVES, _REFINE = 4, 4, 16
# What the error of a value that is cut off counts, beside one that is rounded. It is no noise: of
# one sign, in neighbouring places, and largest in the images of the strongest answers.
CUT_OFF_WEIGHT = 8


def min_max(extremes: Extremes) -> Range:
    """[min x, max x] over all images: nothing saturates."""
    return Range(extremes.low, extremes.high)


def moving_min_max(extremes: Extremes) -> Range:
    """[mean of the images' minima, mean of their maxima].

    The moving average of Jacob et al. 2018 (section 3.1) with equal weights instead of decaying
    ones, as in onnxruntime's `MinMaxCalibrater(moving_average=True)`: it depends neither on the
    order of the images nor on the batch size.
    """
    return Range(extremes.mean_low, extremes.mean_high)


def percentile(histogram: Histogram, share: float = _PERCENTILE) -> Range:
    """[−T, T] ∩ [min x, max x] with T the `share` quantile of |x| (Wu et al. 2020, section 5.2)."""
    left, right, counts = _magnitudes(histogram)
    total = np.cumsum(counts)
    wanted = share * total[-1]
    at = int(np.searchsorted(total, wanted))
    inside = 1 - (total[at] - wanted) / counts[at]
    return _symmetric(histogram, float(left[at] + inside * (right[at] - left[at])))


def entropy(histogram: Histogram) -> Range:
    """[−T, T] ∩ [min x, max x] with the T that loses least information (Migacz 2017, TensorRT).

    p: distribution of |x| over 2048 bins, everything beyond T added to the last bin below it.
    q: the same after its bins up to T are put together into 128 levels, each level's mass shared
    evenly among its bins. T minimises

        KL(p ‖ q) = Σ_k p_k log p_k − Σ_levels M log(M / n),      M mass and n bins of a level

    over the bin edges, every eighth. Zeros are left out: every grid holds them exactly.
    """
    peak = _peak(histogram)
    left, right, counts = _magnitudes(histogram)
    knots, jumps = _density(left, right, counts, peak)
    if not len(knots):  # the sample holds nothing but zeros, whatever else the tensor holds
        return min_max(histogram.extremes)
    edges = np.linspace(0, peak, _FINE + 1)
    mass = np.diff(_values_below(edges, knots, jumps))
    mass = mass / mass.sum()
    below = np.concatenate([[0.0], np.cumsum(mass)])
    information = np.concatenate([[0.0], np.cumsum(_x_log_x(mass))])
    filled = np.concatenate([[0], np.cumsum(mass > 0)])
    ends = np.arange(_LEVELS, _FINE + 1, 8)
    steps = np.rint(ends[:, None] * np.arange(_LEVELS + 1) / _LEVELS).astype(int)
    level = np.diff(below[steps], axis=1)
    bins = np.maximum(np.diff(filled[steps], axis=1), 1)
    last = mass[ends - 1]
    outside = 1 - below[ends]
    # The last bin of p carries what lies outside; q is made from p before that, as in the source.
    own = information[ends] - _x_log_x(last) + _x_log_x(last + outside)
    share = np.where(level > 0, level / bins, 1.0) / np.maximum(below[ends], 1e-12)[:, None]
    cross = (level * np.log(share)).sum(axis=1) + outside * np.log(share[:, -1])
    # Nothing in the last level, yet all that lies outside is put there: q cannot be p.
    impossible = (level[:, -1] <= 0) & (outside > 0)
    best = ends[int(np.argmin(np.where(impossible, np.inf, own - cross)))]
    return _symmetric(histogram, float(edges[best]))


def least_squares(histogram: Histogram, grid: Grid) -> Range:
    """The range whose rounding and saturation together have the least mean squared error.

    What is cut off counts w = `CUT_OFF_WEIGHT` times. Density is taken as even within a bin. With
    the step s and the grid's ends l = s·q_min and h = s·q_max, the error integral of a bin [a, b]
    is E(b) − E(a), where

        E(x) = n·s³/12 + r³/3 + w·(x − c)³/3
        c = min(max(x, l), h),  n = round(c / s),  r = c − n·s

    For int8 one threshold is searched; for uint8 the upper end, then the lower, then the upper.
    """
    knots, jumps = _density(*histogram.bins(), _peak(histogram))
    low, high = min(histogram.extremes.low, 0.0), max(histogram.extremes.high, 0.0)

    def error(lows: Float64s | float, highs: Float64s | float) -> Float64s:
        return _squared_error(knots, jumps, *np.broadcast_arrays(lows, highs))

    if grid == "int8":
        peak = _search(max(-low, high), lambda ends: error(ends * (-128 / 127), ends))
        return _symmetric(histogram, peak)
    high = _search(high, partial(error, low))
    if low < 0:
        low = -_search(-low, lambda ends: error(-ends, high))
        high = _search(histogram.extremes.high, partial(error, low))
    return Range(max(low, histogram.extremes.low), min(high, histogram.extremes.high))


def choose_range(method: str, histogram: Histogram, grid: Grid) -> Range:
    """Range by the method's name: minmax, moving, percentile, entropy or mse."""
    return METHODS[method](histogram, grid)


METHODS: dict[str, Callable[[Histogram, Grid], Range]] = {
    "minmax": lambda histogram, grid: min_max(histogram.extremes),
    "moving": lambda histogram, grid: moving_min_max(histogram.extremes),
    "percentile": lambda histogram, grid: percentile(histogram),
    "entropy": lambda histogram, grid: entropy(histogram),
    "mse": least_squares,
}


def trained_range(ends: tuple[float, float], histogram: Histogram) -> Range:
    """The range that training kept; of a tensor that is never negative, its upper part.

    An amax of training says ±amax of every tensor. A grid with a zero point need not spend half of
    its values where there is nothing, and the scale of a symmetric one stays the same.
    """
    low, high = ends
    peak = max(-low, high)
    return Range(0.0, peak) if low == -high and histogram.extremes.low >= 0 else Range(low, high)


def _magnitudes(histogram: Histogram) -> tuple[Float64s, Float64s, Indices]:
    """The bins of |x|, ascending; bins of the two signs stay separate."""
    left, right, counts = histogram.bins()
    near = np.minimum(np.abs(left), np.abs(right))
    far = np.maximum(np.abs(left), np.abs(right))
    order = np.argsort(far, kind="stable")
    return near[order], far[order], counts[order]


def _symmetric(histogram: Histogram, threshold: float) -> Range:
    low, high = histogram.extremes.low, histogram.extremes.high
    # A threshold below a tensor that never comes near zero still has to give low <= high.
    return Range(min(max(low, -threshold), high), max(min(high, threshold), low))


def _peak(histogram: Histogram) -> float:
    return max(-histogram.extremes.low, histogram.extremes.high)


def _density(
    left: Float64s, right: Float64s, counts: Indices, peak: float
) -> tuple[Float64s, Float64s]:
    """The density of the values, even within each bin, as its jumps: (knots, jump at each knot).

    Exact zeros are left out. Bins below 2^-10 of the peak, a fraction of a step on any grid of
    256 values, become one; a bin without width becomes 2^-20 of the peak wide.
    """
    kept = (left != 0) | (right != 0)
    left, right, heights = left[kept], right[kept], counts[kept].astype(np.float64)
    small = np.maximum(np.abs(left), np.abs(right)) < peak * 2.0**-10
    left = np.where(small, np.where(left < 0, -peak * 2.0**-10, 0.0), left)
    right = np.where(small, np.where(left < 0, 0.0, peak * 2.0**-10), right)
    left = np.minimum(left, right - peak * 2.0**-20)
    heights /= right - left
    knots, where = np.unique(np.concatenate([left, right]), return_inverse=True)
    jumps = np.bincount(where, np.concatenate([heights, -heights]), len(knots))
    return knots, jumps.astype(np.float64)


def _values_below(edges: Float64s, knots: Float64s, jumps: Float64s) -> Float64s:
    """The integral of the density up to each edge."""
    integral = np.cumsum(np.cumsum(jumps)[:-1] * np.diff(knots))
    below: Float64s = np.interp(edges, knots, np.concatenate([[0.0], integral]))
    return below


def _x_log_x(x: Float64s) -> Float64s:
    return x * np.log(np.where(x > 0, x, 1.0))


def _squared_error(knots: Float64s, jumps: Float64s, lows: Float64s, highs: Float64s) -> Float64s:
    """Summed weighted error (candidates,) on the grids of 256 values over [lows, highs]."""
    step = ((highs - lows) / 255)[:, None]
    first = np.rint(lows[:, None] / step) * step
    inside = knots.clip(first, first + 255 * step)
    level = np.rint(inside / step)
    rest, outside = inside - level * step, knots - inside
    cut_off = CUT_OFF_WEIGHT * (outside * outside * outside)
    integral = level * (step**3 / 12) + (rest * rest * rest + cut_off) / 3
    total: Float64s = -(integral @ jumps)
    return total


def _search(extreme: float, error: Callable[[Float64s], Float64s]) -> float:
    """The threshold of least error below `extreme`: a geometric sweep, then a finer one."""
    if extreme <= 0:
        return 0.0
    sweep = extreme * 2.0 ** (-np.arange(_PER_OCTAVE * _OCTAVES + 1) / _PER_OCTAVE)
    best = float(sweep[np.argmin(error(sweep))])
    fine = best * 2.0 ** (np.arange(-_REFINE, _REFINE + 1) / (_PER_OCTAVE * _REFINE))
    fine = fine[fine <= extreme * (1 + 1e-12)]
    return float(fine[np.argmin(error(fine))])
