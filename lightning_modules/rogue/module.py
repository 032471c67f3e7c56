"""ROGUE: clean faces guide what the network makes of their occluded and noisy copies (Tiwari et al.)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from datamodules.batch import CorruptedBatch
from lightning_modules.base import FaceModule, Stage
from lightning_modules.components.backbones import ResNet
from lightning_modules.components.discriminator import CoefficientDiscriminator
from lightning_modules.components.evaluation import RobustnessMetrics
from lightning_modules.components.panels import face_panels
from lightning_modules.components.weighting import weighted_sum
from losses.consistency import consistency_loss
from losses.encoders import FaceEncoder
from losses.identity import identity_loss
from losses.landmark import LANDMARKS, landmark_loss
from losses.photometric import guided_render_loss, render_loss
from losses.regularization import coefficient_regularization
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import Rendering

OCCLUDED, NOISY = "delusional", "noisy"
"""The corruptions of training, by their names in `CorruptedBatch`."""


@dataclass(frozen=True)
class ROGUEWeights:
    """Weights of equations (6) and (12), section 6.2.2; a term of weight 0 is not computed.

    Attributes:
        landmark, photometric, perceptual, regularization: alpha_K, alpha_GP, alpha_P, alpha_R of the guidance pipeline.
        occlusion, noise, consistency: beta_O, beta_N, beta_C of the robustification pipeline.
        prior_identity, prior_expression, prior_albedo: w_s, w_e, w_t inside the regularization term (5).
    """

    landmark: float = 1.6e-3
    photometric: float = 1.92
    perceptual: float = 0.2
    regularization: float = 3e-4
    occlusion: float = 1.92
    noise: float = 1.92
    consistency: float = 1e-3
    prior_identity: float = 1.0
    prior_expression: float = 0.8
    prior_albedo: float = 1.7e-3

    def terms(self) -> dict[str, float]:
        """The factor of every term in the coefficient network's loss: that of the consistency is negative (12)."""
        named = {name: value for name, value in asdict(self).items() if not name.startswith("prior_")}
        return {**named, "consistency": -self.consistency}


