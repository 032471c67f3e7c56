"""What the random heads have in common: rigidly aligned by their faces, and the modes in which they differ.

A mode is a weighted sum of the heads, so that any other points that move with them (ears, neck, teeth) have modes of
the same coefficients.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse

from renderers.face_models.mesh_edit import fix_signs


def with_mirror_images(samples: np.ndarray, operator: sparse.csr_matrix, mirror: np.ndarray) -> np.ndarray:
    """(2H, R, 3) points of (H, N, 3) heads, and of the same heads seen in a mirror."""
    points = np.stack([operator @ sample for sample in samples])
    return np.concatenate([points, points[:, mirror] * [-1.0, 1.0, 1.0]])


def mirror_permutation(points: np.ndarray) -> np.ndarray:
    """(V,) the vertex on the other side of x = 0, for a mirror-symmetric point set (V, 3)."""
    from scipy.spatial import cKDTree

    _, other = cKDTree(points).query(points * [-1.0, 1.0, 1.0])
    return np.asarray(other)


def align(shapes: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Rotates and shifts every shape (B, V, 3) so that its chosen vertices lie on the mean of all (Kabsch, no scale).

    No pose is then left in the modes.
    """
    aligned = shapes - shapes[:, chosen].mean(axis=1, keepdims=True)
    for _ in range(3):
        target = aligned[:, chosen].mean(axis=0)
        left, _, right = np.linalg.svd(np.einsum("bvi,vj->bij", aligned[:, chosen], target))
        left[:, :, -1] *= np.sign(np.linalg.det(left @ right))[:, None]
        aligned = aligned @ (left @ right)
    # Both sides of every face are in the set: what rotation is left in the mean is about x alone, and stays.
    return aligned


def principal_modes(shapes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """The directions in which shapes (B, V, 3) differ most.

    Returns:
        Mean (V, 3); `count` modes (V, 3, count) scaled by their standard deviations, with the signs of
        `mesh_edit.fix_signs`; the weights (B, count) of the shapes in them; the share of the variance that they hold.
    """
    mean = shapes.mean(axis=0)
    flat = (shapes - mean).reshape(len(shapes), -1)
    values, vectors = np.linalg.eigh(flat @ flat.T / (len(shapes) - 1))
    order = np.argsort(values)[::-1][:count]
    # flat^T u has length sqrt((n - 1) lambda); a standard deviation is sqrt(lambda).
    weights = vectors[:, order] / np.sqrt(len(shapes) - 1)
    modes = flat.T @ weights
    signed = fix_signs(modes)
    weights = weights * np.sign((signed * modes).sum(axis=0))
    return mean, signed.reshape(*mean.shape, count), weights, float(values[order].sum() / values.sum())
