"""Procedural albedo of the embedded default: this project's own, made from formulas and not from photographs.

A low-rank linear model: a mean colour and modes scaled as standard deviations. The skin's tone follows the two pigments
that make it, melanin and haemoglobin (Beer-Lambert attenuation); the other modes change lips, brows, irises, lids,
blush, beard, freckles and smooth blotches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.sparse as sparse

from renderers.face_models.default.regions import (
    brow_curve,
    part_weight,
    polygon_distance,
    polyline_distance,
    smooth_curve,
)
from renderers.face_models.mesh_edit import fix_signs

Mode = np.ndarray  # (V, 3)

# Absorption of each pigment for red, green and blue light, relative to melanin's for red. Melanin's falls with the
# wavelength (Jacques 1998), less steeply through a camera's wide bands.
MELANIN = np.array([1.0, 1.30, 1.72])
HAEMOGLOBIN = np.array([0.16, 1.0, 0.74])
DERMIS = np.array([0.80, 0.635, 0.50])  # linear reflectance without pigments
SURFACE = 0.025  # linear reflectance of the skin's surface, which no pigment tints
BLOTCHES = 20

LIP_TINT = np.array([0.90, 0.70, 0.71])  # the lips' colour as a share of the skin's
CREASE_TINT = np.array([0.62, 0.48, 0.45])

HAIR = np.array([0.21, 0.145, 0.11])
SCLERA = np.array([0.76, 0.725, 0.70])
LID_SHADOW = np.array([0.33, 0.38, 0.38])  # what the lids and their lashes take from the eyeball beside them
IRIS = np.array([0.30, 0.215, 0.155])
PUPIL = np.array([0.045, 0.04, 0.04])
INNER_MOUTH = np.array([0.22, 0.075, 0.07])


def srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light to sRGB, both in [0, 1]."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


@cache
def skin_colors() -> tuple[np.ndarray, np.ndarray]:
    """Mean skin (3,) and its three principal directions (3, 3), rows scaled by standard deviation, in sRGB.

    Colours of a grid of pigment amounts; the first direction runs from dark to light. Both arrays are read-only.
    """
    melanin = np.exp(np.linspace(np.log(0.13), np.log(2.1), 41))
    blood = np.linspace(0.08, 0.48, 15)
    amounts = np.stack(np.meshgrid(melanin, blood, indexing="ij"), axis=-1).reshape(-1, 2)
    colors = srgb(SURFACE + DERMIS * np.exp(-amounts[:, :1] * MELANIN - amounts[:, 1:] * HAEMOGLOBIN))
    mean = colors.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(colors.T))
    directions = (vectors * np.sqrt(np.maximum(values, 0))).T[::-1]
    directions = directions * np.sign(directions[:, :1])
    for shared in (mean, directions):
        shared.setflags(write=False)
    return mean, directions


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, with a smooth passage."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


@dataclass
class Masks:
    """Where the face's features are: each (V,), 0 to 1."""

    skin: np.ndarray
    mouth: np.ndarray
    pupil: np.ndarray
    iris: np.ndarray
    iris_rim: np.ndarray
    eyeball: np.ndarray
    lid_shadow: np.ndarray
    lips: np.ndarray
    lip_center: np.ndarray
    brows: np.ndarray
    brow_edge: np.ndarray
    lashes: np.ndarray
    lid: np.ndarray
    under_eye: np.ndarray
    cheeks: np.ndarray
    nose: np.ndarray
    nose_tip: np.ndarray
    forehead: np.ndarray
    chin: np.ndarray
    beard: np.ndarray
    moustache: np.ndarray
    crease: np.ndarray


