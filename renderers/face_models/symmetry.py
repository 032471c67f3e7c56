"""Left-right symmetry of a face model: which vertices mirror each other."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from renderers.face_models.base import MorphableModel


def mirror_vertices(face_model: MorphableModel) -> Tensor:
    """(V,) for each vertex the one nearest to its mirror image in the mean face."""
    points = face_model.mean_shape.cpu().numpy()
    return torch.from_numpy(cKDTree(points).query(points * np.array([-1, 1, 1]))[1])
