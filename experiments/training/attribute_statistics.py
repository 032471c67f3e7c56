"""Mean and deviation of the attribute features on drawn people, and how well each encoder tells others apart.

    python -m experiments.training.attribute_statistics     # writes losses/encoders/attribute_statistics.npz; a minute

Unscaled, a few of the age network's features outweigh all others in a distance, and these say little of the person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchmetrics.functional import pairwise_cosine_similarity

from datamodules.batch import MultiViewBatch
from datamodules.synthesis.scenes import SceneSettings
from datamodules.synthetic import SyntheticFaces
from losses.encoders import AttributeEncoder, DlibEncoder, FaceEncoder
from losses.encoders.attributes import LEAST_DEVIATION, STATISTICS
from renderers.face_models.base import MorphableModel
from renderers.face_models.default.model import load_default
from renderers.io.atomic_file import written_atomically

SEED, PEOPLE = 1002, 256  # whose features are averaged
JUDGED_SEED, JUDGED = 7, 96  # whose two pictures are matched
SIZE = 112  # pixels
SCENES = SceneSettings(views=2, max_yaw=30.0, view_gap=(5.0, 25.0), texture_detail=1.0)
TURNED = replace(SCENES, max_yaw=60.0)  # as experiments/self_augmentation shows people
CHUNK = 16
Distance = Callable[[Tensor, Tensor], Tensor]


def drawn(model: MorphableModel, people: int, seed: int, scenes: SceneSettings = SCENES) -> list[MultiViewBatch]:
    """Two pictures of each person, some people a batch."""
    faces = SyntheticFaces(model, "val", people, SIZE, seed, scenes)
    return [faces.__getitems__(list(range(first, min(first + CHUNK, people)))) for first in range(0, people, CHUNK)]


@torch.no_grad()
def features(encoder: FaceEncoder, pictures: Sequence[MultiViewBatch]) -> Tensor:
    """(2 N, D), both pictures of a person in turn."""
    return torch.cat([encoder(batch.image, batch.landmarks) for batch in pictures])


def statistics(raw: Tensor) -> dict[str, np.ndarray]:
    """Mean and deviation of each of D features (N, D); features that hardly vary count as if they varied a little."""
    deviation = raw.std(dim=0)
    return {
        "mean": raw.mean(dim=0).numpy(),
        "deviation": deviation.clamp_min(LEAST_DEVIATION * deviation.median()).numpy(),
    }


def told_apart(found: Tensor, distance: Distance) -> tuple[float, float, float]:
    """How often a person's second picture is the nearest of all, and the mean distances to it and to the others."""
    gaps = distance(found[::2], found[1::2])
    own = gaps.diagonal()
    others = (gaps.sum() - own.sum()) / (gaps.numel() - len(own))
    nearest = gaps.argmin(dim=1) == torch.arange(len(own))
    return float(nearest.float().mean()), float(own.mean()), float(others)


def main() -> None:
    """Writes the file, and prints a line for each encoder and distance."""
    model, plain = load_default(), AttributeEncoder(standardized=False)
    known = statistics(features(plain, drawn(model, PEOPLE, SEED)))
    with written_atomically(STATISTICS) as temporary, temporary.open("wb") as file:
        np.savez(file, mean=known["mean"], deviation=known["deviation"])
    judged = {scenes.max_yaw: drawn(model, JUDGED, JUDGED_SEED, scenes) for scenes in (SCENES, TURNED)}
    names = ("encoder", "distance", "yaw up to", "rank-1", "same person", "others")
    table = Table(*names, title=f"{JUDGED} drawn people, {SIZE} px")
    distances: dict[str, Distance] = {
        "Euclidean": torch.cdist,
        "cosine": lambda a, b: 1 - pairwise_cosine_similarity(a, b),
    }
    encoders: dict[str, tuple[FaceEncoder, str]] = {
        "attributes as they are": (plain, "Euclidean"),
        "attributes, standardized": (AttributeEncoder(), "Euclidean"),
        "dlib, chips of 112 px": (DlibEncoder(chip_size=112), "cosine"),
        "dlib, chips of 150 px": (DlibEncoder(), "cosine"),
    }
    for name, (encoder, distance) in encoders.items():
        for yaw, pictures in judged.items():
            rank, own, others = told_apart(features(encoder, pictures), distances[distance])
            table.add_row(name, distance, f"{yaw:.0f}", f"{rank:.3f}", f"{own:.3f}", f"{others:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
