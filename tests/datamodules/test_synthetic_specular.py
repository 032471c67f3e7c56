"""Synthetic faces with highlights: what their truth says, that it survives the cache, and that nothing else changes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import datamodules.synthetic as synthetic
from datamodules.batch import MultiViewBatch, Truth
from datamodules.synthesis.scenes import EXPOSURE, SceneSettings, sample_scene
from datamodules.synthetic import SyntheticFaces, SyntheticMultiView
from losses.metrics import masked_correlation
from renderers.color import decode, encode
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import FaceRenderer
from renderers.illumination import irradiance, sphere_points
from renderers.io.errors import UserError
from renderers.reflectance import blinn_phong
from tests.conf.scenes import small_face_model
from tests.conf.shiny import rebuilt, small_shiny_model

SIZE = 32
NAMES = ("light_position", "shininess", "intensity", "diffuse", "specular")
SHINY = SceneSettings(views=2, specular=True)


def draw(settings: SceneSettings = SHINY, seed: int = 0, count: int = 3) -> MultiViewBatch:
    faces = SyntheticFaces(small_shiny_model(), "train", count, SIZE, seed, settings)
    return faces.__getitems__(list(range(count)))


def data(model: MorphableModel, settings: SceneSettings = SHINY) -> SyntheticMultiView:
    return SyntheticMultiView(model, SIZE, 3, train_faces=4, val_faces=2, test_faces=2, settings=settings)


def truth_of(batch: MultiViewBatch) -> Truth:
    assert batch.truth is not None
    return batch.truth


def test_inside_the_face_the_image_is_the_clamped_sum_of_light() -> None:
    batch = draw()
    truth = truth_of(batch)
    assert truth.diffuse is not None and truth.specular is not None
    inside = (truth.depth > 0).expand_as(batch.image)
    # Each was drawn from encoded corners, between which the sum is only nearly what the encoded sum is.
    lit = (truth.diffuse.double() ** 2.2 + truth.specular.double() ** 2.2) ** (1 / 2.2)
    error = (batch.image - lit.clamp(0, 1)).abs()[inside & (lit > 0.1) & (truth.diffuse < 1)]
    assert error.max() < 0.1 and error.mean() < 0.003
    for picture in (truth.diffuse, truth.specular):
        assert picture.min() >= 0 and picture.max() <= 1
        assert picture[inside].max() > 0.1 and not picture[~inside].any()
    assert batch.image[~inside].max() > 0.3


def test_highlights_are_those_of_the_light_and_shininess_told() -> None:
    model, truth = small_shiny_model(), truth_of(draw())
    assert truth.light_position is not None and truth.shininess is not None and truth.intensity is not None
    coefficients = model.layout().split(truth.coefficients)
    rendering = FaceRenderer(model, SIZE)(coefficients)
    shine = blinn_phong(
        model.specular(coefficients.albedo), rendering.vertices, rendering.vertex_normals,
        truth.light_position, truth.shininess,
    )  # fmt: skip
    assert truth.specular is not None
    shown = encode(truth.intensity[..., None] * shine)
    torch.testing.assert_close(rendering.draw(shown).clamp(0, 1), truth.specular)


def test_the_same_people_with_and_without_highlights() -> None:
    shiny, dull = draw(), draw(SceneSettings(views=2))
    layout = small_shiny_model().layout()
    told, told_dull = (layout.split(truth_of(batch).coefficients).named() for batch in (shiny, dull))
    assert {name for name in told if not torch.equal(told[name], told_dull[name])} == {"illumination"}
    assert torch.equal(shiny.landmarks, dull.landmarks)
    # Their light is dimmed, and linear: albedo * (EXPOSURE * light) ** (1 / 2.2) where it was albedo * light.
    albedo = FaceRenderer(small_shiny_model(), SIZE)(layout.split(truth_of(dull).coefficients)).albedo
    inside = (albedo > 0.2) & (dull.image > 0.1) & (dull.image < 1)
    assert inside.float().mean() > 0.1
    light = dull.image[inside] / albedo[inside]
    diffuse = truth_of(shiny).diffuse
    assert diffuse is not None
    expected = (albedo[inside] * (EXPOSURE * light) ** (1 / 2.2)).clamp(0, 1)
    assert (diffuse[inside] - expected).abs().mean() < 0.01
    assert torch.equal(shiny.skin, dull.skin)
    assert all(getattr(truth_of(dull), name) is None for name in NAMES)


def test_where_lamps_stand_and_how_faces_shine() -> None:
    model = small_shiny_model()
    still = replace(SHINY, light_turns=False, light_change=0.3)  # in the camera's frame
    scenes = [sample_scene(model, still, np.random.default_rng([0, index])) for index in range(400)]
    lamps = np.stack([scene["light_position"] for scene in scenes])
    distance = np.linalg.norm(lamps, axis=-1)
    angle = np.rad2deg(np.arccos(lamps[..., 2] / distance))
    assert 6 <= distance.min() < 6.5 and 18 < distance.max() <= 20.001
    assert angle.max() <= 60.001 and (angle > 45).mean() > 0.15 and (angle < 25).mean() > 0.1
    assert 0.6 < (lamps[..., 1] > 0).mean() < 0.9
    assert abs((lamps[..., 0] > 0).mean() - 0.5) < 0.08
    shininess = np.stack([scene["shininess"] for scene in scenes])
    assert 6 <= shininess.min() < 6.5 and 30 < shininess.max() <= 32.001
    assert abs((shininess < np.sqrt(6 * 32)).mean() - 0.5) < 0.08
    assert (shininess[:, 0] == shininess[:, 1]).all()  # the skin's, in every view
    intensity = np.stack([scene["intensity"] for scene in scenes])
    assert 1 <= intensity.min() < 1.05 and 3.8 < intensity.max() <= 4.001
    assert abs((intensity < 2).mean() - 0.5) < 0.08
    # The light stays about where it is from view to view, as its diffuse part does.
    assert np.corrcoef(lamps[:, 0, 0], lamps[:, 1, 0])[0, 1] > 0.7
    assert (lamps[:, 0] != lamps[:, 1]).any()


@pytest.mark.parametrize("turns", [False, True])
def test_lamps_stand_about_where_the_diffuse_light_comes_from(turns: bool) -> None:
    """The dominant direction by brute force: the light that arrives from all around, as vectors, added up."""
    model, around = small_shiny_model(), sphere_points(500)
    settings = replace(SHINY, light_turns=turns)
    angles = []
    for index in range(200):
        scene = sample_scene(model, settings, np.random.default_rng([0, index]))
        light = irradiance(around.float().expand(2, -1, -1), torch.as_tensor(scene["illumination"])).mean(dim=-1)
        ahead = (light.double() @ around).numpy()
        lamp = scene["light_position"]
        cosine = (ahead * lamp).sum(axis=1) / np.linalg.norm(ahead, axis=1) / np.linalg.norm(lamp, axis=1)
        angles.append(np.rad2deg(np.arccos(cosine)))
    assert 4 < np.median(angles) < 14
    assert np.quantile(angles, 0.9) < 30  # where the light is nearly even, its direction is chance's


def test_ggx_draws_the_same_people_under_the_same_lamps() -> None:
    phong, ggx = draw(), draw(replace(SHINY, ggx=True))
    for name in (*NAMES, "coefficients"):
        same = torch.equal(getattr(truth_of(phong), name), getattr(truth_of(ggx), name))
        assert same == (name != "specular"), name
    shown = [truth_of(batch).specular for batch in (phong, ggx)]
    assert shown[0] is not None and shown[1] is not None
    inside = truth_of(phong).depth > 0
    alike = masked_correlation(decode(shown[0]), decode(shown[1]), inside)
    assert (alike > 0.6).all() and (alike < 0.999).all()
    assert data(small_shiny_model(), replace(SHINY, ggx=True)).folder("val") != data(small_shiny_model()).folder("val")


def test_an_item_depends_on_the_seed_alone() -> None:
    first, again, other = draw(), draw(count=3), draw(seed=1)
    for name in NAMES:
        assert torch.equal(getattr(truth_of(first), name), getattr(truth_of(again), name))
        assert not torch.equal(getattr(truth_of(first), name), getattr(truth_of(other), name))


def test_the_cache_keeps_highlights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path))
    monkeypatch.setattr(synthetic, "CHUNK", 3)  # the last chunk is not full
    module = data(small_shiny_model())
    module.prepare_data()
    batch = module.train_dataloader().dataset.__getitems__([0, 1, 2])  # type: ignore[attr-defined]
    stored, drawn = truth_of(batch), truth_of(draw())
    for name in NAMES:
        atol = 0.5 / 255 + 1e-6 if name in ("diffuse", "specular") else 0
        torch.testing.assert_close(getattr(stored, name), getattr(drawn, name), atol=atol, rtol=0)
    assert stored.diffuse is not None and stored.specular is not None
    inside = (stored.depth > 0).expand_as(batch.image)
    lit = encode(decode(stored.diffuse) + decode(stored.specular)).clamp(0, 1)
    assert (batch.image - lit).abs()[inside & (stored.diffuse < 1)].mean() < 1 / 255
    files = {path.name: np.load(path, mmap_mode="r").dtype for path in module.folder("train").iterdir()}
    assert len(files) == 10
    assert files["diffuse.npy"] == files["specular.npy"] == np.uint8


def test_faces_without_highlights_keep_their_folder() -> None:
    """By its name as it has always been made: the settings of that time, and no later one."""
    model = small_face_model()
    settings = {"views": 3, "max_yaw": 80.0, "view_gap": (10.0, 40.0), "light_strength": 0.35, "light_change": 0.0}
    settings = {**settings, "light_turns": True}
    key = {
        "version": 1, "face_model": model.fingerprint(), "size": SIZE, "count": 4, "seed": 0, "settings": settings,
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    assert data(model, SceneSettings()).folder("train").name == f"train-{digest}"


def test_highlights_have_folders_of_their_own() -> None:
    model = small_shiny_model()
    basis = np.zeros((model.vertex_count, 3, model.albedo_size))
    others = [
        rebuilt(model, mean_specular=np.full((model.vertex_count, 3), value), specular_basis=basis)
        for value in (0.1, 0.2)
    ]
    # The fingerprint is of what is no highlight.
    assert {other.fingerprint() for other in others} == {model.fingerprint()}
    modules = [data(model), *map(data, others), data(model, SceneSettings(views=2))]
    assert len({module.folder("train") for module in modules}) == 4


def test_a_face_model_that_cannot_shine_is_refused() -> None:
    with pytest.raises(UserError, match=r"settings.specular: face model bfm2009 has no specular albedo"):
        data(small_face_model())
    assert data(small_face_model(), SceneSettings()).settings.specular is False
    with pytest.raises(UserError, match=r"settings.ggx: .* set settings.specular"):
        data(small_face_model(), SceneSettings(ggx=True))
