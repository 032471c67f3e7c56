"""Diffuse and specular pictures of one rasterization, against FaceRenderer and against each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from renderers import face_renderer
from renderers.camera import default_intrinsics
from renderers.coefficients import Coefficients
from renderers.color import decode, encode
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import FaceRenderer
from renderers.illumination import irradiance
from renderers.io.errors import UserError
from renderers.reflectance import blinn_phong, decode_light
from renderers.specular_renderer import SPECULAR_COEFFICIENTS, Lamp, SpecularRenderer, lit
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


def test_a_face_that_reflects_nothing_has_the_plain_renderers_surface_under_linear_light() -> None:
    model = small_face_model()
    mean = model.mean_albedo.numpy()
    model = colors(model, mean, np.zeros_like(mean))
    coefficients = drawn(model)
    shiny, plain = SpecularRenderer(model, SIZE)(coefficients), FaceRenderer(model, SIZE)(coefficients)
    assert plain.mask.float().mean() > 0.1
    for name in ("depth", "normals", "albedo", "landmarks", "vertices", "mask"):
        assert torch.equal(getattr(shiny, name), getattr(plain, name)), name
    light = irradiance(plain.vertex_normals, coefficients.illumination)
    expected = (model.mean_albedo**2.2 * light.clamp_min(0)) ** (1 / 2.2)
    bright = expected > 0.1
    torch.testing.assert_close(shiny.vertex_colors[bright], expected[bright])
    torch.testing.assert_close(shiny.diffuse, shiny.image)
    assert not shiny.specular.any()


@pytest.mark.parametrize("linear", [False, True])
def test_a_full_highlight_adds_what_equation_2_says(linear: bool) -> None:
    """At t_d .33, t_s .04, shade .8 and a full highlight: (.264 + .04)^(1 / 2.2) - .264^(1 / 2.2) = .036, not .232."""
    albedo, shine = torch.tensor([0.33, 0.04]) ** (1.0 if linear else 1 / 2.2)
    everywhere = np.ones((small_face_model().vertex_count, 3))
    model = colors(small_face_model(), float(albedo) * everywhere, float(shine) * everywhere, linear)
    renderer = SpecularRenderer(model, SIZE)
    rendering = renderer(drawn(model, images=1))
    # A vertex whose normal points at the eye, and a lamp at the eye: the half vector is the normal.
    eye = torch.tensor([[[0.0, 0.0, 10.0]]])
    facing = torch.nn.functional.cosine_similarity(eye - rendering.vertices, rendering.vertex_normals, dim=-1)
    vertex = int(facing.argmax())
    rendering.vertex_normals[:, vertex] = torch.nn.functional.normalize(eye - rendering.vertices, dim=-1)[:, vertex]
    even = torch.zeros(1, 3, 9)
    even[..., 0] = 0.8 / 0.8862269 - 0.8  # irradiance .8 from everywhere
    lamp = Lamp(eye[:, 0], torch.full((1, 1), 20.0), torch.ones(1, 1))
    shiny = lit(rendering, model.specular(torch.zeros(1, model.albedo_size)), even.flatten(1), lamp)
    added = (shiny.vertex_colors - shiny.diffuse_colors)[0, vertex]
    assert added.tolist() == pytest.approx([(0.264 + 0.04) ** (1 / 2.2) - 0.264 ** (1 / 2.2)] * 3, abs=1e-4)
    assert added.tolist() == pytest.approx([0.0362] * 3, abs=5e-4)


def test_light_adds_up_and_is_encoded_once() -> None:
    model = small_shiny_model()
    coefficients = drawn(model)
    shiny = SpecularRenderer(model, SIZE)(coefficients)
    diffuse = decode(model.albedo(coefficients.albedo)) * irradiance(shiny.vertex_normals, coefficients.illumination)
    torch.testing.assert_close(shiny.diffuse_light, diffuse)
    specular = blinn_phong(
        decode(model.get_buffer("mean_specular") + torch.einsum(
            "bk,kv->bv", coefficients.albedo, model.get_buffer("flat_specular_basis")
        ).unflatten(1, (-1, 3))), shiny.vertices, shiny.vertex_normals, shiny.lamp.position, shiny.lamp.shininess
    )  # fmt: skip
    torch.testing.assert_close(shiny.specular_light, shiny.lamp.intensity[..., None] * specular)
    torch.testing.assert_close(decode(shiny.vertex_colors), diffuse + shiny.specular_light)
    torch.testing.assert_close(shiny.image, shiny.draw(encode(diffuse + shiny.specular_light)))
    assert (shiny.specular >= 0).all() and shiny.specular.amax() > 0.1
    assert not shiny.specular[~shiny.mask.expand_as(shiny.specular)].any()


def test_everything_comes_from_one_rasterization(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = face_renderer.rasterize

    def counted(*arguments: object) -> object:
        calls.append(arguments)
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(face_renderer, "rasterize", counted)
    coefficients = drawn(small_shiny_model())
    rendering = SpecularRenderer(small_shiny_model(), SIZE)(coefficients)
    lamp = replace(rendering.lamp, position=torch.tensor([[5.0, 5, 5]] * 2))
    other = lit(rendering, rendering.vertex_specular_albedo, coefficients.illumination, lamp)
    pictures = [rendering.image, rendering.diffuse, rendering.specular, other.diffuse, other.specular, other.image]
    assert len(calls) == 1
    assert all(picture.shape == (2, 3, SIZE, SIZE) for picture in pictures)
    assert rendering.specular is pictures[2]  # kept


def test_relighting_is_rendering_under_that_light() -> None:
    renderer = SpecularRenderer(small_shiny_model(), SIZE)
    first = drawn(small_shiny_model())
    raw, illumination = torch.tensor([[0.4, -0.3, 0.1]] * 2), first.illumination.flip(0)
    second = replace(first, illumination=illumination, extra={**first.extra, "light_position": raw})
    expected, before = renderer(second), renderer(first)
    lamp = replace(before.lamp, position=decode_light(raw))
    relit = lit(before, before.vertex_specular_albedo, illumination, lamp)
    for name in ("diffuse", "specular", "image", "vertex_specular_albedo"):
        torch.testing.assert_close(getattr(relit, name), getattr(expected, name))
    assert not torch.allclose(relit.specular, before.specular, atol=1e-2)


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


def test_no_light_at_all_is_black_and_has_a_gradient_back() -> None:
    model = small_shiny_model()
    layout = model.layout(SPECULAR_COEFFICIENTS)
    coefficients = drawn(model)
    coefficients.illumination.zero_()[:, ::9] = -2.0  # darker than black
    vector = layout.join(coefficients).requires_grad_()
    rendering = SpecularRenderer(model, SIZE)(layout.split(vector))
    assert rendering.diffuse.max() <= 0 and rendering.diffuse.min() > -1
    rendering.diffuse.sum().backward()
    assert vector.grad is not None and vector.grad.isfinite().all()
    light = layout.split(vector.grad).illumination
    assert (light[:, ::9] > 0).all()


def test_a_model_of_linear_colors_draws_what_the_model_of_the_same_display_values_draws() -> None:
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
