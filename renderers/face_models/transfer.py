"""Landmarks, regions and colours of the embedded default, carried over to a face mesh that comes without them.

The default's own mean face is bent onto the other by closest points: first its pose, size and identity coefficients
(a fit of a morphable model to a surface, as by Blanz and Vetter 1999, with point-to-plane residuals), then what is
left, as a smooth displacement (optimal step non-rigid ICP, Amberg et al. 2007, with a Laplacian for stiffness).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import splu

from renderers.face_models.linear import LinearModel
from renderers.face_models.mesh_edit import edges_of, vertex_neighbours, vertex_normals
from renderers.io.errors import UserError
from renderers.units import MILLIMETRES

PRIORS = np.geomspace(0.1, 3e-6, 24)  # squared decimetres a point that a coefficient of 1 costs, falling
THINNING = 3  # one in so many vertices of the skin takes part in that fit
STIFFNESSES = np.geomspace(30.0, 0.3, 6)
SLIDING = 0.01  # how much less a point is held along the surface than across it
ANCHOR = 30.0  # how many points of the skin a known landmark counts as
FACING = 0.5  # least cosine between the normals of two points that may meet
FARTHEST = 0.3  # decimetres between points that may meet once the pose is found
WORST = 0.04  # decimetres of root-mean-square distance from the fitted default, above which it is no face
LEAST_ANCHORS = 4  # known landmarks from which the pose is taken
MOST_SCALED = 1.4  # how much smaller or larger than the default a face may be
MISPLACED = 0.15  # decimetres that given landmarks may lie from the default's, on average
CHECK = "check the `landmarks`: vertex indices from 0 in iBUG order"
LEAST_MET = 0.5  # share of the default's skin that must meet the other face
NORMAL_REACH = 0.05  # decimetres that a turned normal counts as: lips that touch stay apart
TOUCHING = 1e-6  # decimetres below which two vertices are one
REGION_REACH = 0.08  # decimetres within which a vertex takes the region of the default's nearest


@dataclass(frozen=True)
class Transfer:
    """What a face got from the default.

    Attributes:
        landmark_indices: (68,) vertices of the iBUG points.
        regions: named vertex index arrays of the default that are not its crop; `skin` is all but eyes and inner mouth.
        distance: decimetres, root mean square over the default's skin of how far the fitted default lies from the face.
        neighbours: (V, 3) the default's vertices nearest to each of the face's.
        weights: (V, 3) their shares, which sum to 1: the inverse squared distances.
    """

    landmark_indices: np.ndarray
    regions: dict[str, np.ndarray]
    distance: float
    neighbours: np.ndarray
    weights: np.ndarray

    def carry(self, attributes: np.ndarray) -> np.ndarray:
        """Attributes of the default's vertices (D, ...), colours for example, on the face's: (V, ...)."""
        shares = self.weights.reshape(*self.weights.shape, *(1,) * (attributes.ndim - 1))
        return np.asarray(sum(shares[:, k] * attributes[self.neighbours[:, k]] for k in range(shares.shape[1])))


@dataclass(frozen=True)
class _Anchors:
    """Known landmarks: vertices (N,) of the default, and the (N, 3) places on the other face where they belong."""

    vertices: np.ndarray
    places: np.ndarray


class _Surface:
    """A mesh whose vertices are looked up by place and direction at once."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        from scipy.spatial import cKDTree

        self.vertices = vertices
        self.normals = vertex_normals(vertices, faces)
        edges, of_side = edges_of(faces)
        self.rim = np.zeros(len(vertices), dtype=bool)
        self.rim[edges[np.bincount(of_side.ravel(), minlength=len(edges)) == 1].ravel()] = True
        self._tree = cKDTree(np.concatenate([vertices, NORMAL_REACH * self.normals], axis=1))

    def nearest(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """(N,) the vertex nearest to each of (N, 3) points that look along (N, 3) unit normals."""
        _, index = self._tree.query(np.concatenate([points, NORMAL_REACH * normals], axis=1))
        return np.asarray(index)

    def around(self, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) the three nearest vertices, and (N, 3) their weights."""
        distance, index = self._tree.query(np.concatenate([points, NORMAL_REACH * normals], axis=1), k=3)
        weights = 1 / np.maximum(distance, TOUCHING) ** 2
        return np.asarray(index), weights / weights.sum(axis=1, keepdims=True)

    def meet(self, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N, 3) from each point to its nearest vertex, (N, 3) that one's normal, (N,) whether the two may meet."""
        index = self.nearest(points, normals)
        offset, normal = self.vertices[index] - points, self.normals[index]
        met = ((normal * normals).sum(axis=1) > FACING) & ~self.rim[index]
        return offset, normal, met & (np.linalg.norm(offset, axis=1) < FARTHEST)


def transfer_from_default(
    name: str, vertices: np.ndarray, faces: np.ndarray, default: LinearModel, landmarks: np.ndarray | None = None
) -> Transfer:
    """Find the default's landmarks and regions on another face.

    Args:
        name: what messages call the face.
        vertices: (V, 3) decimetres, x right, y up, z towards the viewer; neutral, and at life size within a fifth.
        faces: (F, 3) counter-clockwise seen from outside; ears, neck and the back of the head may be there or not.
        default: the embedded default face model.
        landmarks: (68,) the vertices of the landmarks that are known, -1 elsewhere: the fit starts from them and holds
            to them, and they are kept. Without any, the tip of the nose must be the foremost vertex.

    Returns:
        Vertex indices of the other face.

    Raises:
        UserError: the default cannot be fitted to it, so the landmarks would be wrong.
    """
    surface = _Surface(vertices, faces)
    skin, mark = default.regions["skin"].numpy(), default.landmark_indices.numpy()
    told = np.full(len(mark), -1) if landmarks is None else landmarks
    known = told >= 0
    anchors = _Anchors(mark[known], surface.vertices[told[known]])
    fitted, scale = _fit_model(surface, default, anchors)
    offset, normal, met = surface.meet(fitted[skin], vertex_normals(fitted, default.faces.numpy())[skin])
    across = (offset * normal).sum(axis=1)[met]
    distance = float(np.sqrt((across**2).mean())) if met.any() else np.inf
    astray = float(np.linalg.norm(anchors.places - fitted[anchors.vertices], axis=1).mean()) if known.any() else 0.0
    remedy = CHECK if known.all() else "give `landmarks`, a text file of 68 vertex indices from 0 in iBUG order"
    if distance > WORST or met.mean() < LEAST_MET or not 1 / MOST_SCALED < scale < MOST_SCALED:
        raise UserError(
            f"{name}: the default face does not fit it, so that its landmarks and regions cannot be found: it lies "
            f"{MILLIMETRES * distance:.1f} mm off, meets it with {met.mean():.0%} of its skin and is scaled by "
            f"{scale:.2f}; {remedy}"
        )
    if astray > MISPLACED:
        raise UserError(
            f"{name}: the landmarks lie {MILLIMETRES * astray:.0f} mm from where the default face has them; {remedy}"
        )
    bent = _Surface(_bend(surface, fitted, default, anchors), default.faces.numpy())
    found = surface.nearest(bent.vertices[mark], bent.normals[mark])
    found[known] = told[known]
    around = bent.around(surface.vertices, surface.normals)
    return Transfer(found, _regions(surface, bent, default), distance, *around)


def _fit_model(surface: _Surface, default: LinearModel, anchors: _Anchors) -> tuple[np.ndarray, float]:
    """The default (V, 3) in the pose, size and identity that bring its skin closest (Gauss-Newton), and the size."""
    mean, basis = default.mean_shape.double().numpy(), default.identity_basis.double().numpy()
    faces, skin = default.faces.numpy(), default.regions["skin"].numpy()[::THINNING]
    identity = np.zeros(basis.shape[-1])
    if len(anchors.vertices) < LEAST_ANCHORS:  # the tip of the nose is the foremost point of both
        foremost = surface.vertices[surface.vertices[:, 2].argmax()]
        rotation, scale, shift = np.eye(3), 1.0, foremost - mean[mean[:, 2].argmax()]
    else:
        rotation, scale, shift = _similarity(mean[anchors.vertices], anchors.places)
    fitted = scale * mean @ rotation.T + shift
    for prior in PRIORS:
        offset, normal, met = surface.meet(fitted[skin], vertex_normals(fitted, faces)[skin])
        if met.mean() < LEAST_MET / 2:
            break  # no face: the caller checks the result
        chosen, offset, normal = skin[met], offset[met], normal[met]
        turned = fitted - shift
        moving = _slopes(turned[chosen], scale * (rotation @ basis[chosen]))
        across, along = (normal[:, None] @ moving)[:, 0], moving.reshape(3 * len(chosen), -1)
        system = across.T @ across + SLIDING * along.T @ along
        right = across.T @ (offset * normal).sum(axis=1) + SLIDING * along.T @ offset.ravel()
        marks = anchors.vertices
        held = _slopes(turned[marks], scale * (rotation @ basis[marks])).reshape(-1, len(system))
        system += ANCHOR * held.T @ held
        right += ANCHOR * held.T @ (anchors.places - fitted[marks]).ravel()
        weight = prior * len(skin) * (np.arange(len(system)) < len(identity)) + 1e-9
        right[: len(identity)] -= prior * len(skin) * identity
        step = np.linalg.solve(system + np.diag(weight), right)
        identity = identity + step[: len(identity)]
        rotation = _rotation(step[-7:-4]) @ rotation
        scale, shift = scale * float(np.exp(np.clip(step[-4], -0.1, 0.1))), shift + step[-3:]
        fitted = scale * (mean + basis @ identity) @ rotation.T + shift
    return fitted, scale


def _slopes(turned: np.ndarray, modes: np.ndarray) -> np.ndarray:
    """(N, 3, I + 7) how points move with identity, rotation, size and shift, of (N, 3) arms and (N, 3, I) modes."""
    shifts = np.broadcast_to(np.eye(3), (len(turned), 3, 3))
    return np.concatenate([modes, _turning(turned), turned[:, :, None], shifts], axis=2)


def _turning(points: np.ndarray) -> np.ndarray:
    """(N, 3, 3) how points move under a small rotation vector w: w x p, as a matrix on w."""
    x, y, z = points.T
    zero = np.zeros_like(x)
    return np.stack([[zero, z, -y], [-z, zero, x], [y, -x, zero]]).transpose(2, 0, 1)


def _similarity(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Rotation (3, 3), scale and shift (3,) that bring (N, 3) points onto as many others, by least squares (Kabsch)."""
    from scipy.spatial.transform import Rotation

    here, there = source - source.mean(axis=0), target - target.mean(axis=0)
    rotation = np.asarray(Rotation.align_vectors(there, here)[0].as_matrix())
    scale = float((there * (here @ rotation.T)).sum() / (here**2).sum())
    return rotation, scale, target.mean(axis=0) - scale * rotation @ source.mean(axis=0)


def _rotation(vector: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_rotvec(vector).as_matrix())


def _bend(surface: _Surface, fitted: np.ndarray, default: LinearModel, anchors: _Anchors) -> np.ndarray:
    """(V, 3) the fitted default, moved on smoothly until it lies on the surface."""
    faces, skin = default.faces.numpy(), default.regions["skin"].numpy()
    adjacency = vertex_neighbours(faces, len(fitted))
    laplacian = sparse.diags(np.asarray(adjacency.sum(axis=1)).ravel()) - adjacency
    bent = fitted
    for stiffness in STIFFNESSES:
        offset, normal, met = surface.meet(bent[skin], vertex_normals(bent, faces)[skin])
        held, wanted = np.zeros(len(fitted)), np.zeros_like(fitted)
        held[skin[met]] = 1.0
        # Across the surface only; the neighbours hold a point along the surface.
        across = (offset * normal).sum(axis=1, keepdims=True) * normal
        wanted[skin[met]] = (bent[skin] - fitted[skin] + across)[met]
        held[anchors.vertices] = ANCHOR
        wanted[anchors.vertices] = anchors.places - fitted[anchors.vertices]
        system = sparse.diags(held + 1e-4) + stiffness * laplacian
        bent = fitted + np.asarray(splu(system.tocsc()).solve(held[:, None] * wanted))
    return bent


def _regions(surface: _Surface, bent: _Surface, default: LinearModel) -> dict[str, np.ndarray]:
    """Each vertex of the surface takes the regions of the bent default's nearest vertex, if that is near."""
    index = bent.nearest(surface.vertices, surface.normals)
    near = np.linalg.norm(bent.vertices[index] - surface.vertices, axis=1) < REGION_REACH
    found = {}
    for name, members in default.regions.items():
        if name != "boundary":
            found[name] = np.flatnonzero(np.isin(index, members.numpy()) & near)
    apart = np.union1d(found["eyes"], found["inner_mouth"])
    return {**found, "skin": np.setdiff1d(np.arange(len(surface.vertices)), apart)}
