"""Synthetic faces with texture and displacement: exact truth, the cache, and nothing else of a seed changed."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import datamodules.synthetic as synthetic
from datamodules.batch import MultiViewBatch, Truth
from datamodules.synthesis.facial_detail import FacialDetail
from datamodules.synthesis.scenes import SceneSettings
from datamodules.synthetic import DETAIL, DETAIL_SIZE, Split, SyntheticFaces, SyntheticMultiView
from renderers.face_renderer import FaceRenderer, Rendering
from renderers.illumination import irradiance
from renderers.io.errors import UserError
from renderers.uv.chart import UVChart
from renderers.uv.detail import draw_detail
from tests.conf.scenes import small_face_model
from tests.conf.shiny import rebuilt, small_shiny_model

SIZE = 32
BOTH = SceneSettings(views=2, texture_detail=True, displacement=True)
PLAIN = SceneSettings(views=2)


@cache
def draw(settings: SceneSettings = BOTH, seed: int = 0, count: int = 3, split: Split = "train") -> MultiViewBatch:
    return SyntheticFaces(small_face_model(), split, count, SIZE, seed, settings).__getitems__(list(range(count)))


def truth_of(batch: MultiViewBatch) -> Truth:
    assert batch.truth is not None
    return batch.truth


def detail_of(batch: MultiViewBatch) -> tuple[Tensor, Tensor]:
    """The vertices' albedo and the normals."""
    truth = truth_of(batch)
    assert truth.vertex_albedo is not None and truth.normals is not None
    return truth.vertex_albedo, truth.normals


def redrawn(batch: MultiViewBatch) -> Rendering:
    model = small_face_model()
    return FaceRenderer(model, SIZE)(model.layout().split(truth_of(batch).coefficients))


def data(settings: SceneSettings = BOTH) -> SyntheticMultiView:
    return SyntheticMultiView(small_face_model(), SIZE, 3, train_faces=4, val_faces=3, test_faces=2, settings=settings)


def test_only_what_the_skin_shows_changes() -> None:
    for settings in (BOTH, SceneSettings(views=2, texture_detail=True), SceneSettings(views=2, displacement=True)):
        plain, detailed = draw(PLAIN), draw(settings)
        assert torch.equal(truth_of(plain).coefficients, truth_of(detailed).coefficients)
        assert torch.equal(truth_of(plain).depth, truth_of(detailed).depth)
        assert torch.equal(plain.landmarks, detailed.landmarks) and torch.equal(plain.skin, detailed.skin)
        outside = (truth_of(plain).depth == 0).expand_as(plain.image)
        assert torch.equal(plain.image[outside], detailed.image[outside])
        assert (plain.image - detailed.image).abs()[~outside].max() > 0.03
    assert all(getattr(truth_of(draw(PLAIN)), name) is None for name in DETAIL)


def test_neither_detail_changes_the_other() -> None:
    texture, relief = SceneSettings(views=2, texture_detail=True), SceneSettings(views=2, displacement=True)
    both_albedo, both_normals = detail_of(draw())
    assert torch.equal(both_albedo, detail_of(draw(texture))[0])
    torch.testing.assert_close(both_normals, detail_of(draw(relief))[1])


def test_true_albedo_is_the_linear_one_and_the_persons_texture_in_every_view() -> None:
    albedo, _ = detail_of(draw())
    linear = redrawn(draw()).vertex_albedo
    added = albedo - linear
    inside = (albedo > 0) & (albedo < 1)
    person = added.unflatten(0, (3, 2))
    both = inside.unflatten(0, (3, 2)).all(dim=1)
    assert (person[:, 0] - person[:, 1]).abs()[both].max() < 1e-5
    assert added.square().mean().sqrt() > 0.01
    assert (person[0, 0] - person[1, 0]).abs().max() > 0.05
    flat = detail_of(draw(SceneSettings(views=2, displacement=True)))[0]
    torch.testing.assert_close(flat, linear.clamp(0, 1))


def test_true_normals_are_the_charts() -> None:
    """Those of the displacement drawn anew, by the renderer and by sampling the chart's own normal map."""
    model, batch = small_face_model(), draw()
    rendering, maker = redrawn(batch), FacialDetail(model, DETAIL_SIZE)
    expression = model.layout().split(truth_of(batch).coefficients).expression.numpy()
    relief = torch.stack([
        maker.displacement(np.random.default_rng([0, 0, person, 2]), expression[2 * person])
        for person in (0, 0, 1, 1, 2, 2)
    ])  # fmt: skip
    light = model.layout().split(truth_of(batch).coefficients).illumination
    black = torch.zeros(6, 3, DETAIL_SIZE, DETAIL_SIZE)
    _, normals = detail_of(batch)
    torch.testing.assert_close(normals, draw_detail(maker.chart, rendering, light, black, relief).normals)
    mask = rendering.mask.squeeze(1)
    assert torch.equal((normals != 0).any(dim=1), mask)
    torch.testing.assert_close(normals.square().sum(dim=1)[mask], torch.ones(int(mask.sum())))
    chart = UVChart(model, DETAIL_SIZE)
    mapped = chart.sample(chart.normals(rendering, relief), chart.places(rendering))
    cosine = torch.nn.functional.cosine_similarity(mapped, normals, dim=1)[mask]
    assert torch.quantile(cosine, 0.05) > 0.97
    smooth = torch.nn.functional.normalize(rendering.normals, dim=1)
    assert (smooth - normals).abs()[mask[:, None].expand_as(normals)].max() > 0.05


