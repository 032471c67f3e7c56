"""MGCNet's prepared training data, drawn here: three views side by side, skin, cameras, and the list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.batch import MultiViewBatch

LEFT, TARGET, RIGHT = range(3)  # of the strip's pictures


def write_strip(folder: Path, name: str, views: np.ndarray, skin: np.ndarray, landmarks: np.ndarray) -> None:
    """One sample of the list. Its pictures stand left, target, right; its `_cam.txt` tells of target, left, right.

    Args:
        folder: where its files go.
        name: what their names begin with.
        views: (3, side, side, 3) uint8, the target in the middle.
        skin: (3, side, side) uint8, in the same order.
        landmarks: (3, 68, 2) pixels as a detector counts them, pixel centres at whole numbers, in the same order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(list(views), axis=1)).save(folder / f"{name}.jpg", quality=100)
    Image.fromarray(np.concatenate(list(skin), axis=1)).save(folder / f"{name}_skin.jpg", quality=100)
    lines = 3 * ["4700.000000,0.,112.000000,0.,4700.000000,112.000000,0.,0.,1."]
    for view in (TARGET, LEFT, RIGHT):
        lines += ["68"] + [f"{x:f},{y:f}" for x, y in landmarks[view]]
    (folder / f"{name}_cam.txt").write_text("\n".join(lines) + "\n")


def write_list(root: Path, batch: MultiViewBatch, flags: str) -> Path:
    """A list whose sample k shows the k-th group of `batch`, with the k-th of `flags`: "0", "1" or "2"."""
    images = (batch.image.movedim(1, -1) * 255).round().byte().numpy()
    skin = (batch.skin[:, 0] * 255).round().byte().numpy()
    for index in range(len(flags)):
        rows = slice(3 * index, 3 * index + 3)
        write_strip(root / "faces", f"{index:04d}", images[rows], skin[rows], batch.landmarks[rows].numpy() - 0.5)
    lines = [f"{flag} faces {index:04d}" for index, flag in enumerate(flags)]
    (root / "train.txt").write_text("\n".join(lines) + "\n")
    return root
