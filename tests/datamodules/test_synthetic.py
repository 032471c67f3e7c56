"""The synthetic scenes: determinism, exact truth, disjoint splits, the cache on disk."""

from __future__ import annotations

import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import datamodules.synthetic as synthetic
from datamodules.batch import MultiViewBatch
from datamodules.synthesis.scenes import SceneSettings, sample_scene
from datamodules.synthetic import DEPTH_UNIT, SyntheticFaces, SyntheticMultiView
from renderers.camera import default_intrinsics, euler_to_rotation, project, transform
from renderers.face_renderer import FaceRenderer
from tests.conf.scenes import small_face_model

SIZE = 32


def faces(split: synthetic.Split = "train", count: int = 8, seed: int = 0, **settings: float) -> SyntheticFaces:
    return SyntheticFaces(small_face_model(), split, count, SIZE, seed, SceneSettings(**settings))  # type: ignore[arg-type]


def data(**changes: int) -> SyntheticMultiView:
    counts = {"train_faces": 8, "val_faces": 3, "test_faces": 2, "batch_size": 2} | changes
    return SyntheticMultiView(small_face_model(), size=SIZE, **counts)


def test_an_item_depends_on_seed_split_and_index_alone() -> None:
    alone, together = faces()[5], faces(count=100).__getitems__([2, 5])
    torch.testing.assert_close(together.image[3:], alone.image)
    assert together.truth is not None and alone.truth is not None
    torch.testing.assert_close(together.truth.coefficients[3:], alone.truth.coefficients)
    others = [faces(seed=1)[5], faces("val")[5], faces()[4]]
    for other in others:
        assert other.truth is not None
        assert (other.truth.coefficients[:, 0] != alone.truth.coefficients[:, 0]).all()


def test_splits_share_no_identity() -> None:
    rows = []
    for split in synthetic.SPLITS:
        truth = faces(split).__getitems__(list(range(8))).truth
        assert truth is not None
        rows.append(truth.coefficients[:, :80])
    identities = torch.cat(rows).unflatten(0, (-1, 3))[:, 0]
    assert torch.cdist(identities, identities).fill_diagonal_(torch.inf).min() > 1


def test_views_are_one_face_under_other_poses_and_lights() -> None:
    batch = faces().__getitems__([0, 1])
    layout = small_face_model().layout()
    assert batch.truth is not None and batch.views is not None
    assert batch.views.tolist() == [[0, 1, 2], [3, 4, 5]]
    named = layout.split(batch.truth.coefficients).named()
    for name, value in named.items():
        views = value[:3]
        same = (views == views[:1]).all()
        assert same == (name in ("identity", "expression", "albedo")), name


def test_a_group_shares_a_light_that_belongs_to_the_head_or_to_the_room() -> None:
    """On the head a vertex has one colour in all views; in the room the weights are one, in the camera's frame."""
    for on_head in (True, False):
        drawn = faces(light_turns=on_head)
        batch = drawn.__getitems__([0, 1])
        assert batch.truth is not None
        truth = drawn.layout.split(batch.truth.coefficients)
        colors = drawn.renderer(truth).vertex_colors.unflatten(0, (-1, 3))
        lights = truth.illumination.unflatten(0, (-1, 3))
        color_gap, light_gap = ((x - x[:, 1:2]).abs()[:, ::2].max() for x in (colors, lights))
        same, other = (color_gap, light_gap) if on_head else (light_gap, color_gap)
        assert same < 1e-4 < 0.01 < other
    own = faces(light_change=0.3).__getitems__([0])
    assert own.truth is not None
    layout = small_face_model().layout()
    drawn_anew = layout.split(own.truth.coefficients).illumination
    one = faces().__getitems__([0]).truth
    assert one is not None
    assert (drawn_anew - layout.split(one.coefficients).illumination).abs().max() > 0.05


def test_yaw_reaches_profile_and_never_leaves_the_range() -> None:
    generator = np.random.default_rng(0)
    scenes = [sample_scene(small_face_model(), SceneSettings(), generator) for _ in range(400)]
    yaw = np.rad2deg(np.stack([scene["angles"][:, 1] for scene in scenes]))
    assert np.abs(yaw).max() <= 80.001
    share = np.histogram(np.abs(yaw), bins=[0, 20, 40, 60, 80.1])[0] / yaw.size
    assert share.min() > 0.15  # no part of the range is rare
    assert (np.abs(np.diff(yaw, axis=1)) > 0).all()