def test_inside_the_face_the_image_is_albedo_times_the_light_on_the_true_normals() -> None:
    model = small_face_model()
    settings = SceneSettings(views=2, displacement=True)
    batch = draw(settings)
    rendering = redrawn(batch)
    light = model.layout().split(truth_of(batch).coefficients).illumination
    _, normals = detail_of(batch)
    shading = irradiance(normals.flatten(2).transpose(1, 2), light).transpose(1, 2).unflatten(2, (SIZE, SIZE))
    inside = rendering.mask.expand_as(batch.image)
    expected = (rendering.albedo.clamp(0, 1) * shading).clamp(0, 1)
    torch.testing.assert_close(batch.image[inside], expected[inside])


def test_an_item_depends_on_seed_split_and_index_alone() -> None:
    alone = SyntheticFaces(small_face_model(), "train", 50, SIZE, 0, BOTH)[2]
    torch.testing.assert_close(alone.image, draw().image[4:])
    for found, other in zip(detail_of(alone), detail_of(draw()), strict=True):
        torch.testing.assert_close(found, other[4:], atol=1e-4, rtol=0)
    added = [detail_of(b)[0] - redrawn(b).vertex_albedo for b in (draw(), draw(seed=1), draw(split="val"))]
    assert (added[0] - added[1]).abs().mean() > 0.005 and (added[0] - added[2]).abs().mean() > 0.005


def test_the_cache_keeps_the_truth_that_is_evaluated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path))
    monkeypatch.setattr(synthetic, "CHUNK", 2)  # the last chunk is not full
    module = data()
    module.prepare_data()
    batch = next(iter(module.val_dataloader()))
    albedo, normals = detail_of(batch)
    true_albedo, true_normals = detail_of(draw(split="val"))
    torch.testing.assert_close(albedo, true_albedo, atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(normals, true_normals, atol=1e-4, rtol=0)
    assert torch.equal((normals != 0).any(dim=1), truth_of(batch).depth.squeeze(1) > 0)
    torch.testing.assert_close(batch.image, draw(split="val").image, atol=0.5 / 255 + 1e-6, rtol=0)
    files = {path.name: np.load(path, mmap_mode="r").dtype for path in module.folder("val").iterdir()}
    assert files["vertex_albedo.npy"] == np.uint8 and files["normals.npy"] == np.int16
    training = next(iter(module.train_dataloader()))
    assert all(getattr(truth_of(training), name) is None for name in DETAIL)
    assert {path.stem for path in module.folder("train").iterdir()} == {path[:-4] for path in files} - set(DETAIL)


def test_folders_of_faces_without_detail_keep_their_names() -> None:
    """By the names as they have always been made, for dull and for shiny faces."""
    settings = {"views": 2, "max_yaw": 80.0, "view_gap": (10.0, 40.0), "light_strength": 0.35, "light_change": 0.0}
    settings = {**settings, "light_turns": True}
    assert PLAIN.key() == settings
    assert SceneSettings(views=2, specular=True).key() == {**settings, "specular": True}
    fingerprint = small_face_model().fingerprint()
    key = {"version": 1, "face_model": fingerprint, "size": SIZE, "count": 4, "seed": 0, "settings": settings}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    assert data(PLAIN).folder("train").name == f"train-{digest}"


def test_detail_has_folders_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    texture, relief = SceneSettings(views=2, texture_detail=True), SceneSettings(views=2, displacement=True)
    names = {data(settings).folder("val").name for settings in (PLAIN, texture, relief, BOTH)}
    assert len(names) == 4
    uv = small_face_model().uv.numpy() * 0.9
    other = SyntheticMultiView(rebuilt(small_face_model(), uv=uv), SIZE, 3, val_faces=3, settings=BOTH)
    assert other.face_model.fingerprint() == small_face_model().fingerprint()
    assert other.folder("val").name not in names
    monkeypatch.setattr("datamodules.synthesis.facial_detail.DETAIL_VERSION", 99)
    assert data(BOTH).folder("val").name not in names and data(PLAIN).folder("val").name in names


def test_highlights_and_detail_together_are_refused() -> None:
    for settings in (
        SceneSettings(specular=True, texture_detail=True),
        SceneSettings(specular=True, displacement=True),
    ):
        with pytest.raises(UserError, match=r"settings\.specular: .* texture_detail or displacement; leave one"):
            SyntheticMultiView(small_shiny_model(), settings=settings)
