"""Drawn heads, cropped as by a detector and photographed as by an imperfect camera."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.batch import FaceBatch
from datamodules.camera_effects import CameraRanges
from datamodules.preparation.alignment import model_template
from datamodules.synthesis.scenes import SceneSettings
from datamodules.synthetic import SyntheticMultiView
from renderers.coefficients import CoefficientLayout
from renderers.face_models.base import MorphableModel
from renderers.illumination import turned_light


@dataclass(frozen=True)
class CropJitter:
    """Standard deviations of the errors of a detector's crop.

    Attributes:
        scale: logarithm of the size.
        turn: radians in the plane.
        shift: shares of the crop's side.
        point: of each of the five points that place the crop, shares of its side.
    """

    scale: float = 0.07
    turn: float = 0.1
    shift: float = 0.03
    point: float = 0.01


class HeadCrops(SyntheticMultiView):
    """Synthetic faces, mostly whole heads (`SyntheticMultiView` with `settings.heads`), cropped by their five points.

    A training picture gets a new, slightly wrong crop and a new camera every time it is shown. Crops and cameras of
    validation pictures stay the same.

    Args:
        face_model, batch_size, train_faces, val_faces, test_faces, seed, settings, num_workers: see
            `SyntheticMultiView`.
        size: pixels along a side of the crops.
        picture_size: pixels along a side of the cached pictures, which the crops are cut from.
        jitter: of the crops.
        camera_effects: what cameras do to the crops; None leaves them as they were drawn.
    """

    def __init__(
        self,
        face_model: MorphableModel,
        size: int = 112,
        picture_size: int = 128,
        batch_size: int = 32,
        train_faces: int = 20000,
        val_faces: int = 256,
        test_faces: int = 512,
        seed: int = 0,
        settings: SceneSettings = SceneSettings(),
        jitter: CropJitter = CropJitter(),
        num_workers: int = 0,
        camera_effects: CameraRanges | None = CameraRanges(),
    ) -> None:
        counts = train_faces, val_faces, test_faces
        super().__init__(face_model, picture_size, batch_size, *counts, seed, settings, num_workers, camera_effects)
        template = torch.as_tensor(model_template(face_model, size)).float()
        self.crop = HeadCrop(template, size, jitter, face_model.layout())

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer is not None and self.trainer.training:
            return self.photographed(batch)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.photographed(batch)

    def photographed(self, batch: FaceBatch) -> FaceBatch:
        """The batch with new crops and new cameras."""
        cropped: FaceBatch = self.crop(batch)
        return cropped if self.camera_effects is None else self.camera_effects(cropped)


class HeadCrop(nn.Module):
    """Crops every picture of a batch by five of its landmarks, and changes its truth accordingly.

    A similarity in the picture's plane equals a camera that is turned about its axis and has another focal length and
    principal point, so the truth stays exact.

    Args:
        template: (5, 2) places of the five points in the crop, pixels.
        size: side of the crop, pixels.
        jitter: the detector's errors.
        layout: of the truth's coefficients.
    """

    def __init__(self, template: Tensor, size: int, jitter: CropJitter, layout: CoefficientLayout) -> None:
        super().__init__()
        self.template, self.size, self.jitter, self.layout = template, size, jitter, layout

    @torch.no_grad()
    def forward(self, batch: FaceBatch) -> FaceBatch:
        """(B, 3, H, W) pictures -> crops of `size`, with the crops' landmarks, intrinsics and truth."""
        device = batch.image.device
        factor, offset = self._similarity(batch.landmarks)
        grid = self._grid(factor, offset, batch.size)
        image = _sampled(batch.image, grid, "bilinear")
        intrinsics = batch.intrinsics.clone()
        intrinsics[:, :2, 2] = _placed(batch.intrinsics[:, None, :2, 2], factor, offset)[:, 0]
        scale = factor.abs()
        intrinsics[:, 0, 0] *= scale
        intrinsics[:, 1, 1] *= scale
        truth = batch.truth
        if truth is not None:
            turned = self._turned(truth.coefficients, factor.angle()).to(device)
            parsing = None if truth.parsing is None else _sampled(truth.parsing.float(), grid, "nearest").byte()
            truth = replace(truth, coefficients=turned, depth=_sampled(truth.depth, grid, "nearest"), parsing=parsing)
        return replace(
            batch,
            image=image,
            landmarks=_placed(batch.landmarks, factor, offset),
            skin=_sampled(batch.skin, grid, "nearest"),
            intrinsics=intrinsics,
            truth=truth,
        )

    def _similarity(self, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        """Complex (B,) factor and offset: pixel x + iy of the picture -> factor (x + iy) + offset in the crop.

        In complex numbers the least-squares similarity of the five points (Umeyama 1991) is a linear regression.
        """
        jitter, size = self.jitter, self.size
        eyes = landmarks[:, 36:48].unflatten(1, (2, 6)).mean(dim=2)
        five = torch.cat([eyes, landmarks[:, 30:31], landmarks[:, 48:55:6]], dim=1)
        target = torch.view_as_complex(self.template.to(five).contiguous())
        source = torch.view_as_complex(five.contiguous())
        middle = source.mean(dim=1, keepdim=True)
        centred = source - middle
        factor = (centred.conj() * (target - target.mean())).sum(dim=1) / centred.abs().square().sum(dim=1)
        noise = torch.view_as_complex(jitter.point * size * torch.randn_like(five)) / factor.abs()[:, None]
        centred = centred + noise
        factor = (centred.conj() * (target - target.mean())).sum(dim=1) / centred.abs().square().sum(dim=1)
        scale, turn = jitter.scale * torch.randn(len(five)), jitter.turn * torch.randn(len(five))
        factor = factor * torch.polar(scale.exp(), turn).to(factor)
        shift = torch.view_as_complex(jitter.shift * size * torch.randn(len(five), 2)).to(factor)
        return factor, target.mean() + shift - factor * (middle[:, 0] + noise.mean(dim=1))

    def _grid(self, factor: Tensor, offset: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, S, S, 2) the place of each of the crop's pixels in the picture, in grid_sample's coordinates."""
        steps = torch.arange(self.size, device=factor.device) + 0.5
        pixels = torch.complex(steps.expand(self.size, -1), steps[:, None].expand(-1, self.size))
        places = torch.view_as_real((pixels - offset[:, None, None]) / factor[:, None, None])
        return 2 * places / places.new_tensor([size[1], size[0]]) - 1

    def _turned(self, vector: Tensor, turn: Tensor) -> Tensor:
        """(B, L) coefficients of heads after their pictures were turned by (B,) radians, clockwise as one sees it."""
        found = self.layout.split(vector)
        angles = found.angles.clone()
        angles[:, 2] -= turn
        place = torch.view_as_complex(found.translation[:, :2].contiguous()) * torch.polar(torch.ones_like(turn), -turn)
        translation = torch.cat([torch.view_as_real(place), found.translation[:, 2:]], dim=-1)
        cosine, sine, zero = turn.cos(), turn.sin(), torch.zeros_like(turn)
        rotation = torch.stack([cosine, sine, zero, -sine, cosine, zero, zero, zero, zero + 1], -1).unflatten(
            -1, (3, 3)
        )
        light = turned_light(found.illumination, rotation)
        return self.layout.join(replace(found, angles=angles, translation=translation, illumination=light))


def _placed(points: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    """(B, N, 2) under a similarity."""
    return torch.view_as_real(torch.view_as_complex(points.contiguous()) * factor[:, None] + offset[:, None])


def _sampled(picture: Tensor, grid: Tensor, mode: str) -> Tensor:
    return nn.functional.grid_sample(picture, grid, mode, padding_mode="border", align_corners=False)
