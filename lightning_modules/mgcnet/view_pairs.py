"""Pairs of views of one face, which the multi-view terms compare."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from datamodules.batch import MultiViewBatch
from lightning_modules.components.marked_landmarks import fixed_points
from renderers.camera import relative_pose
from renderers.face_renderer import Rendering


@dataclass(frozen=True)
class ViewPairs:
    """P pairs of a target view and one of its source views; P may be 0.

    Attributes:
        target: (P,) rows of the batch.
        source: (P,) rows of the batch.
        rotation: (P, 3, 3) from the target's camera to the source's, see `renderers.camera.relative_pose`.
        translation: (P, 3) decimetres, likewise.
        cameras: (P, 3, 3) intrinsics of the target and of the source, pixels.
        has_epipolar: (P,) bool, the pairs whose epipolar term counts.
        landmarks: (P, 68) bool, the landmarks that the epipolar term compares. Points of the visible contour are left
            out: they are different points of the head in the two views.
    """

    target: Tensor
    source: Tensor
    rotation: Tensor
    translation: Tensor
    cameras: tuple[Tensor, Tensor]
    has_epipolar: Tensor
    landmarks: Tensor

    @classmethod
    def of(cls, batch: MultiViewBatch, rendering: Rendering) -> ViewPairs:
        """The pairs of a batch, in the poses of its rendered faces."""
        target, source = batch.pairs()
        rotation, translation = relative_pose(
            rendering.rotation[target], rendering.translation[target],
            rendering.rotation[source], rendering.translation[source],
        )  # fmt: skip
        has_epipolar, fixed = batch.epipolar_pairs(), fixed_points(batch)
        return cls(
            target,
            source,
            rotation,
            translation,
            (batch.intrinsics[target], batch.intrinsics[source]),
            has_epipolar,
            has_epipolar[:, None] & fixed[target] & fixed[source],
        )

    def mean(self, values: Tensor) -> Tensor:
        """The mean of (P,) values; 0 without pairs."""
        return values.sum() / max(len(self.target), 1)
