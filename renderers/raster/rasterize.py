"""`rasterize`: one function that calls whichever rasterizer backend is installed."""

from __future__ import annotations

import importlib.util
from importlib import import_module
from typing import Protocol, cast

from torch import Tensor

from renderers.io.errors import UserError
from renderers.raster.fragments import Fragments
from renderers.raster.interpolation import make_fragments

BACKENDS = ("warp", "pytorch3d")  # fastest first; each is the name of the package that it needs and of its module here

# No backend draws these: edge-on faces, and faces whose edge functions could overflow or hold a NaN.
MIN_AREA = 1e-4  # square pixels; below it, twice a face's area is rounding
MAX_EXTENT = 1e9  # the sum of a face's nine absolute coordinates, pixels and decimetres


class Backend(Protocol):
    """What a backend module offers."""

    def visible_faces(self, vertices_image: Tensor, faces: Tensor, size: tuple[int, int]) -> Tensor:
        """The nearest face behind each pixel's centre, without gradient.

        A face is drawn from both sides, and where depths are equal the smaller index is seen. Passed over are faces
        with a corner not beyond `camera.NEAR`, with twice the area below `MIN_AREA`, or with coordinates that do not
        add up to at most `MAX_EXTENT` (NaN, infinity).

        Args:
            vertices_image: (B, V, 3) x, y in pixels, z the positive depth in decimetres.
            faces: (F, 3) int64.
            size: (H, W) pixels.

        Returns:
            (B, H, W) int64 index into faces; -1 is background.
        """


def available_backends() -> list[str]:
    """Names of the backends whose package is installed, fastest first."""
    return [name for name in BACKENDS if importlib.util.find_spec(name) is not None]


def load_backend(name: str = "auto") -> Backend:
    """The backend's module; "auto" is the fastest that is installed.

    Raises:
        UserError: no such backend, or its package is not installed.
    """
    installed = available_backends()
    if name == "auto" and installed:
        name = installed[0]
    if name not in installed:
        reason = "is not installed" if name in BACKENDS else "is not a rasterizer backend"
        raise UserError(f"rasterizer backend {name!r} {reason}; installed here: {', '.join(installed) or 'none'}")
    return cast(Backend, import_module(f"renderers.raster.{name}"))


def rasterize(vertices_image: Tensor, faces: Tensor, size: tuple[int, int], backend: str = "auto") -> Fragments:
    """Which face each pixel sees, where on it, and how far away; differentiable in the vertices.

    Args:
        vertices_image: (B, V, 3) x, y in pixels (origin at the image's top-left corner, the first pixel's centre at
            (0.5, 0.5)), z the positive depth in decimetres.
        faces: (F, 3) vertex indices, either winding, F > 0.
        size: (H, W) pixels.
        backend: "warp", "pytorch3d", or "auto" for the fastest that is installed.

    Raises:
        UserError: the backend does not exist or is not installed.
        ValueError: tensors of another shape, no faces, or an empty image.
    """
    if vertices_image.ndim != 3 or vertices_image.shape[-1] != 3 or faces.ndim != 2 or faces.shape[-1] != 3:
        shapes = f"{tuple(vertices_image.shape)} and {tuple(faces.shape)}"
        raise ValueError(f"expected vertices (B, V, 3) and faces (F, 3), got {shapes}")
    if min(size) < 1 or not len(faces):
        raise ValueError(
            f"expected at least a face and a pixel, got {len(faces)} faces and {size[0]} x {size[1]} pixels"
        )
    pix_to_face = load_backend(backend).visible_faces(vertices_image, faces, size)
    return make_fragments(vertices_image, faces, pix_to_face)
