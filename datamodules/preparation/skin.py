"""Skin probability of an aligned face, from the face's own colors.

There is no learned table of "skin colour": the model is fitted to each face anew, so that it holds for every complexion
and light. The features are two log chromaticities and the log brightness. Skin is one Gaussian, fitted robustly to the
pixels inside the landmarks. Everything else is a small mixture of Gaussians, fitted to the other pixels, plus a uniform
density. Bayes' rule, with a prior that falls off away from the face, gives the probability. Jones and Rehg (2002)
decide between a skin and a background density by Bayes' rule; the rest of the construction is our own.
"""

from __future__ import annotations

import cv2
import numpy as np

from renderers.landmarks68 import (
    BROWS,
    CHIN,
    INNER_MOUTH,
    JAW,
    LEFT_BROW,
    LEFT_EYE,
    OUTER_MOUTH,
    RIGHT_BROW,
    RIGHT_EYE,
)

FLOOR = 0.03  # added to each channel: in darker pixels chromaticity is noise
TRIM = 0.8  # share of the pixels inside the landmarks to which skin is fitted; the rest is hair, glasses, highlights
UNIFORM = 0.25  # weight of the uniform part of the background's density
PRIOR_INSIDE, PRIOR_OUTSIDE = 0.85, 0.05
ITERATIONS = 5
STRANGE = 6.0  # squared Mahalanobis distance; at first, colours farther from the skin's are taken for background
BACKGROUND_SAMPLE = 6000  # pixels that the background is fitted to
COMPONENTS = 3  # Gaussians of the background