class ROGUE(FaceModule):
    """One coefficient network for clean, occluded and noisy pictures, and two discriminators of what it makes of them.

    Equations (6) and (12) as the network's loss, (8) and (9) as those of the discriminators. With the weights of the
    robustification pipeline at 0 this is the guidance pipeline alone; also without the perceptual term it is like MoFA,
    with `skin_mask` like R-Net (the paper's baselines).

    Args:
        face_model, backbone, identity_encoder, image_size, optimizer, schedule, init_weights: see `FaceModule`.
        weights: of the loss terms; a row of the paper's tables 4, 7 and 8 is a choice of them.
        skin_mask: weigh the guiding photometric term with skin probabilities, which the paper does without.
        perceptual_start: the training step from which the perceptual term counts; blobs are nobody in particular.
        robust_start: the training step from which corrupted pictures are shown; before it the guidance learns alone.
        discriminator_optimizer: from parameters to the optimizer of a discriminator.
    """

    def __init__(
        self,
        face_model: MorphableModel,
        backbone: ResNet,
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
        self.perceptual_start, self.robust_start = perceptual_start, robust_start
        self.make_discriminator_optimizer = discriminator_optimizer
        layout = face_model.layout()
        self.discriminators = nn.ModuleDict({name: CoefficientDiscriminator(layout) for name in (OCCLUDED, NOISY)})
        self.robustness = RobustnessMetrics(face_model, identity_encoder)
        self.start_from(init_weights)

    def training_step(self, batch: CorruptedBatch, batch_idx: int) -> None:
        network = self.optimizers()[0]  # type: ignore[index]
        step = self.global_step
        seen = self.seen() if step >= self.robust_start else ()
        with self.toggled_optimizer(network):
            coefficients = self.regress(batch, seen)
            drawn = {"clean", *self.followers()}
            renderings = self.render(batch, {name: value for name, value in coefficients.items() if name in drawn})
            terms = self.guidance_terms(
                batch, coefficients["clean"], renderings["clean"], step >= self.perceptual_start
            )
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
        self.robustness.update(batch, coefficients, renderings)

    def log_metrics(self, stage: Stage) -> None:
        super().log_metrics(stage)
        self.log_dict({f"{stage}/{name}": value for name, value in self.robustness.compute().items()})
        self.robustness.reset()

    def seen(self) -> tuple[str, ...]:
        """The corruptions that some term of equation (12) needs."""
        return tuple(name for name in (OCCLUDED, NOISY) if self.weights.consistency or name in self.followers())

    def regress(self, batch: CorruptedBatch, corruptions: Sequence[str]) -> dict[str, Coefficients]:
        """Coefficients of the clean images and of their corrupted copies by name, in one pass of the network."""
        names = ("clean", *corruptions)
        images = [batch.image, *(batch.corrupted[name] for name in corruptions)]
        together = self(torch.cat(images))
        count = len(batch)
        return {name: together.index(slice(i * count, (i + 1) * count)) for i, name in enumerate(names)}

    def render(self, batch: CorruptedBatch, coefficients: Mapping[str, Coefficients]) -> dict[str, Rendering]:
        """What the coefficients of a batch draw, by their names: all in one pass of the renderer."""
        drawn = self.renderer(self.joined(coefficients.values()), batch.intrinsics.repeat(len(coefficients), 1, 1))
        named = zip(coefficients.items(), drawn.split(len(batch)), strict=True)
        return {name: self.as_marked(rendering, its, batch) for (name, its), rendering in named}

    def guidance_terms(
        self, batch: CorruptedBatch, coefficients: Coefficients, rendering: Rendering, perceptual: bool = True
    ) -> dict[str, Tensor]:
        """L_K (2), L_GP (3), L_P (4) and L_R (5) of the clean images, each a mean; only those with a weight.

        Args:
            batch: of images.
            coefficients: what the network made of the clean ones.
            rendering: what these draw.
            perceptual: whether the perceptual term counts yet.
        """
        weights = self.weights
        terms: dict[str, Tensor] = {}
        if weights.landmark:
            even = rendering.landmarks.new_ones(LANDMARKS)
            terms["landmark"] = landmark_loss(rendering.landmarks, batch.landmarks, even, self.image_size).mean()
        if weights.photometric:
            skin = batch.skin if self.skin_mask else torch.ones_like(batch.skin)
            terms["photometric"] = render_loss(rendering.image, batch.image, rendering.mask, skin).mean()
        if weights.perceptual and perceptual:
            with torch.no_grad():
                wanted = self.identity_encoder(batch.image, batch.landmarks)
            drawn = self.identity_encoder(rendering.image, rendering.landmarks)
            terms["perceptual"] = identity_loss(drawn, wanted).mean()
        if weights.regularization:
            terms["regularization"] = coefficient_regularization(
                coefficients, weights.prior_identity, weights.prior_expression, weights.prior_albedo
            ).mean()
        return terms

    def followers(self) -> dict[str, str]:
        """The corruptions whose faces are drawn in training, with the names of their terms."""
        terms = {OCCLUDED: ("occlusion", self.weights.occlusion), NOISY: ("noise", self.weights.noise)}
        return {name: term for name, (term, weight) in terms.items() if weight}

    def robustification_terms(
        self,
        batch: CorruptedBatch,
        coefficients: Mapping[str, Coefficients],
        renderings: Mapping[str, Rendering],
    ) -> dict[str, Tensor]:
        """L_O (10), L_N (11) and L_C (7) of the corrupted copies; only those with a weight, of copies that are there.

        The guiding coefficients are cut from the graph: the clean face leads and does not follow. Of the drawn clean
        faces only the outline is taken.

        Args:
            batch: of images.
            coefficients: what the network made of the clean ones and of copies, by name.
            renderings: what those of "clean" and of the `followers` draw.
        """
        weights = self.weights
        terms: dict[str, Tensor] = {}
        for name, term in self.followers().items():
            if name in renderings:
                drawn, region = renderings[name], renderings["clean"].mask
                terms[term] = guided_render_loss(
                    drawn.image, drawn.mask, drawn.surface_points, batch.image, region
                ).mean()
        if weights.consistency and len(coefficients) > 1:
            terms["consistency"] = self.consistency({**coefficients, "clean": coefficients["clean"].detach()})
        return terms

    def consistency(self, coefficients: Mapping[str, Coefficients]) -> Tensor:
        """L_C = L_CO + L_CN (7): each discriminator on the guiding coefficients and those of its own corruption."""
        parts = []
        for name, judge in self.discriminators.items():
            answers = judge(self.joined([coefficients["clean"], coefficients[name]]))
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
            drawn = self.renderer(coefficients[name], batch.intrinsics)
            pictures |= {name: image, f"{name} overlay": torch.where(drawn.mask, drawn.image.clamp(0, 1), batch.image)}
        return pictures
