"""Fine-grained: first a coarse face, then its wrinkles and the details of its skin (Huang et al.)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from datamodules.batch import FaceBatch
from lightning_modules.base import FaceModule, Stage
from lightning_modules.components.backbones import ImageEncoder
from lightning_modules.components.panels import light_picture
from lightning_modules.components.reconstruction import Reconstruction
from lightning_modules.components.weighting import weighted_sum
from lightning_modules.finegrained.held_out import in_held_out_views
from lightning_modules.finegrained.metrics import StageMetrics
from lightning_modules.finegrained.network import AlbedoModule, DisplacementModule, UnwrappedFace, unwrap_face
from lightning_modules.finegrained.shading import refitted_light
from lightning_modules.finegrained.weights import CoarseWeights, FineWeights
from losses.encoders import FaceEncoder
from losses.finegrained import (
    detailed_albedo_loss,
    normal_change,
    skin_photometric_loss,
    squared_identity_loss,
    total_variation,
    unlit,
    unsaturated,
)
from losses.regularization import coefficient_regularization
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import FaceRenderer, Rendering
from renderers.reflectance import lambertian
from renderers.units import MILLIMETRES
from renderers.uv.chart import UVChart, unit
from renderers.uv.detail import DetailedFaceRendering, add_detail


@dataclass(frozen=True)
class DetailedFace:
    """Coarse faces after the fine stage.

    Attributes:
        albedo: (B, 3, R, R) RGB map.
        displacement: (B, 1, R, R) decimetres along the normals; None where the module displaces nothing.
        illumination: (B, 27) of the photograph, see `refitted_light`.
        rendering: the faces with this albedo and displacement.
        unwrapped: the networks' input.
    """

    albedo: Tensor
    displacement: Tensor | None
    illumination: Tensor
    rendering: DetailedFaceRendering
    unwrapped: UnwrappedFace


class Finegrained(FaceModule):
    """R-Net makes the coarse face. An albedo and a displacement module, which see wavelet features, make the fine one.

    One run trains both stages. Until the step `fine_start`, equation (6) trains the coarse network. Then the coarse
    network is frozen, and equation (11) trains the fine stage's modules. The stage depends on the step alone, so an
    interrupted run goes on in the right one. The learning rate's schedule starts anew with the fine stage, and again
    with the detailed albedo: else the rate would be nearly 0 before the albedo has learned anything.

    Args:
        face_model, backbone, identity_encoder, image_size, optimizer, schedule, init_weights: see `FaceModule`.
        chart_size: R, texels along a side of the UV maps.
        coarse: weights of the coarse stage's terms.
        fine: weights of the fine stage's terms.
        fine_start: the training step from which the coarse network is frozen and the fine stage trains.
        identity_start: the training step from which the coarse stage's identity term counts. The first faces are
            shapeless, and their identity features say nothing.
        albedo_start: the step of the fine stage from which the albedo gets detail too, if there are both. A detailed
            albedo alone can explain every difference, so the displacement first learns all that shading can explain.
        wavelet: whether the fine stage sees wavelet features. The rows of table 5 are choices of this and the next two.
        displacement: whether the fine stage displaces the surface.
        albedo: whether the fine stage adds detail to the albedo. If there is nothing for the fine stage to learn, the
            coarse stage lasts to the end.
        relief: where the displacement comes from. `solved`: `relief_from_shading` alone. `learned`: the network alone.
            `both`: the network, which also sees the solved relief.
        refit_light: whether the fine stage fits the light anew, see `refitted_light`, or keeps the network's.
        channels: of the fine networks at each scale, the finest first. There is one wavelet level less than scales.
        most_displacement: millimetres, outwards or inwards.
        camera: of the coarse renderer. The paper's is orthographic, with a scale.
    """

    own_metrics: StageMetrics

    def __init__(
        self,
        face_model: MorphableModel,
        backbone: ImageEncoder,
        identity_encoder: FaceEncoder,
        image_size: int = 224,
        chart_size: int = 256,
        coarse: CoarseWeights = CoarseWeights(),
        fine: FineWeights = FineWeights(),
        fine_start: int = 0,
        identity_start: int = 0,
        albedo_start: int = 0,
        wavelet: bool = True,
        displacement: bool = True,
        albedo: bool = True,
        relief: Literal["both", "learned", "solved"] = "both",
        refit_light: bool = True,
        channels: Sequence[int] = (16, 32, 64),
        most_displacement: float = 2.5,
        camera: Literal["perspective", "orthographic"] = "orthographic",
        optimizer: Callable[[Iterable], Optimizer] = Adam,
        schedule: Literal["constant", "cosine"] = "constant",
        init_weights: str | None = None,
    ) -> None:
        renderer = FaceRenderer(face_model, image_size, camera=camera)
        super().__init__(face_model, backbone, identity_encoder, image_size, optimizer, schedule, renderer)
        self.coarse_weights, self.fine_weights = coarse, fine
        self.fine_start, self.albedo_start = fine_start, albedo_start
        self.coarse_starts = {"identity": identity_start}
        self.wavelet, self.displaces, self.details_albedo = wavelet, displacement, albedo
        self.relief, self.refits_light = relief, refit_light
        self.chart = UVChart(face_model, chart_size)
        # Both always exist, so that all rows of table 5 can start from one coarse checkpoint.
        self.albedo_module = AlbedoModule(channels)
        self.displacement_module = DisplacementModule(channels, most_displacement / MILLIMETRES)
        self.own_metrics = StageMetrics()
        self.start_from(init_weights)

    @property
    def refining(self) -> bool:
        """Whether this step belongs to the fine stage."""
        return self.has_fine_stage and self.global_step >= self.fine_start

    @property
    def has_fine_stage(self) -> bool:
        """Whether there is a fine stage at all, with something to learn."""
        return self.learns_relief or self.details_albedo

    @property
    def learns_relief(self) -> bool:
        """Whether the displacement module is trained."""
        return self.displaces and self.relief != "solved"

    @property
    def details_albedo_now(self) -> bool:
        """Whether the albedo module is in use: always in validation, from `albedo_start` on in training."""
        waits = self.training and self.learns_relief and self.global_step < self.fine_start + self.albedo_start
        return self.details_albedo and not waits

    def training_step(self, batch: FaceBatch, batch_idx: int) -> Tensor:
        refining = self.refining
        self.regressor.train(not refining)  # A frozen network's running statistics must not change.
        with torch.set_grad_enabled(not refining):
            coefficients, rendering = self.faces(batch)
        if refining:
            terms = self.fine_terms(batch, rendering, self.refine(batch.image, batch.skin, coefficients, rendering))
            loss = weighted_sum(terms, self.fine_weights.terms())
        else:
            weights = self.coarse_weights.at(self.global_step, self.coarse_starts)
            terms = self.coarse_terms(batch, coefficients, rendering, weights)
            loss = weighted_sum(terms, weights.terms())
        self.log_terms("train", terms, loss, len(batch))
        return loss

    def evaluate(self, stage: Stage, batch: FaceBatch, batch_idx: int) -> None:
        coefficients, rendering = self.faces(batch)
        face = self.refine(batch.image, batch.skin, coefficients, rendering)
        coarse = self.coarse_terms(batch, coefficients, rendering)
        fine = self.fine_terms(batch, rendering, face)
        loss = weighted_sum(coarse, self.coarse_weights.terms()) + weighted_sum(fine, self.fine_weights.terms())
        self.log_terms(stage, coarse | fine, loss, len(batch))
        self.metrics.update(batch, coefficients, rendering)
        self.own_metrics.update(batch, rendering, face.rendering)
        elsewhere = in_held_out_views(batch, self.renderer, coefficients, face.rendering)
        if elsewhere is not None:
            self.own_metrics.update(*elsewhere, held_out=True)

    def refine(self, image: Tensor, skin: Tensor, coefficients: Coefficients, rendering: Rendering) -> DetailedFace:
        """Find the maps of coarse faces, and draw the faces with them (section 3.4).

        Args:
            image: (B, 3, H, W) sRGB in [0, 1].
            skin: (B, 1, H, W) weights in [0, 1].
            coefficients: of the B coarse faces.
            rendering: the coarse faces, drawn at H x W.
        """
        chart = self.chart
        light = coefficients.illumination
        if self.refits_light:
            light = refitted_light(image, skin, light, rendering)
        unwrapped = unwrap_face(chart, image, skin, light, rendering)
        if self.relief == "learned":
            unwrapped = replace(unwrapped, relief=torch.zeros_like(unwrapped.relief))
        photograph, smooth = chart.fill(unwrapped.photograph), chart.bake(rendering.vertex_albedo)
        detail, displacement = torch.zeros_like(smooth), None
        if self.details_albedo_now:
            detail = self.albedo_module(chart.fill(smooth), photograph, self.wavelet) * chart.mask
        if self.displaces:
            displacement = self._displacement(unwrapped, photograph) * chart.mask
        detailed = add_detail(rendering, chart, light, detail, displacement)
        return DetailedFace(smooth + detail, displacement, light, detailed, unwrapped)

    def _displacement(self, unwrapped: UnwrappedFace, photograph: Tensor) -> Tensor:
        if self.relief == "solved":
            return self.displacement_module.bounded(unwrapped.relief)
        displacement: Tensor = self.displacement_module(unwrapped, photograph, self.wavelet)
        return displacement

    def refined(self, coarse: Reconstruction, image: Tensor, skin: Tensor) -> Reconstruction:
        rendering = coarse.rendering
        face = self.refine(image, skin, coarse.coefficients, rendering)
        maps = {"albedo": face.albedo}
        if face.displacement is not None:
            maps["displacement"] = face.displacement
        colors = lambertian(rendering.vertex_albedo, rendering.vertex_normals, face.illumination)
        coefficients = replace(coarse.coefficients, illumination=face.illumination)
        return Reconstruction(coefficients, replace(face.rendering, vertex_colors=colors), maps=maps, coarse=rendering)

    def coarse_terms(
        self,
        batch: FaceBatch,
        coefficients: Coefficients,
        rendering: Rendering,
        weights: CoarseWeights | None = None,
    ) -> dict[str, Tensor]:
        """The terms of equation (6), each a mean over the images. Terms of weight 0 are left out.

        Args:
            batch: of images.
            coefficients: the network's answer.
            rendering: the faces of these coefficients.
            weights: in force at this step; by default those of the whole stage.
        """
        weights = weights or self.coarse_weights
        terms: dict[str, Tensor] = {}
        if weights.photometric:
            terms["photometric"] = skin_photometric_loss(
                rendering.image, batch.image, rendering.mask, batch.skin
            ).mean()
        if weights.landmark:
            terms["landmark"] = self.landmark_term(batch, rendering.landmarks)
        if weights.identity:
            terms["identity"] = self.squared_identity_term(batch, rendering.image, rendering.landmarks)
        if weights.regularizes:
            terms["regularization"] = coefficient_regularization(coefficients, **weights.priors()).mean()
        return terms

    def fine_terms(self, batch: FaceBatch, rendering: Rendering, face: DetailedFace) -> dict[str, Tensor]:
        """The terms of equation (11), each a mean over the images. Terms of weight 0 or without their map are left out.

        Args:
            batch: of images.
            rendering: the coarse faces.
            face: the fine ones.
        """
        weights, fine = self.fine_weights, face.rendering
        terms: dict[str, Tensor] = {}
        if weights.photometric:
            terms["fine_photometric"] = skin_photometric_loss(
                fine.image, batch.image, rendering.mask, batch.skin
            ).mean()
        if weights.identity:
            terms["fine_identity"] = self.squared_identity_term(batch, fine.image, rendering.landmarks)
        if weights.albedo and self.details_albedo_now:
            terms["albedo"] = self._albedo_term(batch, rendering, face)
        if weights.smoothness and face.displacement is not None:
            change = normal_change(fine.normals, unit(rendering.normals), rendering.mask)
            variation = total_variation(face.displacement, self.chart.mask)
            terms["smoothness"] = (weights.normals * change + weights.variation * variation).mean()
        return terms

    def squared_identity_term(self, batch: FaceBatch, image: Tensor, landmarks: Tensor) -> Tensor:
        """Equation (9): see `identity_term`."""
        return self.identity_term(batch, image, landmarks, distance=squared_identity_loss)

    def _albedo_term(self, batch: FaceBatch, rendering: Rendering, face: DetailedFace) -> Tensor:
        """Equation (12): compares the albedo with the photograph's skin divided by the fine face's shading.

        Divided by the coarse face's shading, the skin would still show the relief, and the albedo would learn it.
        Saturated pixels are left out.
        """
        chart = self.chart
        with torch.no_grad():
            skin = batch.skin * unsaturated(batch.image) * rendering.mask
            bare = unlit(batch.image, face.rendering.shading) * rendering.mask
            unwrapped, visibility = chart.unwrap(torch.cat([bare, skin], dim=1), rendering)
            target, visibility = unwrapped[:, :3], visibility * unwrapped[:, 3:]
            flipped = chart.mirror(torch.cat([target, visibility], dim=1))
        return detailed_albedo_loss(face.albedo, target, visibility, flipped[:, :3], flipped[:, 3:]).mean()

    def stage_starts(self) -> tuple[int, ...]:
        if not self.has_fine_stage:
            return (0,)
        late = (self.fine_start + self.albedo_start,) if self.learns_relief and self.details_albedo else ()
        return (0, self.fine_start, *late)

    @torch.no_grad()
    def panels(self, batch: FaceBatch) -> dict[str, Tensor]:
        """Pictures of a batch by name, each (B, 3, H, W) in [0, 1]."""
        coefficients = self(batch.image)
        rendering = self.renderer(coefficients, batch.intrinsics)
        face = self.refine(batch.image, batch.skin, coefficients, rendering)
        pictures = {
            "input": batch.image,
            "coarse": torch.where(rendering.mask, rendering.image.clamp(0, 1), batch.image),
            "fine": torch.where(rendering.mask, face.rendering.image.clamp(0, 1), batch.image),
            "coarse normals": normal_picture(unit(rendering.normals), rendering.mask),
            "normals": normal_picture(face.rendering.normals, rendering.mask),
            "shading": light_picture(face.rendering.shading),
            "albedo": face.rendering.albedo.clamp(0, 1),
        }
        if batch.truth is not None and batch.truth.normals is not None:
            pictures["true normals"] = normal_picture(batch.truth.normals, batch.truth.depth > 0)
        return pictures


def normal_picture(normals: Tensor, mask: Tensor) -> Tensor:
    """(B, 3, H, W) unit normals -> colours in [0, 1], (n + 1) / 2 inside the mask (B, 1, H, W) and black outside."""
    return torch.where(mask, (normals + 1) / 2, 0.0)
