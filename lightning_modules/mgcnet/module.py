"""MGCNet: multi-view geometry consistency in training, one image at inference (Shang et al., ECCV 2020)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from datamodules.batch import MultiViewBatch
from lightning_modules.base import FaceModule, Stage
from lightning_modules.components.backbones import ImageEncoder
from lightning_modules.components.distributed import process_count, process_weights
from lightning_modules.components.panels import face_panels
from lightning_modules.components.weighting import weighted_sum
from lightning_modules.mgcnet.view_pairs import ViewPairs
from lightning_modules.mgcnet.weights import MGCNetWeights
from losses.encoders import FaceEncoder
from losses.landmark import landmark_weights
from losses.multiview import depth_consistency_loss, epipolar_loss, pixel_consistency_loss
from losses.photometric import render_loss, saturate_skin
from losses.regularization import coefficient_regularization
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import Rendering
from renderers.view_synthesis import covisible_map, synthesize_view


class MGCNet(FaceModule):
    """One network for every view, trained by equation 6.

    Args:
        face_model, backbone, identity_encoder, image_size, optimizer, schedule, init_weights: see `FaceModule`.
        weights: of the loss terms. Each row of the paper's table 3 sets some of them to 0.
        identity_views: the images that have an identity term: `all`, or `targets`, which are the target of each group
            of views and every image without a group. With three views in a group, `targets` costs a third.
        identity_start: the training step from which the identity term counts. The first faces are shapeless, and their
            identity features say nothing.
        multi_view_start: the training step from which the multi-view terms count. An untrained network gives every view
            the same pose. The epipolar loss is zero at identical poses, so train the 2D terms first.
        covisible: whether the pixel and depth terms count only the covisible map (section 3.4). If not, they count the
            target's whole face.
        pixel_distance: how the pixel term compares two colours: `mean` over the channels, or `euclidean` as in the
            paper's release.
    """

    landmark_weights: Tensor

    def __init__(
        self,
        face_model: MorphableModel,
        backbone: ImageEncoder,
        identity_encoder: FaceEncoder,
        image_size: int = 224,
        weights: MGCNetWeights = MGCNetWeights(),
        identity_views: Literal["all", "targets"] = "all",
        identity_start: int = 0,
        multi_view_start: int = 0,
        covisible: bool = True,
        pixel_distance: Literal["mean", "euclidean"] = "mean",
        optimizer: Callable[[Iterable], Optimizer] = Adam,
        schedule: Literal["constant", "cosine"] = "constant",
        init_weights: str | None = None,
    ) -> None:
        super().__init__(face_model, backbone, identity_encoder, image_size, optimizer, schedule)
        self.weights = weights
        self.identity_views: Literal["all", "targets"] = identity_views
        self.starts = {
            "identity": identity_start,
            **dict.fromkeys(("pixel", "depth", "epipolar"), multi_view_start),
        }
        self.covisible, self.euclidean_pixels = covisible, pixel_distance == "euclidean"
        self.register_buffer("landmark_weights", landmark_weights(), persistent=False)
        self.start_from(init_weights)

    def training_step(self, batch: MultiViewBatch, batch_idx: int) -> Tensor:
        weights = self.weights.at(self.global_step, self.starts)
        terms = self.terms(batch, *self.faces(batch), weights)
        loss = weighted_sum(terms, weights.terms())
        self.log_terms("train", terms, loss, len(batch))
        if process_count() == 1:
            return loss
        return weighted_sum(self.over_all_processes(batch, terms), weights.terms())

    def over_all_processes(self, batch: MultiViewBatch, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weight the terms so that DDP's mean over processes becomes a mean over all images, or all pairs of views.

        Processes may have different numbers of groups of views, and so of images.
        """
        targets = batch.targets() if self.identity_views == "targets" else batch.image
        pairs_counted = batch.epipolar_pairs()
        counts = torch.tensor([len(batch), len(targets), len(pairs_counted), int(pairs_counted.sum())])
        images, identity, pairs, epipolar = process_weights(counts.to(self.device, torch.float32))
        own = {"identity": identity, "pixel": pairs, "depth": pairs, "epipolar": epipolar}
        return {name: own.get(name, images) * term for name, term in terms.items()}

    def evaluate(self, stage: Stage, batch: MultiViewBatch, batch_idx: int) -> None:
        coefficients, rendering = self.faces(batch)
        terms = self.terms(batch, coefficients, rendering, self.weights)
        self.log_terms(stage, terms, weighted_sum(terms, self.weights.terms()), len(batch))
        self.metrics.update(batch, coefficients, rendering)

    def terms(
        self, batch: MultiViewBatch, coefficients: Coefficients, rendering: Rendering, weights: MGCNetWeights
    ) -> dict[str, Tensor]:
        """The terms of equation 6: those of single images, and those of pairs of views."""
        single = self.feature_terms(batch, coefficients, rendering, weights)
        return single | self.multi_view_terms(batch, rendering, weights)

    def feature_terms(
        self,
        batch: MultiViewBatch,
        coefficients: Coefficients,
        rendering: Rendering,
        weights: MGCNetWeights | None = None,
    ) -> dict[str, Tensor]:
        """The 2D feature losses of section 3.3, each a mean over all images. Losses of weight 0 are left out.

        Args:
            batch: of images.
            coefficients: the network's answer.
            rendering: the faces of these coefficients.
            weights: in force at this step; by default those of the whole training.
        """
        weights = weights or self.weights
        terms: dict[str, Tensor] = {}
        if weights.render:
            skin = saturate_skin(batch.skin)
            terms["render"] = render_loss(rendering.image, batch.image, rendering.mask, skin).mean()
        if weights.landmark:
            terms["landmark"] = self.landmark_term(batch, rendering.landmarks, self.landmark_weights)
        if weights.identity:
            rows = batch.targets() if self.identity_views == "targets" else slice(None)
            terms["identity"] = self.identity_term(batch, rendering.image, rendering.landmarks, rows)
        if weights.regularization:
            terms["regularization"] = coefficient_regularization(coefficients, **weights.priors()).mean()
        return terms

    def multi_view_terms(
        self, batch: MultiViewBatch, rendering: Rendering, weights: MGCNetWeights | None = None
    ) -> dict[str, Tensor]:
        """The multi-view losses of sections 3.4 to 3.7, each a mean over the (target, source) pairs that it counts.

        Images that belong to no group of views have no pair. Without groups every term is 0.

        Args:
            batch: of images.
            rendering: the faces of the network's coefficients.
            weights: in force at this step; by default those of the whole training.
        """
        weights = weights or self.weights
        if not (weights.pixel or weights.depth or weights.epipolar):
            return {}
        pairs = ViewPairs.of(batch, rendering)
        target, source = pairs.target, pairs.source
        pose = pairs.rotation, pairs.translation
        terms: dict[str, Tensor] = {}
        if weights.pixel or weights.depth:
            covisible = self.covisible_map(rendering, target, source)
            depth_target, depth_source = rendering.depth[target], rendering.depth[source]
            view = synthesize_view(batch.image[source], depth_source, depth_target, *pairs.cameras, *pose)
            shared = view.inside & covisible
            if weights.pixel:
                distances = pixel_consistency_loss(view.image, batch.image[target], shared, self.euclidean_pixels)
                terms["pixel"] = pairs.mean(distances)
            if weights.depth:
                terms["depth"] = pairs.mean(depth_consistency_loss(view.depth, depth_target, shared))
        if weights.epipolar:
            landmarks = batch.landmarks[target], batch.landmarks[source]
            distances = epipolar_loss(*landmarks, *pairs.cameras, *pose, pairs.landmarks)
            terms["epipolar"] = distances.sum() / pairs.has_epipolar.sum().clamp_min(1)
        return terms

    def covisible_map(self, rendering: Rendering, target: Tensor, source: Tensor) -> Tensor:
        """(P, 1, H, W) bool: section 3.4's map for each pair, or the target's whole face if the map is switched off."""
        if not self.covisible:
            return rendering.mask[target]
        pix_to_face = rendering.fragments.pix_to_face
        return covisible_map(pix_to_face[target], pix_to_face[source], rendering.faces, self.face_model.vertex_count)

    @torch.no_grad()
    def panels(self, batch: MultiViewBatch) -> dict[str, Tensor]:
        """Pictures of a batch by name, each (B, 3, H, W) in [0, 1].

        A target's covisible map is that with its first source. A source's is that with its target.
        """
        rendering = self.renderer(self(batch.image), batch.intrinsics)
        pictures = face_panels(batch.image, rendering)
        target, source = batch.pairs()
        shared = torch.zeros_like(batch.image)
        for first, second in ((target.flip(0), source.flip(0)), (source, target)):
            shared[first] = self.covisible_map(rendering, first, second).expand(-1, 3, -1, -1).to(shared)
        return pictures | {"covisible map": 0.25 * batch.image + 0.75 * shared * batch.image}
