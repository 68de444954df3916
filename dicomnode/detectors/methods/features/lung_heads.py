"""Linear readings of frozen features, fitted in closed form: ridge regressions and a distance from normal."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
SMALL = 1e-6


@dataclass(frozen=True, slots=True)
class Linear:
    """``features @ weights + bias``. ``weights``: shape (d,)."""

    weights: Matrix
    bias: float

    def __call__(self, features: Matrix) -> Matrix:
        read: Matrix = features @ self.weights + self.bias
        return read


@dataclass(slots=True)
class RidgeSums:
    """A ridge regression with standardised features whose data come in parts: only their sums are kept."""

    count: int = 0
    squares: Matrix = field(default_factory=lambda: np.zeros((0, 0)))
    products: Matrix = field(default_factory=lambda: np.zeros(0))

    def add(self, features: Matrix, targets: Matrix) -> None:
        """``features``: shape (n, d); ``targets``: shape (n,)."""
        rows = np.concatenate([features, np.ones((len(features), 1))], axis=1)
        if self.count == 0:
            self.squares, self.products = np.zeros((rows.shape[1],) * 2), np.zeros(rows.shape[1])
        self.squares += rows.T @ rows
        self.products += rows.T @ targets
        self.count += len(rows)

    def solved(self, penalty: float) -> Linear:
        """``penalty``: added to the correlation matrix's diagonal."""
        squares, products = self.squares / self.count, self.products / self.count
        mean = squares[-1, :-1]
        covariance = squares[:-1, :-1] - np.outer(mean, mean)
        sd = np.sqrt(np.maximum(np.diag(covariance), SMALL**2))
        correlation = covariance / np.outer(sd, sd) + penalty * np.eye(len(sd))
        weights = np.linalg.solve(correlation, (products[:-1] - mean * products[-1]) / sd) / sd
        return Linear(weights, float(products[-1] - mean @ weights))


def weighted_ridge(features: Matrix, targets: Matrix, weights: Matrix, penalty: float) -> Linear:
    """A ridge regression with standardised features, shape (n, d), and rows of different ``weights``, shape (n,)."""
    mean, sd = features.mean(axis=0), features.std(axis=0) + SMALL
    rows, share = (features - mean) / sd, weights / weights.sum()
    centre, level = share @ rows, float(share @ targets)
    away, root = rows - centre, np.sqrt(weights)[:, None]
    gram = (away * root).T @ (away * root) + penalty * np.eye(rows.shape[1])
    solution = np.linalg.solve(gram, (away * weights[:, None]).T @ (targets - level)) / sd
    return Linear(solution, level - float((mean + centre * sd) @ solution))


def balanced(targets: Matrix, groups: npt.NDArray[np.int64]) -> Matrix:
    """Weights, shape (n,), mean 1, that make every pair of target and group count alike."""
    weights = np.zeros(len(targets))
    for group in np.unique(groups):
        for target in np.unique(targets[groups == group]):
            same = (groups == group) & (targets == target)
            weights[same] = 1.0 / same.sum()
    scaled: Matrix = weights / weights.mean()
    return scaled


@dataclass(frozen=True, slots=True)
class Distance:
    """Logarithm of the squared Mahalanobis distance from the healthy features among their main components.

    ``scale``, ``mean``: shape (d,). ``axes``: the whitened components, shape (k, d). ``centre``: shape (k,). ``side``,
    ``limit``: along which whitened direction, shape (k,), and from where a picture looks like the other projection.
    """

    scale: Matrix
    mean: Matrix
    axes: Matrix
    centre: Matrix
    side: Matrix
    limit: float

    def __call__(self, features: Matrix) -> Matrix:
        squared: Matrix = np.log(np.maximum(np.square(self.away(features)).sum(axis=1), SMALL))
        return squared

    def away(self, features: Matrix) -> Matrix:
        """Whitened difference from the centre, shape (n, k)."""
        difference: Matrix = (features / self.scale - self.mean) @ self.axes.T - self.centre
        return difference

    def other(self, features: Matrix) -> npt.NDArray[np.bool_]:
        """Which pictures look like the other projection, shape (n,)."""
        found: npt.NDArray[np.bool_] = self.away(features) @ self.side > self.limit
        return found


def fit_distance(healthy: Matrix, mirrored: Matrix, reference: npt.NDArray[np.bool_], components: int) -> Distance:
    """A distance from ``healthy`` features, shape (n, d), and those of the ``mirrored`` pictures.

    The main components come from all, centre and covariance (Ledoit & Wolf 2004) from the ``reference`` pictures. The
    others, when there are any, give the direction that tells the projections apart (Fisher's discriminant).
    """
    from sklearn.covariance import LedoitWolf

    scale = healthy.std(axis=0) + SMALL
    both = np.concatenate([healthy, mirrored]) / scale
    mean = both.mean(axis=0)
    axes = _components(both - mean, components)
    inside = (both[np.tile(reference, 2)] - mean) @ axes.T
    fitted = LedoitWolf().fit(inside)
    whitening = np.linalg.cholesky(np.linalg.inv(fitted.covariance_)).T
    found = Distance(scale, mean, whitening @ axes, whitening @ fitted.location_, np.zeros(len(axes)), 0.0)
    if reference.all():
        return found
    away = found.away(healthy)
    here, there = away[reference].mean(axis=0), away[~reference].mean(axis=0)
    return replace(found, side=there - here, limit=0.5 * float(there @ there - here @ here))


def _components(centred: Matrix, count: int) -> Matrix:
    """The ``count`` main components of the rows, orthonormal, shape (k, d); fewer when the rows are fewer."""
    values, vectors = np.linalg.eigh(centred @ centred.T)
    usable = int((values > values[-1] * 1e-10).sum())
    order = np.argsort(values)[::-1][: min(count, usable)]
    found: Matrix = (vectors[:, order] / np.sqrt(values[order])).T @ centred
    return found
