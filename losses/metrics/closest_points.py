"""The nearest point of a triangle mesh: NVIDIA Warp's bounding volume hierarchy, one kernel source for CPU and CUDA."""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
import torch
import warp as wp

from renderers.kernels.warp_start import start_warp

start_warp()
wp.set_module_options({"enable_backward": False})

ANYWHERE = 1e15  # larger than any distance; its square still fits into single precision


@wp.func
@no_type_check  # the kernel language is Warp's, not Python's
def corner_weights(p: wp.vec3d, a: wp.vec3d, b: wp.vec3d, c: wp.vec3d) -> wp.vec3d:
    # Tells the seven regions of a triangle's plane apart (Ericson, Real-Time Collision Detection, 2005, section 5.1.5).
    zero = wp.float64(0.0)
    one = wp.float64(1.0)
    ab = b - a
    ac = c - a
    d1 = wp.dot(ab, p - a)
    d2 = wp.dot(ac, p - a)
    if d1 <= zero and d2 <= zero:
        return wp.vec3d(one, zero, zero)
    d3 = wp.dot(ab, p - b)
    d4 = wp.dot(ac, p - b)
    if d3 >= zero and d4 <= d3:
        return wp.vec3d(zero, one, zero)
    d5 = wp.dot(ab, p - c)
    d6 = wp.dot(ac, p - c)
    if d6 >= zero and d5 <= d6:
        return wp.vec3d(zero, zero, one)
    vc = d1 * d4 - d3 * d2
    if vc <= zero and d1 >= zero and d3 <= zero:
        along = d1 / (d1 - d3)
        return wp.vec3d(one - along, along, zero)
    vb = d5 * d2 - d1 * d6
    if vb <= zero and d2 >= zero and d6 <= zero:
        along = d2 / (d2 - d6)
        return wp.vec3d(one - along, zero, along)
    va = d3 * d6 - d5 * d4
    if va <= zero and d4 >= d3 and d5 >= d6:
        along = (d4 - d3) / ((d4 - d3) + (d5 - d6))
        return wp.vec3d(zero, one - along, along)
    whole = va + vb + vc
    return wp.vec3d(va / whole, vb / whole, vc / whole)


@wp.kernel
@no_type_check
def find_nearest(
    mesh: wp.uint64,
    centre: wp.vec3d,
    reach: wp.float32,
    vertices: wp.array[wp.vec3d],
    faces: wp.array[wp.vec3i],
    points: wp.array[wp.vec3d],
    found: wp.array[wp.int32],
    weights: wp.array[wp.vec3d],
):
    row = wp.tid()
    point = points[row]
    near = point - centre
    query = wp.mesh_query_point_no_sign(mesh, wp.vec3f(float(near[0]), float(near[1]), float(near[2])), reach)
    found[row] = query.face
    corners = faces[query.face]
    weights[row] = corner_weights(point, vertices[corners[0]], vertices[corners[1]], vertices[corners[2]])


class ClosestPoints:
    """A triangle mesh that finds its points nearest to given ones.

    The nearest face is found in single precision, relative to the mesh's middle. Where two faces' distances differ by
    less than a ten-millionth of the mesh's size, either may be found. The nearest point on that face is then computed
    in double precision.

    Args:
        vertices: (V, 3) float64, finite.
        faces: (F, 3), F > 0, none of them without area.
        device: Warp's name of it; by default the current CUDA device, or the CPU where there is none.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, device: str | None = None) -> None:
        if device is None:
            device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
        self.device = device
        centre = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
        self._centre = wp.vec3d(*centre.tolist())
        self._vertices = self._array(vertices, wp.vec3d)
        self._faces = self._array(faces.astype(np.int32), wp.vec3i)
        near = self._array((vertices - centre).astype(np.float32), wp.vec3f)
        self._mesh = wp.Mesh(points=near, indices=self._array(faces.astype(np.int32).reshape(-1), wp.int32))

    def _array(self, values: np.ndarray, kind: Any) -> Any:
        return wp.array(np.ascontiguousarray(values), dtype=kind, device=self.device)

    def query(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nearest faces (N,) of (N, 3) finite points, and the weights (N, 3) of their corners in the nearest places.

        The weights lie in [0, 1] and add up to 1. On an edge one of them is exactly 0, in a corner two are.
        """
        count = len(points)
        found = wp.zeros(count, dtype=wp.int32, device=self.device)
        weights = wp.zeros(count, dtype=wp.vec3d, device=self.device)
        asked = self._array(np.asarray(points, dtype=np.float64), wp.vec3d)
        inputs = [self._mesh.id, self._centre, ANYWHERE, self._vertices, self._faces, asked]
        wp.launch(find_nearest, dim=count, inputs=inputs, outputs=[found, weights], device=self.device)
        return found.numpy().astype(np.int64), weights.numpy()