def skin_probability(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The probability of each pixel to show this face's skin.

    Eyes and the mouth's interior are 0 whatever their colour. For brows, lips and glasses the colour decides.

    Args:
        image: (H, W, 3) uint8 sRGB crop.
        landmarks: (68, 2) continuous pixels of that crop.

    Returns:
        (H, W) float32 in [0, 1]; all 0 where the landmarks enclose no pixel of the crop.
    """
    height, width = image.shape[:2]
    points = np.asarray(landmarks, dtype=np.float64)
    face_width = float(np.ptp(points[JAW, 0])) or 1.0
    features = color_features(image)
    hull = polygon_mask(face_outline(points), height, width)
    sample = hull & ~feature_mask(points, height, width)
    if sample.sum() < 20:
        return np.zeros((height, width), np.float32)
    prior = _prior(polygon_mask(with_forehead(points), height, width), face_width)
    log_skin, log_other = _fit(features, sample, prior)
    odds = log_skin - log_other + np.log(prior) - np.log1p(-prior)
    # Neighbours vote, because hair, noise and JPEG blocks change single pixels, and skin is smooth.
    odds = cv2.GaussianBlur(np.clip(odds, -6, 6).astype(np.float32), (0, 0), max(0.5, face_width / 90))
    probability = 1 / (1 + np.exp(-odds))
    probability[opening_mask(points, height, width)] = 0
    return probability


def color_features(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 sRGB -> (H, W, 3): log R/G, log B/G, and half the log brightness.

    Shading changes the brightness and leaves R/G and B/G nearly as they are. Brightness therefore has half the weight.
    """
    red, green, blue = np.moveaxis(image.astype(np.float64) / 255 + FLOOR, -1, 0)
    brightness = 0.5 * np.log(0.299 * red + 0.587 * green + 0.114 * blue)
    return np.stack([np.log(red / green), np.log(blue / green), brightness], axis=-1)


def face_outline(points: np.ndarray) -> np.ndarray:
    """(N, 2) polygon round the face: along the jaw, and back over the brows."""
    return np.concatenate([points[JAW], points[BROWS][::-1]])


def with_forehead(points: np.ndarray) -> np.ndarray:
    """(N, 2) the outline with a forehead added: the brows, moved away from the chin by a quarter of the face."""
    brows = points[BROWS][::-1]
    return np.concatenate([face_outline(points), brows + (brows.mean(axis=0) - points[CHIN]) / 4])


def polygon_mask(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) bool: pixels in the convex hull of (N, 2) continuous points, its outline included."""
    mask = np.zeros((height, width), np.uint8)
    # Sixteenths of a pixel; OpenCV's pixel centres are whole numbers.
    corners = np.round((cv2.convexHull(polygon.astype(np.float32))[:, 0] - 0.5) * 16).astype(np.int32)
    cv2.fillConvexPoly(mask, corners, 1, lineType=cv2.LINE_8, shift=4)
    return mask.astype(bool)


def opening_mask(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) bool: the eyes between their lids and the mouth between its lips, of (68, 2) points."""
    eyes_and_mouth = [polygon_mask(points[part], height, width) for part in (RIGHT_EYE, LEFT_EYE, INNER_MOUTH)]
    return np.logical_or.reduce(eyes_and_mouth)


def feature_mask(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) bool: eyes, brows and mouth with a rim round them, which are not bare skin."""
    mask = np.zeros((height, width), np.uint8)
    for part in (RIGHT_EYE, LEFT_EYE, RIGHT_BROW, LEFT_BROW, OUTER_MOUTH):
        mask |= polygon_mask(points[part], height, width).astype(np.uint8)
    rim = 2 * max(1, round(float(np.ptp(points[JAW, 0])) * 0.03)) + 1
    return cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (rim, rim))).astype(bool)


def _prior(face: np.ndarray, face_width: float) -> np.ndarray:
    """(H, W) prior: high in the face, and falling off outside it within a sixth of its width."""
    distance = cv2.distanceTransform((~face).astype(np.uint8), cv2.DIST_L2, 5)
    return PRIOR_OUTSIDE + (PRIOR_INSIDE - PRIOR_OUTSIDE) * np.exp(-((distance / (face_width / 6)) ** 2))


def _fit(features: np.ndarray, sample: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log densities (H, W) of skin and of everything else."""
    pixels = features.reshape(-1, 3)
    log_skin = _log_gaussian(pixels, *_robust_gaussian(features[sample]))
    rows = np.arange(0, len(pixels), max(1, len(pixels) // BACKGROUND_SAMPLE))
    log_other = _background(pixels, rows, log_skin[rows], prior.reshape(-1)[rows])
    return log_skin.reshape(prior.shape), log_other.reshape(prior.shape)


def _background(pixels: np.ndarray, rows: np.ndarray, log_skin: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """(N,) log density of all (N, 3) pixels under a mixture, which EM fits to those of the `rows` that are not skin.

    `log_skin` and `prior` are the log density under skin, and the prior of skin, of the K `rows`.
    """
    values = pixels[rows]
    log_uniform = -float(np.log(np.ptp(values, axis=0) + 0.5).sum())
    prior_odds = np.log(prior) - np.log1p(-prior)
    # At first, colours far from the skin's count as background.
    log_other = log_skin.max() - np.full(len(rows), STRANGE / 2)
    # The components start as thirds of the pixels by brightness: dark hair, mid tones, bright walls and collars.
    rank = np.argsort(np.argsort(values[:, 2], kind="stable"), kind="stable")
    share = np.eye(COMPONENTS)[rank * COMPONENTS // len(rank)]
    components: list[tuple[float, np.ndarray, np.ndarray]] = []
    for _ in range(ITERATIONS):
        not_skin = 1 / (1 + np.exp(np.clip(log_skin - log_other + prior_odds, -30, 30)))
        weights = share * not_skin[:, None] + 1e-9
        weights /= weights.sum()
        components = [(float(np.log(w.sum())), *_weighted_gaussian(values, w)) for w in weights.T]
        parts = _component_densities(values, components)
        total = np.logaddexp.reduce(parts, axis=-1)
        share = np.exp(parts - total[:, None])
        log_other = np.logaddexp(total + np.log(1 - UNIFORM), log_uniform + np.log(UNIFORM))
    total = np.logaddexp.reduce(_component_densities(pixels, components), axis=-1)
    return np.logaddexp(total + np.log(1 - UNIFORM), log_uniform + np.log(UNIFORM))


def _component_densities(values: np.ndarray, components: list[tuple[float, np.ndarray, np.ndarray]]) -> np.ndarray:
    """(N, K) log densities of (N, 3) values under K weighted Gaussians (log weight, mean, covariance)."""
    return np.stack([weight + _log_gaussian(values, mean, spread) for weight, mean, spread in components], axis=-1)


def _robust_gaussian(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (3,) and covariance (3, 3) of the central part of (N, 3) values: concentration steps from the median."""
    center = np.median(values, axis=0)
    spread = 1.4826 * np.median(np.abs(values - center), axis=0) + 0.02
    covariance = np.diag(spread**2)
    for _ in range(ITERATIONS):
        offset = values - center
        distance = np.einsum("ni,ij,nj->n", offset, np.linalg.inv(covariance), offset)
        kept = values[distance <= np.quantile(distance, TRIM)]
        center = kept.mean(axis=0)
        # Trimming narrows a Gaussian. In three dimensions and for a trim of 0.8 the factor 1.48 makes up for it.
        covariance = np.cov(kept.T, bias=True).reshape(3, 3) * 1.48 + np.eye(3) * 0.02**2
    return center, covariance


def _weighted_gaussian(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (3,) and covariance (3, 3) of (N, 3) values with (N,) weights."""
    weights = weights / weights.sum()
    center = weights @ values
    return center, (values - center).T @ ((values - center) * weights[:, None]) + np.eye(3) * 0.04**2


def _log_gaussian(values: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """(N,) log density of (N, 3) values."""
    factor = np.linalg.cholesky(covariance)
    whitened = np.linalg.solve(factor, (values - mean).T)
    return -0.5 * (whitened**2).sum(axis=0) - float(np.log(np.diag(factor)).sum()) - 1.5 * float(np.log(2 * np.pi))
