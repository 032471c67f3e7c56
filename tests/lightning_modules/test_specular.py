"""The specular module: which terms run and when, that the truth is their minimum, and what is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.batch import FaceBatch, Truth
from lightning_modules.components.backbones import ResNet
from lightning_modules.components.checkpoint_file import load_weights
from lightning_modules.components.weighting import weighted_sum
from lightning_modules.specular import Specular, SpecularWeights
from renderers.camera import default_intrinsics
from renderers.coefficients import Coefficients
from renderers.io.errors import UserError
from renderers.specular_renderer import SPECULAR_COEFFICIENTS
from tests.conf.parts import SmallEncoder, Told
from tests.conf.scenes import small_face_model
from tests.conf.shiny import small_shiny_model

SIZE = 64
PAPER = SpecularWeights()
NOTHING = SpecularWeights(**dict.fromkeys(SpecularWeights().terms(), 0.0))


def make_module(weights: SpecularWeights = PAPER, **arguments: Any) -> Specular:
    torch.manual_seed(0)
    return Specular(small_shiny_model(), ResNet(18), SmallEncoder(), SIZE, weights, **arguments)


def shiny_batch(faces: int = 3) -> tuple[FaceBatch, Coefficients]:
    """Exact shiny faces, and the coefficients that the module would have to regress."""
    model = small_shiny_model()
    layout = model.layout(SPECULAR_COEFFICIENTS)
    generator = torch.Generator().manual_seed(1)
    vector = 0.1 * torch.randn(faces, layout.length, generator=generator)
    coefficients = layout.split(vector)
    coefficients.extra["scale"].zero_()
    rendering = make_module().renderer(coefficients)
    batch = FaceBatch(
        image=rendering.image.clamp(0, 1),
        landmarks=rendering.landmarks,
        skin=rendering.mask.float(),
        intrinsics=default_intrinsics(SIZE).repeat(faces, 1, 1),
        truth=Truth(
            vector[:, : model.layout().length], rendering.depth, light_position=rendering.lamp.position,
            shininess=rendering.lamp.shininess, intensity=rendering.lamp.intensity,
            diffuse=rendering.diffuse, specular=rendering.specular,
        ),
    )  # fmt: skip
    return batch, coefficients


def terms_of(
    module: Specular, batch: FaceBatch, coefficients: Coefficients, weights: SpecularWeights | None = None
) -> dict[str, Tensor]:
    return module.terms(batch, coefficients, module.renderer(coefficients, batch.intrinsics), weights)


def test_only_terms_with_a_weight_and_only_when_they_count() -> None:
    batch, truth = shiny_batch()
    names = set(PAPER.terms())
    assert set(terms_of(make_module(), batch, truth)) == names - {"lids"}  # which the paper has not
    waiting = PAPER.at(4, {"identity": 5, "mouth": 5, "uniform": 4})
    assert set(terms_of(make_module(), batch, truth, waiting)) == names - {"identity", "mouth", "lids"}
    for name in names:
        assert set(terms_of(make_module(replace(NOTHING, **{name: 1.0})), batch, truth)) == {name}


def test_the_truth_is_the_minimum_of_the_measuring_terms() -> None:
    batch, truth = shiny_batch()
    module = make_module()
    # With no pixel a likely skin, the photometric term is that of both renders together alone.
    batch = replace(batch, skin_probability=torch.zeros_like(batch.skin))
    exact = terms_of(module, batch, truth)
    for name in ("photometric", "landmark", "mouth", "identity"):
        assert exact[name] < 1e-3, name
    darker = replace(truth, illumination=truth.illumination - 0.2)
    assert terms_of(module, batch, darker)["photometric"] > 0.05
    moved = Coefficients.from_named({**truth.named(), "light_position": truth.extra["light_position"] + 1})
    assert terms_of(module, batch, moved)["photometric"] > 2e-3
    turned = replace(truth, angles=truth.angles + 0.2)
    assert terms_of(module, batch, turned)["landmark"] > 1


def test_unlikely_skin_leaves_the_diffuse_render_alone() -> None:
    """Equation (8): the first term, which would have the diffuse render explain highlights, counts where p says so."""
    batch, truth = shiny_batch()
    module = make_module()
    sure = terms_of(module, replace(batch, skin_probability=torch.ones_like(batch.skin)), truth)["photometric"]
    without = terms_of(module, batch, truth)["photometric"]  # the skin weights stand for the probabilities
    torch.testing.assert_close(sure, without)
    shine = (batch.image - batch.truth.diffuse).square().sum(dim=1).sqrt()  # type: ignore[union-attr,operator]
    inside = batch.skin[:, 0] > 0
    by_hand = torch.stack([values[where].mean() for values, where in zip(shine, inside, strict=True)]).mean()
    torch.testing.assert_close(sure, by_hand, atol=2e-3, rtol=0)


def test_every_regressed_coefficient_gets_a_gradient() -> None:
    batch, _ = shiny_batch()
    module = make_module()
    torch.nn.init.normal_(module.regressor.head.weight, std=0.01)
    coefficients = module(batch.image)
    weighted_sum(terms_of(module, batch, coefficients), module.weights.terms()).backward()
    gradient = module.regressor.head.weight.grad
    assert gradient is not None and gradient.isfinite().all()
    start = 0
    for name, size in module.regressor.layout.sizes.items():
        assert gradient[start : start + size].abs().max() > 0, name
        start += size


def test_terms_wait_for_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, _ = shiny_batch()
    module = make_module(identity_start=2, mouth_start=1)
    seen: list[set[str]] = []
    module.log_terms = lambda stage, terms, loss, size: seen.append(set(terms))  # type: ignore[method-assign]
    for step in range(3):
        monkeypatch.setattr(Specular, "global_step", step)
        module.training_step(batch, step)
    always = {"photometric", "landmark", "regularization", "uniform"}
    assert seen == [always, always | {"mouth"}, always | {"mouth", "identity"}]


def test_a_known_focal_length_is_left_alone() -> None:
    batch, truth = shiny_batch()
    scaled = replace(truth, extra={**truth.extra, "scale": torch.full_like(truth.extra["scale"], 0.1)})
    zoomed, kept = make_module(), make_module(known_focal_length=True)
    for module in (zoomed, kept):
        module.regressor = Told(scaled)  # type: ignore[assignment]
    sizes = [module.draw(module(batch.image), batch).mask.sum() for module in (zoomed, kept)]
    assert sizes[0] > 1.15 * sizes[1]
    assert torch.equal(kept.draw(kept(batch.image), batch).landmarks, batch.landmarks)


def test_eyes_and_priors_count_as_their_weights_say() -> None:
    batch, truth = shiny_batch()
    eyes = make_module(replace(NOTHING, landmark=1.0, eyes=10.0))
    assert eyes.landmark_weights[36:48].tolist() == [10.0] * 12
    assert eyes.landmark_weights.sum() == make_module().landmark_weights.sum() + 12 * 9
    far = replace(truth, translation=truth.translation + torch.tensor([0.0, 0.0, 0.35]))
    only = replace(NOTHING, regularization=1.0, prior_identity=0.0, prior_expression=0.0, prior_albedo=0.0)
    module = make_module(replace(only, prior_distance=2.0))
    expected = 2 * (far.translation[:, 2] / 0.35).square().mean()
    torch.testing.assert_close(terms_of(module, batch, far)["regularization"], expected)
    shut = replace(truth, expression=torch.full_like(truth.expression, 0.5))
    module = make_module(replace(only, prior_outside=3.0))
    assert terms_of(module, batch, shut)["regularization"] == 0
    shut.expression[:, 0], shut.expression[:, 1] = 1.2, -0.1
    assert float(terms_of(module, batch, shut)["regularization"]) == pytest.approx(3 * (0.2**2 + 0.1**2), rel=1e-4)


def test_a_told_truth_scores_full_marks() -> None:
    batch, truth = shiny_batch()
    module = make_module()
    module.regressor = Told(truth)  # type: ignore[assignment]
    logged: dict[str, Tensor] = {}
    module.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[method-assign,assignment]
    module.log_dict = lambda values, **_: logged.update(values)  # type: ignore[method-assign,assignment]
    module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    assert logged["val/specular_correlation"] == pytest.approx(1, abs=1e-4)
    assert logged["val/light_direction_error_deg"] == pytest.approx(0, abs=0.1)
    assert logged["val/lid_correlation"] == pytest.approx(1, abs=1e-4)
    assert logged["val/shape_rmse_mm"] < 1e-3 < logged["val/mean_face_shape_rmse_mm"]
    for name in ("color_error", "inner_mouth_error_mm", "point_to_plane_mm"):
        assert logged[f"val/{name}"] == pytest.approx(0, abs=1e-3), name
    pictures = module.panels(batch)
    assert torch.equal(pictures["specular"], pictures["true specular"])
    assert all(np.isfinite(picture.numpy()).all() for picture in pictures.values())


def test_a_checkpoint_from_before_the_lamps_intensity_is_refused() -> None:
    module = make_module()
    weights = dict(module.state_dict())
    for name in ("weight", "bias"):
        weights[f"regressor.head.{name}"] = weights[f"regressor.head.{name}"][:-1]
    contents: dict = {"state_dict": weights}
    module.on_save_checkpoint(contents)
    with pytest.raises(UserError, match=r"lamp had no intensity .* train it anew"):
        load_weights(module, contents, Path("old.ckpt"))


def test_a_face_model_without_specular_albedo_is_refused() -> None:
    module = Specular(small_face_model(), ResNet(18), SmallEncoder(), SIZE)
    with pytest.raises(UserError, match="no specular albedo"):
        module.training_step(shiny_batch()[0], 0)
