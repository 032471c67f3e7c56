"""Splits prepared photographs into training, validation and test, and groups views of one face."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from datamodules.preparation.prepared_folder import PhotoIndex, PhotoLabel, Split

# Degrees of yaw between a view and its target. Views farther apart share too little of the face (MGCNet, section 4.1).
VIEW_SPACING = 20.0


def split_photos(names: Sequence[str], val_fraction: float) -> tuple[set[str], set[str]]:
    """Split names into training and validation by a hash of each name, so that new names do not move old ones.

    Args:
        names: N different names, of photographs or of people.
        val_fraction: in [0, 1].

    Returns:
        Two disjoint sets that together are `names`, neither of them empty. A single name is in both.
    """
    ranks = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64 for name in names}
    order = sorted(names, key=lambda name: (ranks[name], name))
    if len(order) == 1:
        return set(order), set(order)
    count = sum(ranks[name] < val_fraction for name in order)
    count = min(max(count, 1), len(order) - 1)
    return set(order[count:]), set(order[:count])


def split_prepared(index: PhotoIndex, val_fraction: float) -> dict[Split, set[str]]:
    """The photographs of an index with a prepared face, by split.

    A data set's own split is kept. If it has no validation part, some of its training people are taken; if it has no
    training part either, its test part serves. If it has no test part, its validation part serves. Photographs without
    labels are divided between training and validation, and tests use the latter.

    Args:
        index: of a prepared folder.
        val_fraction: share of the photographs, or of the training people, that is kept for validation.
    """
    names = [name for name, photo in index.photos.items() if photo.faces]
    labels = {name: label for name in names if (label := index.photos[name].label) is not None}
    if not labels:
        train, val = split_photos(names, val_fraction)
        return {"train": train, "val": val, "test": val}
    parts: dict[Split, set[str]] = {"train": set(), "val": set(), "test": set()}
    for name, label in labels.items():
        parts[label.split].add(name)
    if parts["train"] and not parts["val"]:
        people = sorted({labels[name].identity for name in parts["train"]})
        train, val = split_photos(people, val_fraction)
        training = parts["train"]
        parts["train"] = {name for name in training if labels[name].identity in train}
        parts["val"] = {name for name in training if labels[name].identity in val}
    parts["val"] = parts["val"] or parts["test"]
    parts["test"] = parts["test"] or parts["val"]
    return parts


def group_views(labels: Sequence[PhotoLabel | None]) -> list[tuple[int, ...]]:
    """A sample for every face: (face,), or (view, face, view) if its group has views to both sides.

    The two views are those of the group whose yaws are closest to the face's own minus and plus `VIEW_SPACING`, and at
    least half of `VIEW_SPACING` away from it.

    Args:
        labels: of N faces.

    Returns:
        N samples of rows of `labels`, the target in the middle.
    """
    groups: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row, label in enumerate(labels):
        if label is not None and label.group is not None and label.yaw is not None:
            groups[label.group].append((row, label.yaw))
    samples: dict[int, tuple[int, ...]] = {row: (row,) for row in range(len(labels))}
    for members in groups.values():
        for row, yaw in members:
            left = _nearest([(other, yaw - its) for other, its in members])
            right = _nearest([(other, its - yaw) for other, its in members])
            if left is not None and right is not None:
                samples[row] = (left, row, right)
    return list(samples.values())


def _nearest(turns: Sequence[tuple[int, float]]) -> int | None:
    """Of (row, degrees) pairs, the row whose turn is nearest to the spacing; None if all turns are too small."""
    far = [(abs(turn - VIEW_SPACING), row) for row, turn in turns if turn >= VIEW_SPACING / 2]
    return min(far)[1] if far else None
