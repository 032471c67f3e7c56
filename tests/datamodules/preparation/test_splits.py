"""Which photographs train, validate and test, which are views of one face, and the batches that come of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.photo_folder import PhotoFolder
from datamodules.preparation.prepared_folder import PhotoIndex, PhotoLabel, PreparedFace, PreparedPhoto
from datamodules.preparation.splits import VIEW_SPACING, group_views, split_prepared
from renderers.io.errors import UserError
from tests.datamodules.test_photo_folder import SIZE, prepared_folder


def labelled(root: Path, labels: list[PhotoLabel]) -> PhotoIndex:
    """A prepared folder of one face a photograph; photograph k has the red level 10 + 5 k."""
    index = prepared_folder(root, len(labels))
    index.dataset = "made-up"
    for number, label in enumerate(labels):
        name = f"folder/p{number}.jpg"
        photo = index.photos[name]
        index.photos[name] = PreparedPhoto(photo.bytes, photo.modified_ns, photo.faces, None, label)
    index.save(root)
    return index


def reds(loader: torch.utils.data.DataLoader) -> list[int]:
    """The numbers of the photographs in a loader."""
    levels = [value for batch in loader for value in (batch.image[:, 0, 0, 0] * 255).round().tolist()]
    return sorted((round(level) - 10) // 5 for level in levels)


def test_the_owners_split_holds(tmp_path: Path) -> None:
    parts = ("train", "train", "val", "test", "train", "test")
    index = labelled(tmp_path, [PhotoLabel(part, str(k)) for k, part in enumerate(parts)])
    assert PhotoIndex.load(tmp_path) == index
    data = PhotoFolder(str(tmp_path), size=SIZE, batch_size=1, num_workers=0, augment=False)
    assert reds(data.train_dataloader()) == [0, 1, 4]
    assert reds(data.val_dataloader()) == [2]
    assert reds(data.test_dataloader()) == [3, 5]
    assert reds(data.predict_dataloader()) == list(range(6))


def test_a_set_for_testing_alone_does_not_train(tmp_path: Path) -> None:
    labelled(tmp_path, [PhotoLabel("test", str(k)) for k in range(3)])
    data = PhotoFolder(str(tmp_path), size=SIZE, num_workers=0)
    assert reds(data.val_dataloader()) == reds(data.test_dataloader()) == [0, 1, 2]
    with pytest.raises(UserError, match=r"\(made-up\) holds no photographs for training"):
        data.train_dataloader()


people = st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=30)


@given(people, st.floats(0, 0.99))
def test_people_are_not_parted(names: list[str], fraction: float) -> None:
    index = PhotoIndex(SIZE, "dlib", True, "x")
    one = PreparedFace("x", [0.0] * 4, 1.0, [[0.0, 0.0]] * 68, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    for number, person in enumerate(names):
        index.photos[str(number)] = PreparedPhoto(1, 1, [one], None, PhotoLabel("train", person))
    parts = split_prepared(index, fraction)
    who = {part: {names[int(name)] for name in photos} for part, photos in parts.items()}
    assert parts["train"] and parts["val"] and parts["test"] == parts["val"]
    assert parts["train"] | parts["val"] == set(index.photos)
    assert len(set(names)) == 1 or not who["train"] & who["val"]


def test_views_are_the_neighbours_on_both_sides() -> None:
    yaws = (0, 15, 30, 45, 60)
    labels = [PhotoLabel("train", "p", "g", float(yaw)) for yaw in yaws]
    samples = group_views([*labels, None, PhotoLabel("train", "p", "h", 7.0), PhotoLabel("train", "p", "g")])
    assert samples == [(0,), (0, 1, 2), (1, 2, 3), (2, 3, 4), (4,), (5,), (6,), (7,)]


yaws = st.lists(st.tuples(st.sampled_from("gh"), st.floats(-90, 90)), max_size=12)


@given(yaws)
def test_views_agree_with_brute_force(views: list[tuple[str, float]]) -> None:
    labels = [PhotoLabel("train", "p", group, yaw) for group, yaw in views]
    samples = group_views(labels)
    assert [sample[len(sample) // 2] for sample in samples] == list(range(len(views)))
    for sample in samples:
        group, yaw = views[sample[len(sample) // 2]]
        sides = [
            [
                d - VIEW_SPACING
                for other, its in views
                if other == group and (d := sign * (its - yaw)) >= VIEW_SPACING / 2
            ]
            for sign in (-1, 1)
        ]
        if len(sample) == 1:
            assert not all(sides)
        else:
            found = [yaw - views[sample[0]][1], views[sample[2]][1] - yaw]
            best = [min(abs(turn) for turn in side) for side in sides]
            assert [abs(turn - VIEW_SPACING) for turn in found] == pytest.approx(best)
            assert {views[row][0] for row in sample} == {group}


def test_groups_of_views_and_single_faces_share_a_batch(tmp_path: Path) -> None:
    turned = [PhotoLabel("train", "p", "g", yaw) for yaw in (-20.0, 0.0, 20.0)]
    labelled(tmp_path / "turned", [*turned, PhotoLabel("val", "q")])
    prepared_folder(tmp_path / "plain", 4)
    roots = [str(tmp_path / "turned"), str(tmp_path / "plain")]
    data = PhotoFolder(roots, size=SIZE, batch_size=6, num_workers=0, val_fraction=0.0, views=True)
    (batch,) = list(data.train_dataloader())
    assert batch.views is not None and batch.views.shape == (1, 3)
    assert len(batch) == 6 + 2  # two of the turned ones are alone, too, and three of the plain ones train
    views = batch.views[0]
    levels = (batch.image[views, 0, 0, 0] * 255).round().tolist()
    assert levels == [10, 15, 20]  # in the order of yaw, and unmoved
    torch.testing.assert_close(batch.landmarks[views], batch.landmarks[views[:1]].expand(3, 68, 2))
    assert [len(found) for found in data.val_dataloader()] == [2]
    alone = PhotoFolder(roots, size=SIZE, batch_size=6, num_workers=0, val_fraction=0.0)
    (batch,) = list(alone.train_dataloader())
    assert batch.views is not None and len(batch) == 6 and len(batch.views) == 0


def test_folders_may_have_shares(tmp_path: Path) -> None:
    """Twenty photographs and four, half of an epoch each; by size where nothing is said."""
    roots = [str(tmp_path / "many"), str(tmp_path / "few")]
    for root, count in zip(roots, (20, 4), strict=True):
        train = [PhotoLabel("train", f"{root}{number}") for number in range(count)]
        labelled(Path(root), [*train, PhotoLabel("val", f"{root} else")])
    for shares, few in ((None, 4), ([1.0, 1.0], 12), ([3.0, 1.0], 6)):
        data = PhotoFolder(roots, size=SIZE, batch_size=4, num_workers=0, val_fraction=0.0, shares=shares)
        loader = data.train_dataloader()
        indices = [index % 24 for _, index in loader.sampler]
        assert len(indices) == 24 and sum(index >= 20 for index in indices) == few
        assert sum(len(batch) for batch in loader) == 24


def test_no_folder_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="root names no folder"):
        PhotoFolder([])
