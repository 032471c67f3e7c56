"""Which prepared photographs are for training, validation and testing, and which are views of one face."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from datamodules.preparation.prepared_folder import PhotoIndex, PhotoLabel, Split

# Degrees of yaw between a view and its target: neighbours, as views far apart share too little (MGCNet, section 4.1).
VIEW_SPACING = 20.0


def split_photos(names: Sequence[str], val_fraction: float) -> tuple[set[str], set[str]]:
    """Names for training and for validation, by a hash of each: adding some moves none of the others.

    Args:
        names: N different names, of photographs or of people.
        val_fraction: in [0, 1].

    Returns:
        Two disjoint sets that together are `names`, neither of them empty; of a single name, both hold it.
    """
    ranks = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64 for name in names}
    order = sorted(names, key=lambda name: (ranks[name], name))
    if len(order) == 1:
        return set(order), set(order)
    count = sum(ranks[name] < val_fraction for name in order)
    count = min(max(count, 1), len(order) - 1)
    return set(order[count:]), set(order[:count])


def split_prepared(index: PhotoIndex, val_fraction: float) -> dict[Split, set[str]]:
    """The photographs of an index that gave a face, by what they are for.

    A data set's own split holds. Where it keeps nothing for validation, some of the people it trains on are kept; where
    it trains on nobody, validation uses what it tests on. Where it tests on nothing, testing uses what validates.
    Photographs without labels are all for training, some kept.

    Args:
        index: of a prepared folder.
        val_fraction: share of the photographs, or of the people, that is kept.
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
    """A sample for every face: (face,), or (view, face, view) where its group shows it from both sides.

    The views are those of the group whose yaws come closest to `VIEW_SPACING` less and more than the face's own, and no
    nearer to it than half of that.

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
    """The row whose turn is nearest to the spacing, of (row, degrees) pairs; None where all turns are too small."""
    far = [(abs(turn - VIEW_SPACING), row) for row, turn in turns if turn >= VIEW_SPACING / 2]
    return min(far)[1] if far else None
