"""Augmentation of photographs: of the geometry sample by sample on the CPU, of the colours batch by batch on the
device."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from datamodules.batch import FaceBatch, MultiViewBatch
from renderers.landmarks68 import MIRROR


@dataclass(frozen=True)
class GeometrySettings:
    """How far a crop is moved at most. Each shift, scale and turn is drawn uniformly from [-x, x].

    Attributes:
        shift: fraction of the image's side.
        scale: fraction of the size.
        rotate: degrees.
        mirror: probability of mirroring.
    """

    shift: float = 0.06
    scale: float = 0.1
    rotate: float = 15.0
    mirror: float = 0.5


class GeometryAugmentation:
    """Shifts, scales, rotates and mirrors one image with its landmarks and its skin weights.

    It is not for views of one face, which would lose their relative poses and their common camera. Pixels from outside
    the image are black and no skin.
    """

    def __init__(self, settings: GeometrySettings = GeometrySettings()) -> None:
        # Without this, importing albumentations asks the package registry for newer versions.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations

        move = albumentations.Affine(
            translate_percent={"x": (-settings.shift, settings.shift), "y": (-settings.shift, settings.shift)},
            scale=(1 - settings.scale, 1 + settings.scale),
            keep_ratio=True,
            rotate=(-settings.rotate, settings.rotate),
            interpolation=cv2.INTER_LINEAR,
            mask_interpolation=cv2.INTER_LINEAR,
            p=1.0,
        )
        keypoints = albumentations.KeypointParams(format="xy", remove_invisible=False)
        flip = albumentations.HorizontalFlip(p=1.0)
        self.settings = settings
        self._plain = albumentations.Compose([move], keypoint_params=keypoints)
        self._mirrored = albumentations.Compose([flip, move], keypoint_params=keypoints)

    def __call__(
        self, image: np.ndarray, skin: np.ndarray, landmarks: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One sample, moved.

        Args:
            image: (H, W, 3) uint8.
            skin: (H, W) uint8.
            landmarks: (68, 2) continuous pixels.
            seed: the same seed moves in the same way.

        Returns:
            The three moved, of the same shapes and types. Landmarks may then lie outside the image.
        """
        # Mirroring has a random stream of its own, or it would be correlated with the shift.
        mirrored = np.random.default_rng((seed, 1)).random() < self.settings.mirror
        pipeline = self._mirrored if mirrored else self._plain
        pipeline.set_random_seed(seed)
        # albumentations puts pixel centres at whole numbers.
        moved = pipeline(image=image, mask=skin, keypoints=landmarks - 0.5)
        points = np.asarray(moved["keypoints"], dtype=landmarks.dtype) + 0.5
        return moved["image"], moved["mask"], points[MIRROR] if mirrored else points


class ColorAugmentation(nn.Module):
    """Brightness, contrast, saturation, hue, blur, grayscale and sensor noise, drawn anew for every image.

    Images that `MultiViewBatch.views` names stay as they are: the views of a face must keep their common colours.
    """

    def __init__(self) -> None:
        super().__init__()
        from kornia import augmentation

        self.steps = nn.Sequential(
            augmentation.ColorJitter(0.2, 0.2, 0.2, 0.02, p=0.8),
            augmentation.RandomGrayscale(p=0.05),
            augmentation.RandomGaussianBlur((5, 5), (0.1, 1.5), p=0.2),
            augmentation.RandomGaussianNoise(std=0.02, p=0.3),
        )

    @torch.no_grad()
    def forward(self, batch: FaceBatch) -> FaceBatch:
        """The batch with other colours: image (B, 3, H, W) in [0, 1] stays in [0, 1]; nothing else changes."""
        image: Tensor = self.steps(batch.image).clamp(0, 1)
        if isinstance(batch, MultiViewBatch) and batch.views is not None and batch.views.numel() > 0:
            shared = batch.views.flatten().unique()
            image = image.index_copy(0, shared, batch.image[shared])
        return replace(batch, image=image)
