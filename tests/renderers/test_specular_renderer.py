"""Diffuse and specular pictures of one rasterization, against FaceRenderer and against each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from renderers import face_renderer
from renderers.camera import default_intrinsics
from renderers.coefficients import Coefficients
from renderers.errors import UserError
from renderers.face_renderer import FaceRenderer
from renderers.illumination import irradiance
from renderers.morphable_model.model import MorphableModel
from renderers.reflectance import decode_light
from renderers.specular_renderer import SPECULAR_COEFFICIENTS, SpecularRenderer
from tests.conf.scenes import small_face_model
from tests.conf.shiny import rebuilt, small_shiny_model

SIZE = 48


def drawn(model: MorphableModel, images: int = 2, noise: float = 0.2, **extra: float) -> Coefficients:
    """Random faces; `extra` replaces those of its coefficients."""
    layout = model.layout(SPECULAR_COEFFICIENTS)
    vector = noise * torch.randn(images, layout.length, generator=torch.Generator().manual_seed(0))
    coefficients = layout.split(vector)
    for name, value in {"scale": 0.0, **extra}.items():
        coefficients.extra[name].fill_(value)
    return coefficients


def colors(model: MorphableModel, mean: np.ndarray, specular: np.ndarray, linear: bool = False) -> MorphableModel:
    """The face model with these mean colours, both (V, 3), for everybody."""
    zeros = np.zeros((model.vertex_count, 3, model.albedo_size))
    means = {"mean_albedo": mean, "mean_specular": specular}
    return rebuilt(model, **means, albedo_basis=zeros, specular_basis=zeros, linear_albedo=linear)


def test_a_face_that_reflects_nothing_is_what_the_plain_renderer_draws() -> None:
    model = small_face_model()
    mean = model.mean_albedo.numpy()
    model = colors(model, mean, np.zeros_like(mean))
    coefficients = drawn(model)
    shiny, plain = SpecularRenderer(model, SIZE)(coefficients), FaceRenderer(model, SIZE)(coefficients)
    assert plain.mask.float().mean() > 0.1
    for name in ("image", "depth", "normals", "albedo", "landmarks", "vertices", "vertex_colors", "mask"):
        assert torch.equal(getattr(shiny, name), getattr(plain, name)), name
    assert torch.equal(shiny.diffuse, plain.image)
    assert not shiny.specular.any()


def test_the_image_is_the_sum_of_its_parts() -> None:
    model = small_shiny_model()
    coefficients = drawn(model)
    shiny, plain = SpecularRenderer(model, SIZE)(coefficients), FaceRenderer(model, SIZE)(coefficients)
    torch.testing.assert_close(shiny.image, shiny.diffuse + shiny.specular)
    assert torch.equal(shiny.diffuse, plain.image)
    assert torch.equal(shiny.vertex_colors, shiny.diffuse_colors + shiny.specular_colors)
    assert (shiny.specular >= 0).all() and shiny.specular.amax() > 0.1
    assert not shiny.specular[~shiny.mask.expand_as(shiny.specular)].any()
    torch.testing.assert_close(
        shiny.diffuse_colors, model.albedo(coefficients.albedo) * irradiance(
            shiny.vertex_normals, coefficients.illumination
        )
    )  # fmt: skip


def test_everything_comes_from_one_rasterization(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = face_renderer.rasterize

    def counted(*arguments: object) -> object:
        calls.append(arguments)
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(face_renderer, "rasterize", counted)
    coefficients = drawn(small_shiny_model())
    rendering = SpecularRenderer(small_shiny_model(), SIZE)(coefficients)
    other = rendering.relit(coefficients.illumination, torch.tensor([[5.0, 5, 5]] * 2))
    pictures = [rendering.image, rendering.diffuse, rendering.specular, other.diffuse, other.specular, other.image]
    assert len(calls) == 1
    assert all(picture.shape == (2, 3, SIZE, SIZE) for picture in pictures)
    assert rendering.specular is pictures[2]  # kept


def test_relighting_is_rendering_under_that_light() -> None:
    renderer = SpecularRenderer(small_shiny_model(), SIZE)
    first = drawn(small_shiny_model())
    raw, illumination = torch.tensor([[0.4, -0.3, 0.1]] * 2), first.illumination.flip(0)
    second = replace(first, illumination=illumination, extra={**first.extra, "light_position": raw})
    expected, relit = renderer(second), renderer(first).relit(illumination, decode_light(raw))
    for name in ("diffuse", "specular", "image", "light_position", "shininess", "vertex_specular_albedo"):
        torch.testing.assert_close(getattr(relit, name), getattr(expected, name))
    assert not torch.allclose(relit.specular, renderer(first).specular, atol=1e-2)


def test_scale_multiplies_the_focal_length() -> None:
    model = small_shiny_model()
    renderer = SpecularRenderer(model, SIZE)
    zoomed, plain = renderer(drawn(model, scale=0.25)), renderer(drawn(model))
    centre = SIZE / 2
    torch.testing.assert_close(zoomed.landmarks - centre, float(np.exp(0.25)) * (plain.landmarks - centre))
    intrinsics = default_intrinsics(SIZE).repeat(2, 1, 1)
    before = intrinsics.clone()
    torch.testing.assert_close(renderer(drawn(model, scale=0.25), intrinsics).landmarks, zoomed.landmarks)
    assert torch.equal(intrinsics, before)
    assert torch.equal(renderer.intrinsics, before[0])


def test_the_specular_picture_moves_everything_that_it_depends_on() -> None:
    model = small_shiny_model()
    layout = model.layout(SPECULAR_COEFFICIENTS)
    vector = layout.join(drawn(model, scale=0.1)).requires_grad_()
    SpecularRenderer(model, SIZE)(layout.split(vector)).specular.square().mean().backward()
    assert vector.grad is not None and vector.grad.isfinite().all()
    gradients = layout.split(vector.grad).named()
    moved = {name for name, gradient in gradients.items() if gradient.any()}
    assert moved == set(layout.sizes) - {"illumination"}


def test_gamma_is_applied_once() -> None:
    """A model of linear colours draws what the model of the same colours encoded for display draws."""
    generator = np.random.default_rng(0)
    mean, specular = generator.uniform(0.1, 0.9, size=(2, small_face_model().vertex_count, 3))
    display = colors(small_face_model(), mean, specular)
    linear = colors(small_face_model(), mean**2.2, specular**2.2, linear=True)
    coefficients = drawn(display)
    expected, encoded = SpecularRenderer(display, SIZE)(coefficients), SpecularRenderer(linear, SIZE)(coefficients)
    for name in ("vertex_albedo", "vertex_specular_albedo", "diffuse", "specular", "image"):
        torch.testing.assert_close(getattr(encoded, name), getattr(expected, name), atol=1e-5, rtol=1e-4)


def test_a_model_without_specular_albedo_is_refused() -> None:
    model = small_face_model()
    with pytest.raises(UserError, match="bfm2009 has no specular albedo"):
        SpecularRenderer(model, SIZE)(drawn(model))
