"""AUCp: a figure to choose a state by without labels (Siddiquee et al., IEEE TMI, 2026, 10.1109/TMI.2026.3684946)."""

from __future__ import annotations

import numpy as np

from dicomnode.detectors.contract import Array


def aucp(healthy: Array, mixed: Array) -> float:
    """Area under the ROC curve with healthy training scores as negatives and mixed ones as positives, 0..1.

    Shapes (n,) and (m,); ties count half. It falls to 0.5 when few of the mixed set are abnormal, and it prefers a
    detector of the domain when the two sets differ by more than disease. Report on another set than it was chosen on.
    """
    ordered = np.sort(healthy)
    below = np.searchsorted(ordered, mixed, side="left")
    not_above = np.searchsorted(ordered, mixed, side="right")
    return float((below + not_above).mean() / (2 * len(ordered)))


def auc_from_aucp(aucp: float, healthy_share: float) -> float:
    """The AUC that is expected when the share ``healthy_share``, 0..1, of the mixed set is healthy.

    AUCp = (1 - ρ) AUC + ρ / 2, so AUC = (AUCp - ρ / 2) / (1 - ρ). It is an estimate: it may leave 0..1 in small sets.
    Raises ValueError for a share outside 0 <= ρ < 1.
    """
    if not 0.0 <= healthy_share < 1.0:
        raise ValueError("the share of healthy planes is at least 0 and below 1")
    return (aucp - healthy_share / 2) / (1 - healthy_share)