def test_truth_is_exact() -> None:
    """Landmarks by a projection written out here; depth and mask by drawing the truth again."""
    batch = faces().__getitems__([3])
    model = small_face_model()
    assert batch.truth is not None
    truth = model.layout().split(batch.truth.coefficients)
    posed = transform(model.shape(truth.identity, truth.expression), euler_to_rotation(truth.angles), truth.translation)
    points = posed[:, model.landmark_indices].numpy()
    focal, centre = 1015 * SIZE / 224, SIZE / 2
    depth = 10 - points[..., 2]
    expected = np.stack([centre + focal * points[..., 0] / depth, centre - focal * points[..., 1] / depth], axis=-1)
    np.testing.assert_allclose(batch.landmarks.numpy(), expected, atol=1e-3)
    torch.testing.assert_close(batch.landmarks, project(posed, batch.intrinsics)[:, model.landmark_indices, :2])
    rendering = FaceRenderer(model, SIZE)(truth)
    assert torch.equal(batch.truth.depth > 0, rendering.mask)
    inside = rendering.mask.expand_as(batch.image)
    torch.testing.assert_close(batch.image[inside], rendering.image.clamp(0, 1)[inside])
    assert ((batch.skin > 0) <= rendering.mask).all()
    torch.testing.assert_close(batch.intrinsics[0], default_intrinsics(SIZE))


def test_background_differs_between_views_and_fills_the_picture() -> None:
    batch = faces().__getitems__([0])
    corners = batch.image[:, :, 0, 0]
    assert torch.pdist(corners).min() > 1e-3
    assert batch.image.min() >= 0 and batch.image.max() <= 1


def test_the_cache_gives_back_what_was_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path))
    monkeypatch.setattr(synthetic, "CHUNK", 3)  # the last chunk is not full
    module = data()
    module.prepare_data()
    batch = module.train_dataloader().dataset.__getitems__([6, 1])  # type: ignore[attr-defined]
    drawn = faces().__getitems__([6, 1])
    assert drawn.truth is not None
    torch.testing.assert_close(batch.image, drawn.image, atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(batch.truth.depth, drawn.truth.depth, atol=DEPTH_UNIT, rtol=0)
    torch.testing.assert_close(batch.truth.coefficients, drawn.truth.coefficients)
    torch.testing.assert_close(batch.landmarks, drawn.landmarks)
    assert torch.equal(batch.views, drawn.views)
    assert torch.equal(batch.truth.depth > 0, drawn.truth.depth > 0)


def test_of_two_at_once_one_draws_and_the_other_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path))
    drawn: list[int] = []
    draw = SyntheticFaces.__getitems__

    def count(self: SyntheticFaces, indices: list[int]) -> MultiViewBatch:
        drawn.extend(indices)
        return draw(self, indices)

    monkeypatch.setattr(SyntheticFaces, "__getitems__", count)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda module: module._draw("val"), [data(), data()]))
    assert drawn == [0, 1, 2] and [len(faces) for faces in found] == [3, 3]


def test_a_full_disk_names_the_cache_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path))
    module = data()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            module._draw("val")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(module.folder("val"))
    assert list((tmp_path / "synthetic").glob("[!.]*")) == list((tmp_path / "synthetic").glob(".*monoface*")) == []


def test_loaders_cover_their_split(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path))
    module = data()
    assert [len(batch) for batch in module.train_dataloader()] == [6] * 4
    assert [len(batch) for batch in module.val_dataloader()] == [6, 3]
    assert sum(len(batch) for batch in module.test_dataloader()) == 6
    assert len({module.folder(split) for split in synthetic.SPLITS}) == 3
    assert data(seed=1).folder("train") != module.folder("train") == data(batch_size=4).folder("train")


@pytest.mark.parametrize("damage", ["missing", "cut off", "fewer faces", "pickled"])
@pytest.mark.parametrize("name", ["image", "coefficients"])
def test_a_damaged_cache_is_named_and_drawn_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str, name: str
) -> None:
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path))
    module = data()
    module.prepare_data()
    path = module.folder("train") / f"{name}.npy"
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut off":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        fewer = np.load(path)[:-1]
        np.save(path, fewer if damage == "fewer faces" else np.array([{}], dtype=object), allow_pickle=True)
    assert len(data().train_dataloader().dataset) == 8
    assert str(path) in caplog.text and "drawing these faces again" in caplog.text
    assert path.read_bytes() == whole
