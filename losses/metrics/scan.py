"""Errors of predicted faces against scans by the benchmarks' rules: align by landmarks, register, measure."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from losses.metrics.registration import Residual, register, residuals
from losses.metrics.similarity import Similarity, umeyama
from losses.metrics.surface import TriangleMesh
from renderers.io.errors import UserError
from renderers.landmarks68 import JAW, LANDMARKS, LEFT_EYE_CORNERS, MOUTH_CORNERS, NOSE_BASE, RIGHT_EYE_CORNERS

NOW_LANDMARKS = (*RIGHT_EYE_CORNERS, *LEFT_EYE_CORNERS, NOSE_BASE, *MOUTH_CORNERS)
"""NoW's seven of the iBUG 68, in NoW's order: the right eye's outer and inner corner, the left eye's inner and outer
corner, the base of the nose, the mouth's right and left corner."""
INNER_LANDMARKS = tuple(range(JAW.stop, LANDMARKS))  # without the jaw's, which lie on the face's outline
NOSE_TIP = 30
NOW_RAISE, NOW_REACH = 0.3, 1.4
FEWEST = 100  # vertices over a scan; a registration of fewer says nothing


@dataclass(frozen=True)
class PredictedFace:
    """A reconstructed face.

    Attributes:
        vertices: (V, 3) in any frame; about millimetres.
        faces: (F, 3).
        landmark_indices: (68,) vertices of the iBUG points.
        hidden: (H,) vertices that no scanner sees, such as those inside the mouth; none by default.
    """

    vertices: np.ndarray
    faces: np.ndarray
    landmark_indices: np.ndarray
    hidden: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def landmarks(self) -> np.ndarray:
        """(68, 3)"""
        return self.vertices[self.landmark_indices]


@dataclass(frozen=True)
class ScannedFace:
    """A scanned face.

    Attributes:
        vertices: (V, 3) millimetres.
        faces: (F, 3).
        landmarks: (7, 3) of `NOW_LANDMARKS`, (51, 3) of `INNER_LANDMARKS` or (68, 3) of all, millimetres.
    """

    vertices: np.ndarray
    faces: np.ndarray
    landmarks: np.ndarray


@dataclass(frozen=True)
class ScanErrors:
    """A prediction against a scan.

    Attributes:
        distances: (N,) millimetres of the scan, at least 0.
        placed: prediction -> scan.
    """

    distances: np.ndarray
    placed: Similarity

    @property
    def mean(self) -> float:
        """Mean distance, millimetres."""
        return float(self.distances.mean())

    @property
    def rmse(self) -> float:
        """Root mean squared distance, millimetres."""
        return float(np.sqrt((self.distances**2).mean()))

    @property
    def median(self) -> float:
        """Median distance, millimetres."""
        return float(np.median(self.distances))


@dataclass(frozen=True)
class ScanRule:
    """A benchmark's rule for the distance from predicted vertices to a scan.

    Attributes:
        distance: "plane" to the scan's tangent plane in the nearest place, "point" to that place itself.
        scale: whether the registration may change the prediction's size. The alignment by landmarks always may, because
            a single picture does not show the size.
        radius: millimetres; the scan is cut to a ball of this radius round the nose tip. None keeps the whole scan.
    """

    distance: Residual
    scale: bool
    radius: float | None = None


def landmark_rows(count: int) -> tuple[int, ...]:
    """Which of the iBUG 68 a scan's landmarks are.

    Raises:
        UserError: there are neither 7, 51 nor 68 of them.
    """
    known = {len(rows): rows for rows in (NOW_LANDMARKS, INNER_LANDMARKS, tuple(range(LANDMARKS)))}
    if count not in known:
        raise UserError(f"the scan has {count} landmarks; 7 (NoW's), 51 or 68 (iBUG's) are known")
    return known[count]


def now_region(landmarks: np.ndarray) -> tuple[np.ndarray, float]:
    """NoW's region of a scan: the ball in which the error is measured.

    The nose's bridge is the middle between the eyes' inner corners. The ball's centre lies three tenths of the way from
    the nose's base to the bridge. Its radius is 1.4 times the mean of two lengths: between the eyes' outer corners, and
    from the nose's base to the bridge.

    Args:
        landmarks: (7, 3) of `NOW_LANDMARKS`.

    Returns:
        (3,) and the radius, in the landmarks' unit.
    """
    bridge, base = landmarks[1:3].mean(axis=0), landmarks[4]
    outer, nose = np.linalg.norm(landmarks[0] - landmarks[3]), np.linalg.norm(bridge - base)
    return base + NOW_RAISE * (bridge - base), NOW_REACH * float(outer + nose) / 2


