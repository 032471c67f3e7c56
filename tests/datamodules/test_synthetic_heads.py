"""Whole heads: exact truth by brute force, one stream for each thing that is drawn, the cache."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from datamodules.batch import MultiViewBatch, Truth
from datamodules.head_cache import DEPTH_UNIT, CachedHeads
from datamodules.synthesis.head_scene import Composed, visible
from datamodules.synthesis.parsing import FACE_MODEL, LABEL
from datamodules.synthesis.people import DARKEST, LIGHTEST, HeadSettings, lightness, sample_skin, tone_coefficients
from datamodules.synthesis.scenes import SceneSettings
from datamodules.synthesis.shading import Scene
from datamodules.synthetic import SyntheticMultiView
from datamodules.synthetic_heads import SyntheticHeads
from renderers.camera import euler_to_rotation, project, relative_pose, transform
from renderers.face_models.default.albedo import skin_colors
from renderers.face_models.default.model import load_default
from renderers.face_models.linear import LinearModel
from renderers.face_renderer import FaceRenderer
from renderers.illumination import turned_light
from renderers.io.errors import UserError
from tests.conf.scenes import small_face_model

SIZE = 32
FEWER = HeadSettings(distance=(8.0, 12.0))


@cache
def model() -> LinearModel:
    return load_default()


@cache
def heads(views: int = 3, settings: HeadSettings = FEWER, size: int = SIZE) -> SyntheticHeads:
    return SyntheticHeads(model(), "train", 100, size, 0, SceneSettings(views=views, heads=settings))


@cache
def drawn() -> MultiViewBatch:
    return heads().__getitems__([0, 3])


def truth_of(batch: MultiViewBatch) -> Truth:
    assert batch.truth is not None
    return batch.truth


def test_an_item_depends_on_seed_split_and_index_alone() -> None:
    alone = heads()[3]
    assert torch.equal(alone.image, drawn().image[3:])
    assert torch.equal(truth_of(alone).coefficients, truth_of(drawn()).coefficients[3:])
    other = SyntheticHeads(model(), "val", 100, SIZE, 0, heads().settings)[3]
    assert (truth_of(other).coefficients[:, 0] != truth_of(alone).coefficients[:, 0]).all()


def test_landmarks_depth_and_intrinsics_are_those_of_the_face_model() -> None:
    batch, truth = drawn(), truth_of(drawn())
    coefficients = model().layout().split(truth.coefficients)
    posed = transform(
        model().shape(coefficients.identity, coefficients.expression),
        euler_to_rotation(coefficients.angles),
        coefficients.translation,
    )
    expected = project(posed, batch.intrinsics)[:, model().landmark_indices, :2]
    torch.testing.assert_close(batch.landmarks, expected, atol=2e-3, rtol=0)
    rendering = FaceRenderer(model(), SIZE)(coefficients, batch.intrinsics)
    seen = truth.depth > 0
    assert 0.05 < seen.float().mean() < 0.8
    # The whole head lacks the wall behind the lips; apart from that the face alone is never farther than what is seen.
    assert (seen <= rendering.mask).float().mean() > 0.999
    torch.testing.assert_close(truth.depth[seen], rendering.depth[seen], atol=2e-3, rtol=0)
    assert ((batch.skin > 0) <= seen).all() and (batch.skin > 0).sum() > 0.7 * seen.sum()


def test_views_of_a_person_obey_the_epipolar_constraint() -> None:
    batch = drawn()
    coefficients = model().layout().split(truth_of(batch).coefficients)
    rotation = euler_to_rotation(coefficients.angles)
    rays = torch.cat([batch.landmarks, torch.ones(6, 68, 1)], dim=-1) @ batch.intrinsics.inverse().transpose(1, 2)
    for target, source in ((1, 0), (1, 2), (4, 3)):
        turn, shift = relative_pose(
            rotation[target], coefficients.translation[target], rotation[source], coefficients.translation[source]
        )
        moved = rays[target] @ turn.T
        residual = (torch.linalg.cross(shift.expand_as(moved), moved) * rays[source]).sum(dim=1)
        assert residual.abs().max() < 1e-4 * shift.norm()


def first_met(scene: Scene, x: float, y: float) -> tuple[int, float]:
    """The triangle that the ray through a point of the first picture meets first, -1 for none, and how far away."""
    points = scene.points[0].double().numpy()
    a, b, c = (points[scene.faces[:, k].numpy()] for k in range(3))
    wa = (b[:, 0] - x) * (c[:, 1] - y) - (b[:, 1] - y) * (c[:, 0] - x)
    wb = (c[:, 0] - x) * (a[:, 1] - y) - (c[:, 1] - y) * (a[:, 0] - x)
    wc = (a[:, 0] - x) * (b[:, 1] - y) - (a[:, 1] - y) * (b[:, 0] - x)
    total = wa + wb + wc
    inside = ((wa >= 0) & (wb >= 0) & (wc >= 0)) | ((wa <= 0) & (wb <= 0) & (wc <= 0))
    inside &= np.abs(total) > 1e-3
    with np.errstate(all="ignore"):
        depth = np.where(inside, total / (wa / a[:, 2] + wb / b[:, 2] + wc / c[:, 2]), np.inf)
    return (int(depth.argmin()), float(depth.min())) if inside.any() else (-1, np.inf)


def test_the_parsing_map_says_what_a_ray_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    import datamodules.synthetic_heads as module

    kept: list[Composed] = []
    compose = module.compose
    monkeypatch.setattr(module, "compose", lambda *given: kept.append(compose(*given)) or kept[-1])  # type: ignore[func-returns-value]
    settings = HeadSettings(things=0.0, distance=(8.0, 12.0))
    truth = truth_of(heads(1, settings)[7])
    assert truth.parsing is not None
    generator = np.random.default_rng(0)
    for row, column in generator.integers(0, SIZE, (30, 2)):
        met, _ = first_met(kept[0].scene, column + 0.5, row + 0.5)
        label = 0 if met < 0 else int(kept[0].labels[met]) % FACE_MODEL
        assert int(truth.parsing[0, 0, row, column]) == label
    found = set(truth.parsing.unique().tolist())
    assert {LABEL[name] for name in ("skin", "nose", "neck", "cloth")} <= found


def test_landmarks_are_visible_where_rays_reach_them() -> None:
    """A ball in front of a wall, and points of both."""
    ball = trimesh.creation.icosphere(3, 1.0)
    wall = trimesh.creation.box((8, 8, 0.5)).subdivide_to_size(0.7).apply_translation([0, 0, -2.5])
    mesh = trimesh.util.concatenate([ball, wall])
    vertices, faces = torch.tensor(mesh.vertices).float(), torch.tensor(np.asarray(mesh.faces)).long()
    points = project(vertices[None], torch.tensor([[[120.0, 0, 32], [0, 120, 32], [0, 0, 1]]]))
    scene = Scene(vertices[None], points, vertices[None], vertices, vertices, faces, faces, vertices, vertices)
    chosen = torch.arange(0, len(vertices), 7)
    found = visible(scene.at_samples(), chosen, faces, scene.seen(64))[0]
    place = points[0, chosen].double().numpy()
    # How far before the point the ray through it meets something; a ray along an edge may miss both its triangles.
    before = np.array([z - first_met(scene, x + 1e-4, y + 1e-4)[1] for x, y, z in place])
    inside = (np.abs(place[:, :2] - 32) < 31.9).all(axis=1)
    # What the silhouette cuts through a sample may fall to either side.
    rim = np.abs(np.hypot(*(place[:, :2] - 32).T) - 12.06) < 0.8
    # A vertex of the ball's edge may be hidden by its neighbours' triangles in its sample: one in a hundred.
    assert (found.numpy() == (before < 0.02))[inside & ~rim].mean() > 0.98
    assert not found.numpy()[~inside].any() and 0.2 < found.float().mean() < 0.9


def test_each_setting_takes_its_ingredient_away() -> None:
    def labels(settings: HeadSettings) -> set[int]:
        parsing = truth_of(heads(1, settings).__getitems__(list(range(6)))).parsing
        assert parsing is not None
        return set(parsing.unique().tolist())

    bare = HeadSettings(hair=False, things=0.0, environments=False, backgrounds=False)
    assert LABEL["hair"] in labels(HeadSettings(things=0.0)) and LABEL["hair"] not in labels(bare)
    worn = {LABEL["glasses"], LABEL["other"]}
    assert worn & labels(HeadSettings(things=4.0)) and not worn & labels(bare)
    picture = heads(1, bare)[0]
    corner = picture.image[0][:, truth_of(picture).parsing[0, 0] == 0]  # type: ignore[index]
    # Where a head begins within a pixel the two mix.
    torch.testing.assert_close(corner.median(), torch.tensor(0.2 ** (1 / 2.2)), atol=1e-4, rtol=0)
    assert (corner - corner.median()).abs().lt(1e-4).float().mean() > 0.8


def test_tones_of_skin_are_drawn_alike_and_held_by_the_albedo() -> None:
    generator = np.random.default_rng(0)
    drawn_skins = [sample_skin(generator) for _ in range(2000)]
    shade = lightness(np.stack([color for color, _ in drawn_skins]))
    assert shade.min() > DARKEST - 8 and shade.max() < LIGHTEST + 8
    # Five of the scale's ten tones are darker than L* 60, which lies here: half of all people are.
    middle = DARKEST + (LIGHTEST - DARKEST) * (60 - 14.6) / (94.2 - 14.6)
    assert abs((shade < middle).mean() - 0.5) < 0.04
    mean, directions = skin_colors()
    color, dark = drawn_skins[0]
    np.testing.assert_allclose(mean + tone_coefficients(color) @ directions, color, atol=1e-9)
    assert 0 <= dark <= 1


def data(**changes: int) -> SyntheticMultiView:
    counts = {"train_faces": 3, "val_faces": 2, "test_faces": 1} | changes
    return SyntheticMultiView(model(), SIZE, 2, **counts, settings=SceneSettings(views=2, heads=FEWER))


def test_the_cache_gives_back_what_was_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path))
    batch = next(iter(data().val_dataloader()))
    fresh = SyntheticHeads(model(), "val", 2, SIZE, 0, data().settings).__getitems__([0, 1])
    assert (batch.image - fresh.image).abs().mean() < 0.02  # JPEG at 95
    for name in ("coefficients", "parsing", "landmarks_visible"):
        assert torch.equal(getattr(truth_of(batch), name), getattr(truth_of(fresh), name))
    torch.testing.assert_close(truth_of(batch).depth, truth_of(fresh).depth, atol=0.51 * DEPTH_UNIT, rtol=0)
    for name in ("landmarks", "intrinsics", "skin", "views"):
        assert torch.equal(getattr(batch, name), getattr(fresh, name))


@pytest.mark.parametrize("damage", ["train-000000.tar", "intrinsics.npy", "shards.json"])
def test_a_damaged_cache_is_drawn_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path))
    module = data(train_faces=1)
    module._draw("train")
    path = module.folder("train") / damage
    path.write_bytes(path.read_bytes()[:40])
    again = module._draw("train")
    assert isinstance(again, CachedHeads) and len(again[0]) == 2 and "drawing these faces again" in caplog.text


def test_other_face_models_have_no_whole_head() -> None:
    with pytest.raises(UserError, match="made of the face model `default`"):
        SyntheticHeads(small_face_model(), "train", 1, SIZE, 0, heads().settings)[0]
    settings = SceneSettings(specular=True, heads=HeadSettings())
    with pytest.raises(UserError, match=r"settings\.heads"):
        SyntheticMultiView(model(), settings=settings)


def test_the_contact_sheet_shows_the_first_people(tmp_path: Path) -> None:
    from PIL import Image

    from experiments.__main__ import main

    assert main(["sheet", "--heads", "--count", "3", "--size", "32", "--out", str(tmp_path / "sheet.png")]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        tiles = np.asarray(sheet)
    assert tiles.shape == (64, 64, 3)
    assert (tiles[32:, 32:] == 255).all() and min(tiles[:32, :32].std(), tiles[:32, 32:].std()) > 5


def test_a_heads_light_turns_with_it_or_stays_in_the_room() -> None:
    for on_head in (True, False):
        settings = SceneSettings(views=3, light_turns=on_head, heads=FEWER)
        coefficients = truth_of(SyntheticHeads(model(), "train", 4, SIZE, 0, settings)[0]).coefficients
        truth = model().layout().split(coefficients)
        rotation = euler_to_rotation(truth.angles)
        turns = rotation @ rotation[1].T if on_head else torch.eye(3).expand(3, 3, 3)
        expected = turned_light(truth.illumination[1:2].expand(3, -1), turns)
        assert (expected - truth.illumination).abs().max() < 0.03  # harmonics are fitted to each view's light anew