def build_masks(
    base: dict[str, np.ndarray], landmarks: np.ndarray, operator: sparse.csr_matrix, flat: sparse.csr_matrix
) -> tuple[Masks, np.ndarray]:
    """The masks at one level of subdivision, and that level's mean shape (V, 3)."""
    points = np.asarray(operator @ base["mean_shape"])
    mark = base["mean_shape"][landmarks]
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    folded = np.column_stack([x, y])
    half = np.column_stack([np.abs(mark[:, 0]), mark[:, 1]])
    eyeball = part_weight(base, flat, "eye_left") + part_weight(base, flat, "eye_right")
    mouth = part_weight(base, flat, "mouth")
    skin = np.clip(1 - eyeball - mouth, 0, 1)
    angle = np.asarray(flat @ base["eye_angle"])
    front = smoothstep(z, mark[48, 2] - 0.12, mark[48, 2] - 0.04)

    def blob(center: np.ndarray, width: float, height: float) -> np.ndarray:
        return skin * np.exp(-0.5 * (((x - center[0]) / width) ** 2 + ((y - center[1]) / height) ** 2)) * (z > -0.5)

    lips = polygon_distance(points[:, :2], smooth_curve(mark[48:60, :2], closed=True))
    lip_mask = np.maximum(skin * smoothstep(lips, -0.012, 0.016) * front, 0)
    brow_distance, along = polyline_distance(folded, brow_curve(mark))
    width = 0.046 * smoothstep(along, -0.15, 0.12) * (1 - 0.55 * smoothstep(along, 0.40, 1.0))
    brow_front = skin * (z > -0.35)
    fade = smoothstep(along, -0.02, 0.10) * (1 - 0.85 * smoothstep(along, 0.62, 0.98))
    brows = brow_front * (1 - smoothstep(brow_distance / width, 0.30, 1.25)) * fade
    brow_edge = brow_front * np.exp(-0.5 * ((brow_distance / width - 1.0) / 0.35) ** 2)
    lid_curve = smooth_curve(half[42:48], closed=True)
    lid = polygon_distance(folded, lid_curve)
    above = smoothstep(y - np.interp(x, np.sort(half[[42, 45], 0]), half[[42, 45], 1]), -0.01, 0.02)
    near_eye = skin * (z > -0.35)
    lashes = near_eye * smoothstep(lid, -0.022, -0.004) * (0.35 + 0.65 * above)
    eye_center = lid_curve.mean(axis=0)
    jaw = smoothstep(mark[33, 1] - 0.02 - y + 0.35 * smoothstep(x, 0.35, 0.7), 0.0, 0.22)
    beard = skin * jaw * (1 - lip_mask) * (1 - 0.6 * blob(np.array([0.42, mark[48, 1] + 0.08]), 0.13, 0.13))
    between = smoothstep(y, mark[51, 1] - 0.02, mark[51, 1] + 0.03) * (
        1 - smoothstep(y, mark[33, 1] - 0.03, mark[33, 1])
    )
    moustache = skin * between * (1 - smoothstep(x, 0.20, 0.32)) * front * (1 - lip_mask)
    goatee = blob(np.array([0.0, mark[8, 1] + 0.10]), 0.14, 0.11)
    nose_tip = blob(mark[30, :2], 0.11, 0.10) * smoothstep(z, mark[31, 2] - 0.05, mark[30, 2])
    masks = Masks(
        skin=skin,
        mouth=mouth,
        pupil=eyeball * (1 - smoothstep(angle, 6.8, 8.6)),
        iris=eyeball * smoothstep(angle, 6.8, 8.6) * (1 - smoothstep(angle, 19.3, 22.0)),
        iris_rim=eyeball * np.exp(-0.5 * ((angle - 19.5) / 1.6) ** 2),
        eyeball=eyeball,
        lid_shadow=eyeball * (1 - smoothstep(lid - 0.012 * above, 0.0, 0.034)),
        lips=lip_mask,
        lip_center=lip_mask * np.exp(-0.5 * (x / 0.12) ** 2),
        brows=brows,
        brow_edge=brow_edge,
        lashes=lashes,
        lid=near_eye * smoothstep(lid, -0.085, -0.02) * above,
        under_eye=blob(eye_center - [0.01, 0.105], 0.11, 0.035),
        cheeks=blob(np.array([0.37, mark[29, 1] - 0.12]), 0.15, 0.15),
        nose=np.maximum(nose_tip, blob(np.array([0.0, mark[29, 1]]), 0.08, 0.16)),
        nose_tip=nose_tip,
        forehead=skin * smoothstep(y, mark[19, 1] + 0.02, mark[19, 1] + 0.25),
        chin=goatee,
        beard=beard,
        moustache=np.maximum(moustache, goatee),
        crease=skin * np.asarray(operator @ base["crease"]),
    )
    return masks, points


