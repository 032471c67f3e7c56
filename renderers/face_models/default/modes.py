"""What the random heads have in common: rigidly aligned by their faces, and the modes in which they differ.

A mode is a weighted sum of the heads, so that any other points that move with them (ears, neck, teeth) have modes of
the same coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse

from renderers.face_models.default.geometry import FaceMesh
from renderers.face_models.mesh_edit import fix_signs


@dataclass(frozen=True)
class Modes:
    """What turns random heads into a linear model. H heads, K modes.

    Attributes:
        mean: (V, 3) of the face, decimetres, not yet moved to the model's origin.
        basis: (V, 3, K) of the face, in standard deviations.
        explained: share of the variance that the modes hold.
        weights: (2H, K) of the heads and, after them, of their mirror images.
        shift: (2H, 1, 3) what is taken from each head before it is turned.
        turn: (2H, 3, 3) rotation of each, applied to rows from the right.
    """

    mean: np.ndarray
    basis: np.ndarray
    explained: float
    weights: np.ndarray
    shift: np.ndarray
    turn: np.ndarray


def find_modes(samples: np.ndarray, mesh: FaceMesh, mirror: np.ndarray, count: int) -> Modes:
    """The modes of a face among heads and their mirror images.

    Args:
        samples: (H, N, 3) anny's vertices of each head.
        mesh: the face in them.
        mirror: (V,) each vertex of the face's vertex on the other side.
        count: how many modes.
    """
    everyone = with_mirror_images(samples, mesh.operator, mirror)
    shift, turn = _alignment(everyone[:, mesh.parts == "skin"])
    mean, basis, weights, explained = principal_modes((everyone - shift) @ turn, count)
    return Modes(mean, basis, explained, weights, shift, turn)


def apply_modes(
    samples: np.ndarray, operator: sparse.csr_matrix, mirror: np.ndarray, modes: Modes
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (R, 3) and modes (R, 3, K) of other points of the same heads: `operator` (R, N), `mirror` (R,)."""
    everyone = (with_mirror_images(samples, operator, mirror) - modes.shift) @ modes.turn
    mean = everyone.mean(axis=0)
    flat = (everyone - mean).reshape(len(everyone), -1)
    return mean, (flat.T @ modes.weights).reshape(*mean.shape, -1)


def with_mirror_images(samples: np.ndarray, operator: sparse.csr_matrix, mirror: np.ndarray) -> np.ndarray:
    """(2H, R, 3) points of (H, N, 3) heads, and of the same heads seen in a mirror."""
    points = np.stack([operator @ sample for sample in samples])
    return np.concatenate([points, points[:, mirror] * [-1.0, 1.0, 1.0]])


def mirror_permutation(points: np.ndarray) -> np.ndarray:
    """(V,) the vertex on the other side of x = 0, for a mirror-symmetric point set (V, 3)."""
    from scipy.spatial import cKDTree

    _, other = cKDTree(points).query(points * [-1.0, 1.0, 1.0])
    return np.asarray(other)


def _alignment(skins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shifts (B, 1, 3) and turns (B, 3, 3) that bring every face onto the mean of all (Kabsch, no scale).

    No pose is then left in the modes.
    """
    shift = skins.mean(axis=1, keepdims=True)
    aligned = skins - shift
    turn = np.broadcast_to(np.eye(3), (len(skins), 3, 3))
    for _ in range(3):
        target = aligned.mean(axis=0)
        left, _, right = np.linalg.svd(np.einsum("bvi,vj->bij", aligned, target))
        left[:, :, -1] *= np.sign(np.linalg.det(left @ right))[:, None]
        aligned, turn = aligned @ (left @ right), turn @ (left @ right)
    # Both sides of every face are in the set: what rotation is left in the mean is about x alone, and stays.
    return shift, turn


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
