"""ROGUE: clean faces guide what the network makes of their occluded and noisy copies (Tiwari et al.)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from datamodules.batch import CorruptedBatch
from lightning_modules.base import FaceModule, Stage
from lightning_modules.components.backbones import ImageEncoder
from lightning_modules.components.panels import face_panels
from lightning_modules.components.weighting import weighted_sum
from lightning_modules.rogue.metrics import RobustnessMetrics
from lightning_modules.rogue.network import CoefficientDiscriminator, effects
from lightning_modules.rogue.weights import ROGUEWeights
from losses.consistency import consistency_loss
from losses.encoders import FaceEncoder
from losses.photometric import guided_render_loss, render_loss
from losses.regularization import coefficient_regularization
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import Rendering

OCCLUDED, NOISY = "delusional", "noisy"
"""The corruptions of training, by their names in `CorruptedBatch`."""


class ROGUE(FaceModule):
    """One coefficient network for clean, occluded and noisy pictures, and two discriminators of what it makes of them.

    Equations (6) and (12) as the network's loss, (8) and (9) as those of the discriminators. With the weights of the
    robustification pipeline at 0 this is the guidance pipeline alone; also without the perceptual term it is like MoFA,
    with `skin_mask` like R-Net (the paper's baselines).

    Args:
        face_model, backbone, identity_encoder, image_size, optimizer, schedule, init_weights: see `FaceModule`.
        weights: of the loss terms; a row of the paper's tables 4, 7 and 8 is a choice of them.
        skin_mask: weigh the guiding photometric term with skin probabilities, which the paper does without.
        perceptual_start: the training step from which the perceptual term counts. The first faces are shapeless, and
            their identity features say nothing.
        robust_start: the training step from which corrupted pictures are shown; before it the guidance learns alone.
            The data module needs no copies before it, see `CorruptedFaces`.
        discriminator_optimizer: from parameters to the optimizer of a discriminator.
    """

    own_metrics: RobustnessMetrics

    def __init__(
        self,
        face_model: MorphableModel,
        backbone: ImageEncoder,
        identity_encoder: FaceEncoder,
        image_size: int = 224,
        weights: ROGUEWeights = ROGUEWeights(),
        skin_mask: bool = False,
        perceptual_start: int = 0,
        robust_start: int = 0,
        optimizer: Callable[[Iterable], Optimizer] = Adam,
        discriminator_optimizer: Callable[[Iterable], Optimizer] = Adam,
        schedule: Literal["constant", "cosine"] = "constant",
        init_weights: str | None = None,
    ) -> None:
        super().__init__(face_model, backbone, identity_encoder, image_size, optimizer, schedule)
        self.automatic_optimization = False
        self.weights, self.skin_mask = weights, skin_mask
        self.starts = {
            "perceptual": perceptual_start,
            **dict.fromkeys(("occlusion", "noise", "consistency"), robust_start),
        }
        self.make_discriminator_optimizer = discriminator_optimizer
        scale = effects(face_model)
        judges = {name: CoefficientDiscriminator(face_model.layout(), scale) for name in (OCCLUDED, NOISY)}
        self.discriminators = nn.ModuleDict(judges)
        self.own_metrics = RobustnessMetrics(face_model, identity_encoder)
        self.start_from(init_weights)

    def training_step(self, batch: CorruptedBatch, batch_idx: int) -> None:
        network = self.optimizers()[0]  # type: ignore[index]
        weights = self.weights.at(self.global_step, self.starts)
        with self.toggled_optimizer(network):
            coefficients = self.regress(batch, needed_corruptions(weights))
            rendered = {"clean", *rendered_corruptions(weights)}
            renderings = self.render(batch, {name: value for name, value in coefficients.items() if name in rendered})
            terms = self.guidance_terms(batch, coefficients["clean"], renderings["clean"], weights)
            terms |= self.robustification_terms(batch, coefficients, renderings)
            loss = weighted_sum(terms, self.weights.terms())
            network.zero_grad()
            self.manual_backward(loss)
            network.step()
        if "consistency" in terms:
            self.discriminators_step(coefficients)
        schedule = self.lr_schedulers()
        if schedule is not None:
            schedule.step()  # type: ignore[union-attr]
        self.log_terms("train", terms, loss, len(batch))

    def discriminators_step(self, coefficients: Mapping[str, Coefficients]) -> None:
        """Moves both discriminators towards telling guiding coefficients from corrupted ones: they minimise L_C (7)."""
        # Not Lightning's wrappers, which would count each of them as a training step.
        optimizers = self.trainer.optimizers[1:]
        detached = {name: value.detach() for name, value in coefficients.items()}
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(self.consistency(detached))
        for optimizer in optimizers:
            optimizer.step()

    def evaluate(self, stage: Stage, batch: CorruptedBatch, batch_idx: int) -> None:
        coefficients = self.regress(batch, tuple(batch.corrupted))
        renderings = self.render(batch, coefficients)
        terms = self.guidance_terms(batch, coefficients["clean"], renderings["clean"])
        self.log_terms(stage, terms, weighted_sum(terms, self.weights.terms()), len(batch))
        self.metrics.update(batch, coefficients["clean"], renderings["clean"])
        self.own_metrics.update(batch, coefficients, renderings)

    def regress(self, batch: CorruptedBatch, corruptions: Sequence[str]) -> dict[str, Coefficients]:
        """Coefficients of the clean images and of their corrupted copies by name, in one pass of the network."""
        names = ("clean", *corruptions)
        images = [batch.image, *(batch.corrupted[name] for name in corruptions)]
        together = self(torch.cat(images))
        count = len(batch)
        return {name: together.index(slice(i * count, (i + 1) * count)) for i, name in enumerate(names)}

    def render(self, batch: CorruptedBatch, coefficients: Mapping[str, Coefficients]) -> dict[str, Rendering]:
        """The rendered faces of a batch's coefficients, by their names: all in one pass of the renderer."""
        together = self.renderer(self.joined(coefficients.values()), batch.intrinsics.repeat(len(coefficients), 1, 1))
        named = zip(coefficients.items(), together.split(len(batch)), strict=True)
        return {name: self.as_marked(rendering, own, batch) for (name, own), rendering in named}

    def guidance_terms(
        self,
        batch: CorruptedBatch,
        coefficients: Coefficients,
        rendering: Rendering,
        weights: ROGUEWeights | None = None,
    ) -> dict[str, Tensor]:
        """L_K (2), L_GP (3), L_P (4) and L_R (5) of the clean images, each a mean; only those with a weight.

        Args:
            batch: of images.
            coefficients: what the network made of the clean ones.
            rendering: what these draw.
            weights: in force at this step; by default all.
        """
        weights = weights or self.weights
        terms: dict[str, Tensor] = {}
        if weights.landmark:
            terms["landmark"] = self.landmark_term(batch, rendering.landmarks)
        if weights.photometric:
            skin = batch.skin if self.skin_mask else torch.ones_like(batch.skin)
            terms["photometric"] = render_loss(rendering.image, batch.image, rendering.mask, skin).mean()
        if weights.perceptual:
            terms["perceptual"] = self.identity_term(batch, rendering.image, rendering.landmarks)
        if weights.regularization:
            terms["regularization"] = coefficient_regularization(coefficients, **weights.priors()).mean()
        return terms

    def robustification_terms(
        self,
        batch: CorruptedBatch,
        coefficients: Mapping[str, Coefficients],
        renderings: Mapping[str, Rendering],
    ) -> dict[str, Tensor]:
        """L_O (10), L_N (11) and L_C (7) of the corrupted copies; only those with a weight, of copies that are there.

        The coefficients of the clean faces get no gradient: the corrupted ones must move towards them. Of the rendered
        clean faces only the outline is used.

        Args:
            batch: of images.
            coefficients: what the network made of the clean ones and of copies, by name.
            renderings: what those of "clean" and of the `rendered_corruptions` draw.
        """
        weights = self.weights
        terms: dict[str, Tensor] = {}
        for name, term in rendered_corruptions(weights).items():
            if name in renderings:
                copy, region = renderings[name], renderings["clean"].mask
                terms[term] = guided_render_loss(copy.image, copy.mask, copy.surface_points, batch.image, region).mean()
        if weights.consistency and len(coefficients) > 1:
            terms["consistency"] = self.consistency({**coefficients, "clean": coefficients["clean"].detach()})
        return terms

    def consistency(self, coefficients: Mapping[str, Coefficients]) -> Tensor:
        """L_C = L_CO + L_CN (7): each discriminator on guiding coefficients beside themselves and its corruption's."""
        guiding, parts = coefficients["clean"], []
        for name, judge in self.discriminators.items():
            answers = judge(self.joined([guiding, guiding]), self.joined([guiding, coefficients[name]]))
            parts.append(consistency_loss(*answers.chunk(2)))
        return torch.stack(parts).sum()

    def joined(self, coefficients: Iterable[Coefficients]) -> Coefficients:
        """Those of several batches as those of one."""
        layout = self.face_model.layout()
        return layout.split(torch.cat([layout.join(value) for value in coefficients]))

    def configure_optimizers(self) -> Any:
        judges = [self.make_discriminator_optimizer(judge.parameters()) for judge in self.discriminators.values()]
        configured = self.scheduled(self.make_optimizer(self.regressor.parameters()))
        return [configured, *({"optimizer": optimizer} for optimizer in judges)]

    @torch.no_grad()
    def panels(self, batch: CorruptedBatch) -> dict[str, Tensor]:
        """Pictures of a batch by name, each (B, 3, H, W) in [0, 1]: the clean face's, then what each copy gave."""
        coefficients = self.regress(batch, tuple(batch.corrupted))
        pictures = face_panels(batch.image, self.renderer(coefficients["clean"], batch.intrinsics))
        for name, image in batch.corrupted.items():
            rendering = self.renderer(coefficients[name], batch.intrinsics)
            overlay = torch.where(rendering.mask, rendering.image.clamp(0, 1), batch.image)
            pictures |= {name: image, f"{name} overlay": overlay}
        return pictures


def rendered_corruptions(weights: ROGUEWeights) -> dict[str, str]:
    """The corruptions whose faces are rendered in training, with the names of their terms."""
    terms = {OCCLUDED: ("occlusion", weights.occlusion), NOISY: ("noise", weights.noise)}
    return {name: term for name, (term, weight) in terms.items() if weight}


def needed_corruptions(weights: ROGUEWeights) -> tuple[str, ...]:
    """The corruptions that some term of equation (12) needs."""
    return tuple(name for name in (OCCLUDED, NOISY) if weights.consistency or name in rendered_corruptions(weights))