def build_albedo(
    base: dict[str, np.ndarray], landmarks: np.ndarray, operator: sparse.csr_matrix, flat: sparse.csr_matrix
) -> dict[str, np.ndarray]:
    """The albedo and specular fields of `MorphableModel` at one level of subdivision.

    Args:
        base: arrays of `default.derive_base`.
        landmarks: (68,).
        operator: (V, V0) smooth subdivision of the base's vertices.
        flat: (V, V0) the same by midpoints.

    Returns:
        mean_albedo (V, 3), albedo_basis (V, 3, A), mean_specular (V, 3), specular_basis (V, 3, A).
    """
    masks, points = build_masks(base, landmarks, operator, flat)
    blotches = np.asarray(operator @ base["blotches"])
    mean = mean_color(masks, points)
    modes = [*tone_modes(masks), *feature_modes(masks), *freckle_modes(masks, points), *blotch_modes(masks, blotches)]
    basis = np.stack(modes, axis=-1)
    mean_specular, specular_basis = specular(masks, basis.shape[-1])
    return {
        "mean_albedo": mean,
        "albedo_basis": basis,
        "mean_specular": mean_specular,
        "specular_basis": specular_basis,
    }


def paint(below: np.ndarray, mask: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Lays a colour (3,) or (V, 3) over (V, 3) with opacity mask (V,)."""
    return below + mask[:, None] * (color - below)


def mean_color(masks: Masks, points: np.ndarray) -> np.ndarray:
    """The colours of the mean face, (V, 3) RGB: skin, with cheeks, lips, brows, lashes and mouth painted on it."""
    skin, _ = skin_colors()
    color = np.broadcast_to(skin, points.shape).copy()
    color += masks.cheeks[:, None] * [0.020, -0.028, -0.022]
    color += masks.nose_tip[:, None] * [0.012, -0.030, -0.026]
    color += masks.forehead[:, None] * [0.012, 0.010, 0.004]
    color += masks.under_eye[:, None] * [-0.055, -0.055, -0.035]
    color += masks.lid[:, None] * [-0.050, -0.060, -0.045]
    color += masks.beard[:, None] * [-0.030, -0.025, -0.015]
    color += fine_noise(points, 40.0, 1)[:, None] * [0.006, 0.008, 0.008]
    color += sum(freckle_modes(masks, points))
    color *= 1 - masks.crease[:, None] * (1 - CREASE_TINT)
    color = paint(color, masks.lips, skin * LIP_TINT)
    color = paint(color, 0.80 * masks.brows * hairs(points), HAIR)
    color = paint(color, 0.75 * masks.lashes, HAIR * 0.55)
    color = paint(color, masks.mouth, INNER_MOUTH)
    color = paint(color, masks.eyeball, SCLERA)
    color = paint(color, masks.iris, IRIS)
    color = paint(color, 0.7 * masks.iris_rim, IRIS * 0.35)
    color = paint(color, masks.pupil, PUPIL)
    return color * (1 - masks.lid_shadow[:, None] * LID_SHADOW)


def hairs(points: np.ndarray) -> np.ndarray:
    """(V,) 0.7 to 1: uneven strands across the brows, leaning outwards."""
    bend = fine_noise(points, 30.0, 2)
    strands = np.sin(190.0 * np.abs(points[:, 0]) - 110.0 * points[:, 1] + 2.5 * bend)
    return 0.85 + 0.08 * strands + 0.07 * np.tanh(fine_noise(points, 90.0, 3))


def fine_noise(points: np.ndarray, frequency: float, seed: int) -> np.ndarray:
    """(V,) smooth noise of unit deviation: a sum of plane waves of random direction and phase."""
    generator = np.random.Generator(np.random.PCG64(seed))
    waves = generator.standard_normal((48, 3))
    waves *= frequency * generator.uniform(0.7, 1.4, size=(48, 1)) / np.linalg.norm(waves, axis=1, keepdims=True)
    phases = generator.uniform(0, 2 * np.pi, size=48)
    return np.asarray(np.sin(points @ waves.T + phases).sum(axis=1) / np.sqrt(24))


def tone_modes(masks: Masks) -> list[Mode]:
    """Three modes of the whole skin; brows, irises and lips go with them as they do among people."""
    _, directions = skin_colors()
    bare = masks.skin * (1 - 0.75 * masks.brows) * (1 - 0.7 * masks.lashes)
    tinted = (
        bare[:, None] * (1 - masks.lips[:, None] * (1 - LIP_TINT)) * (1 - masks.crease[:, None] * (1 - CREASE_TINT))
    )
    modes = [tinted * direction for direction in directions]
    brown = np.array([0.075, 0.055, 0.040])
    modes[0] = modes[0] + (masks.brows * 0.75)[:, None] * brown + masks.iris[:, None] * (0.8 * brown)
    return modes


def feature_modes(masks: Masks) -> list[Mode]:
    """One mode for each feature's colour: lips, brows, irises, lids, blush, beard."""
    dark, red = np.array([-0.04, -0.04, -0.036]), np.array([0.008, -0.011, -0.009])
    recipe: list[tuple[np.ndarray, list[float] | np.ndarray]] = [
        (masks.lips, [0.012, -0.022, -0.016]),
        (masks.lips, [-0.035, -0.030, -0.027]),
        (masks.lips, [0.006, -0.006, 0.018]),
        (masks.lip_center, [0.020, 0.015, 0.015]),
        (masks.brows, [0.050, 0.038, 0.025]),
        (masks.brows, [0.035, 0.005, -0.010]),
        (masks.brows, [-0.055, -0.050, -0.045]),
        (masks.brow_edge, [-0.030, -0.027, -0.024]),
        (masks.iris, [0.015, 0.060, 0.095]),
        (masks.iris, [0.045, 0.045, 0.005]),
        (masks.iris_rim, [-0.05, -0.05, -0.05]),
        (masks.eyeball - masks.iris - masks.pupil, [0.020, 0.028, 0.034]),
        (masks.lashes, [-0.055, -0.050, -0.045]),
        (masks.lid, [-0.040, -0.042, -0.028]),
        (masks.under_eye, [-0.045, -0.050, -0.035]),
        (masks.cheeks, [0.014, -0.018, -0.014]),
        (masks.nose, [0.007, -0.011, -0.009]),
        (masks.forehead, [0.018, 0.016, 0.010]),
        (masks.chin, red),
        (masks.beard, [-0.034, -0.028, -0.016]),
        (masks.moustache, dark),
        (masks.crease, [-0.060, -0.066, -0.060]),
    ]
    return [mask[:, None] * np.asarray(color) for mask, color in recipe]


def freckle_modes(masks: Masks, points: np.ndarray) -> list[Mode]:
    """Three patterns of melanin spots over the nose and the cheeks."""
    where = np.clip(masks.cheeks + masks.nose + 0.25 * masks.forehead, 0, 1) * (1 - masks.lips)
    color = np.array([-0.016, -0.021, -0.020])
    return [(where * smoothstep(fine_noise(points, 70.0, seed), 1.0, 1.9))[:, None] * color for seed in (11, 12, 13)]


def blotch_modes(masks: Masks, blotches: np.ndarray) -> list[Mode]:
    """Smooth unevenness of both pigments: Laplacian eigenvectors of the skin, the coarse ones the stronger."""
    bare = (masks.skin * (1 - masks.lips) * (1 - masks.brows))[:, None]
    melanin, blood = np.array([-0.0070, -0.0078, -0.0072]), np.array([0.0025, -0.0048, -0.0038])
    return [
        bare * blotches[:, [index]] * (blood if index % 2 else melanin) / np.sqrt(1 + index / 4)
        for index in range(blotches.shape[1])
    ]


def specular(masks: Masks, modes: int) -> tuple[np.ndarray, np.ndarray]:
    """Specular albedo (V, 3) and its basis (V, 3, A): oilier nose and forehead, moist lips and eyes.

    Display values, as the diffuse colours are: skin's 0.29 is 0.066 of linear light, near the 0.04 that oily skin
    reflects straight on. `MorphableModel.specular` converts them, once.
    """
    level = (
        0.29 * masks.skin
        + 0.21 * masks.nose_tip
        + 0.14 * masks.forehead
        + 0.09 * masks.chin
        + 0.20 * masks.lips
        - 0.07 * masks.cheeks
        - 0.14 * masks.brows
        + 0.55 * masks.eyeball
        + 0.10 * masks.mouth
    )
    basis = np.zeros((len(level), 3, modes))
    # Darker skin looks glossier; redness goes with oiliness of the nose and the forehead.
    basis[:, :, 0] = (-0.027 * masks.skin)[:, None]
    basis[:, :, 1] = (0.036 * masks.skin + 0.054 * masks.nose_tip + 0.036 * masks.forehead)[:, None]
    basis[:, :, 3] = (0.054 * masks.lips)[:, None]
    return np.repeat(level[:, None], 3, axis=1), basis


def blotch_basis(points: np.ndarray, adjacency: sparse.csr_matrix, chosen: np.ndarray) -> np.ndarray:
    """(V, BLOTCHES) the lowest Laplacian eigenvectors over chosen vertices (constant left out), of unit deviation.

    Args:
        points: (V, 3).
        adjacency: (V, V) zeros and ones.
        chosen: (V,) bool; the others get 0.
    """
    from scipy.sparse.linalg import eigsh

    inner = adjacency[chosen][:, chosen].tocoo()
    near = np.exp(-np.linalg.norm(points[chosen][inner.row] - points[chosen][inner.col], axis=1) / 0.05)
    weights = sparse.coo_matrix((near, (inner.row, inner.col)), shape=inner.shape).tocsr()
    laplacian = sparse.diags(np.asarray(weights.sum(axis=1)).ravel()) - weights
    start = np.cos(np.arange(laplacian.shape[0]))
    _, vectors = eigsh(laplacian.tocsc(), k=BLOTCHES + 1, sigma=-1e-3, v0=start)
    vectors = vectors[:, 1:] / vectors[:, 1:].std(axis=0)
    result = np.zeros((len(points), BLOTCHES))
    result[chosen] = fix_signs(vectors)
    return result


def crease_depth(points: np.ndarray, normals: np.ndarray, adjacency: sparse.csr_matrix) -> np.ndarray:
    """(V,) 0 to 1: how deep a vertex lies below its smoothed neighbourhood: nostrils, corners, folds."""
    from scipy.sparse.linalg import spsolve

    degree = np.asarray(adjacency.sum(axis=1)).ravel()
    laplacian = sparse.diags(degree) - adjacency
    system = (sparse.identity(len(points)) + 12.0 * sparse.diags(1 / np.maximum(degree, 1)) @ laplacian).tocsc()
    smooth = spsolve(system, points)
    depth = ((smooth - points) * normals).sum(axis=1)
    return smoothstep(depth, 0.008, 0.05)
