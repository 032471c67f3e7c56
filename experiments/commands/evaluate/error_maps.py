"""Error maps: scans coloured by their distance from a prediction."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from losses.metrics.registration import residuals
from losses.metrics.scan import PredictedFace, ScanErrors, ScannedFace, cut_ball
from losses.metrics.surface import TriangleMesh
from renderers.raster import rasterize
from renderers.raster.interpolation import interpolate
from renderers.vertex_normals import VertexNormals

SIZE = 192  # pixels
REACH = 95.0  # millimetres round the face's middle that are shown
AWAY = 100.0  # picture sides between camera and scan, far enough for nearly parallel rays
WORST = 5.0  # millimetres, the end of the scale
SCALE = ((0.25, 0.35, 0.75), (0.55, 0.85, 0.75), (0.98, 0.95, 0.65), (0.95, 0.55, 0.25), (0.6, 0.05, 0.1))
AMBIENT = 0.45


def error_map(face: PredictedFace, scan: ScannedFace, errors: ScanErrors) -> Tensor:
    """(3, `SIZE`, `SIZE`) the scan from the front: blue where the prediction touches it, red from `WORST` on.

    Args:
        face: the prediction.
        scan: the scan with which it is compared.
        errors: the prediction's place on the scan.
    """
    middle = errors.placed.apply(face.vertices.mean(axis=0, keepdims=True))[0]
    vertices, faces = cut_ball(scan.vertices, scan.faces, middle, REACH)
    placed = TriangleMesh(errors.placed.apply(face.vertices), face.faces)
    distance = np.abs(residuals(vertices, placed.nearest(vertices), "point")[0])
    frontal = errors.placed.inverse().apply(vertices) * errors.placed.scale
    frontal -= errors.placed.inverse().apply(middle[None])[0] * errors.placed.scale
    scale = SIZE / (2 * REACH)
    places = frontal * [scale, -scale, -scale] + [SIZE / 2, SIZE / 2, AWAY * SIZE]
    triangles = torch.from_numpy(faces)
    fragments = rasterize(torch.from_numpy(places).float()[None], triangles, (SIZE, SIZE))
    normals = VertexNormals(triangles, len(vertices))(torch.from_numpy(frontal).float()[None])
    shade = AMBIENT + (1 - AMBIENT) * normals[..., 2:].abs()
    drawn = interpolate(fragments, triangles, shade * torch.from_numpy(colors(distance)).float())
    return torch.where(fragments.mask, drawn[0], 1.0).clamp(0, 1)


def colors(distance: np.ndarray) -> np.ndarray:
    """(N,) millimetres -> (N, 3) RGB."""
    steps = np.linspace(0, WORST, len(SCALE))
    return np.stack([np.interp(distance, steps, channel) for channel in zip(*SCALE, strict=True)], axis=1)