def cut_ball(
    vertices: np.ndarray, faces: np.ndarray, centre: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """The part of a mesh whose vertices lie at most `radius` from `centre`: its vertices (V', 3) and faces (F', 3).

    A face stays if all its corners stay. A vertex inside the ball stays even if no face uses it.
    """
    inside = ((vertices - centre) ** 2).sum(axis=1) <= radius**2
    rank = np.cumsum(inside) - 1
    return vertices[inside], rank[faces[inside[faces].all(axis=1)]]


def now_errors(face: PredictedFace, scan: ScannedFace) -> ScanErrors:
    """The error of the NoW challenge (RingNet; finegrained, table 4): from the scan's region to the predicted mesh.

    The seven landmarks are aligned by a similarity. Then rotation, translation and scale minimise the squared distances
    from the region's vertices to the prediction's triangles. Distances are measured in the scan's size.

    Raises:
        UserError: a scan without NoW's landmarks or without vertices round them, or a prediction that is no surface.
    """
    landmarks = scan.landmarks[[landmark_rows(len(scan.landmarks)).index(point) for point in NOW_LANDMARKS]]
    centre, radius = now_region(landmarks)
    points = scan.vertices[((scan.vertices - centre) ** 2).sum(axis=1) <= radius**2]
    if len(points) < FEWEST:
        raise UserError(f"{len(points)} vertices of the scan lie round its landmarks: are both in millimetres?")
    surface = _surface(face.vertices, face.faces, "the prediction")
    start = umeyama(face.landmarks[list(NOW_LANDMARKS)], landmarks).inverse()
    moved = register(points, surface, start, kind="point", ruler="points")
    there = moved.apply(points)
    distances = residuals(there, surface.nearest(there), "point")[0] / moved.scale
    return ScanErrors(np.abs(distances), moved.inverse())


def prediction_errors(face: PredictedFace, scan: ScannedFace, rule: ScanRule) -> ScanErrors:
    """Errors from the predicted vertices to a scan, as for MICC, FaceScape, BU-3DFE and FRGC (MGCNet, section 4.4).

    The landmarks align the two by a similarity. Then the scan is cut. The vertices that now lie over the scan, not
    beyond its rim, and that are not hidden are registered to the scan's triangles and measured.

    Raises:
        UserError: a scan whose landmarks are not known, or over which hardly a vertex lies.
    """
    rows = landmark_rows(len(scan.landmarks))
    start = umeyama(face.landmarks[list(rows)], scan.landmarks)
    vertices, faces = scan.vertices, scan.faces
    if rule.radius is not None:
        vertices, faces = cut_ball(vertices, faces, _nose_tip(face, scan, rows, start), rule.radius)
    surface = _surface(vertices, faces, "the scan round its nose tip" if rule.radius else "the scan")
    over = ~surface.nearest(start.apply(face.vertices)).border
    over[face.hidden] = False
    if over.sum() < FEWEST:
        raise UserError(f"{over.sum()} predicted vertices lie over the scan: are its landmarks in its own frame?")
    points = face.vertices[over]
    placed = register(points, surface, start, rule.scale, rule.distance)
    there = placed.apply(points)
    return ScanErrors(np.abs(residuals(there, surface.nearest(there), rule.distance)[0]), placed)


def _nose_tip(face: PredictedFace, scan: ScannedFace, rows: tuple[int, ...], start: Similarity) -> np.ndarray:
    """(3,) the scan's own landmark, or the scan's vertex nearest to the aligned prediction's nose tip."""
    if NOSE_TIP in rows:
        return scan.landmarks[rows.index(NOSE_TIP)]
    expected = start.apply(face.landmarks[NOSE_TIP : NOSE_TIP + 1])
    return scan.vertices[((scan.vertices - expected) ** 2).sum(axis=1).argmin()]


def _surface(vertices: np.ndarray, faces: np.ndarray, what: str) -> TriangleMesh:
    try:
        return TriangleMesh(vertices, faces)
    except ValueError as error:
        raise UserError(f"{what}: {error}") from None
