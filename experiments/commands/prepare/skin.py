"""Labelled pixels -> a skin classifier's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from scipy.stats import rankdata

from datamodules.preparation.photo_file import SUFFIXES, read_photo
from datamodules.preparation.skin_classifier import SkinClassifier, fit_classifier
from renderers.io.errors import UserError

MASK_SUFFIX = "_skin.png"
PIXELS = 100  # drawn of each kind from every picture, so that none outweighs the others
FEWEST = 200  # of each kind, to fit anything to
HELD_OUT = 5  # every fifth picture judges the fit and takes no part in it
CLIPPED = 0.01  # this near to 0 or 1 a channel may have been more or less than a picture can hold
SYNTHETIC_SIZE = 64
CHUNK = 64  # synthetic faces drawn at once

Sample = tuple[np.ndarray, np.ndarray]


def prepare_skin(source: Path | None, out: Path, synthetic: int, components: int, seed: int) -> SkinClassifier:
    """Fits a skin classifier to labelled pixels and writes its numbers.

    Args:
        source: folder of photographs, each with its labels in NAME_skin.png (white where skin is); searched
            recursively.
        out: the JSON file to write.
        synthetic: how many synthetic faces, whose skin is known, to fit to where `source` is None.
        components: Gaussians in each of the two mixtures.
        seed: of the synthetic faces, the pixels drawn and the fit's starting points.

    Raises:
        UserError: no such folder, no labelled photographs, labels of another size, too few pixels of a kind, or a file
            that cannot be written.
    """
    console = Console(stderr=True)
    if source is None:
        samples, told = list(synthetic_samples(synthetic, seed)), f"{synthetic} synthetic faces, seed {seed}"
    else:
        samples = list(labelled_samples(source, seed))
        told = f"{len(samples)} labelled photographs, seed {seed}"
    held_out = samples[HELD_OUT - 1 :: HELD_OUT]
    fitted = [sample for index, sample in enumerate(samples) if index % HELD_OUT != HELD_OUT - 1]
    skin, other = _joined(fitted)
    for kind, pixels in (("skin", skin), ("other", other)):
        if len(pixels) < FEWEST:
            raise UserError(f"{told}: {len(pixels)} pixels of {kind} to fit to, {FEWEST} needed: label more pictures")
    classifier = fit_classifier(skin, other, components, seed, told)
    classifier.save(out)
    console.print(f"{out}: fitted to {len(skin)} skin and {len(other)} other pixels of {told}")
    if held_out:
        score = separation(classifier, *_joined(held_out))
        console.print(f"on {len(held_out)} pictures held out, the area under the ROC curve is {score:.3f}")
    return classifier


def separation(classifier: SkinClassifier, skin: np.ndarray, other: np.ndarray) -> float:
    """Area under the ROC curve: how often a skin pixel gets a higher probability than another one.

    Args:
        classifier: gives the probabilities.
        skin: (N, 3) RGB in [0, 1].
        other: (M, 3) RGB in [0, 1].

    Returns:
        In [0, 1]; NaN without pixels of both kinds.
    """
    if not len(skin) or not len(other):
        return float("nan")
    pixels = torch.as_tensor(np.concatenate([skin, other]))
    ranks = rankdata(classifier.probability(pixels.T[None, :, :, None]).flatten().numpy())
    return float((ranks[: len(skin)].sum() - len(skin) * (len(skin) + 1) / 2) / (len(skin) * len(other)))


def labelled_samples(source: Path, seed: int) -> Iterator[Sample]:
    """Skin and other pixels, RGB in [0, 1], of every photograph that has labels.

    Raises:
        UserError: no such folder, no labelled photographs in it, one that cannot be read, or labels of another size.
    """
    if not source.is_dir():
        raise UserError(f"{source}: {'not a folder' if source.exists() else 'no such folder'}")
    photos = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in SUFFIXES]
    labelled = [(path, path.with_name(path.stem + MASK_SUFFIX)) for path in photos]
    labelled = [(path, labels) for path, labels in labelled if labels in set(photos)]
    if not labelled:
        raise UserError(
            f"{source} holds no photograph NAME{SUFFIXES[0]} (or {', '.join(SUFFIXES[1:])}) "
            f"with its labels in NAME{MASK_SUFFIX}"
        )
    for index, (path, labels) in enumerate(labelled):
        image, mask = read_photo(path), read_photo(labels)
        if image.shape != mask.shape:
            sizes = " and ".join(f"{array.shape[1]} x {array.shape[0]}" for array in (image, mask))
            raise UserError(f"{labels}: labels of another size than {path.name} ({sizes} pixels)")
        yield draw_pixels(image / 255, mask.mean(axis=-1) > 127, np.random.default_rng([seed, index]))


def synthetic_samples(count: int, seed: int) -> Iterator[Sample]:
    """Skin and other pixels, RGB in [0, 1], of synthetic faces of the embedded default under diffuse light."""
    from datamodules.synthesis.scenes import SceneSettings
    from datamodules.synthetic import SyntheticFaces
    from renderers.face_models.default.model import load_default

    faces = SyntheticFaces(load_default(), "train", count, SYNTHETIC_SIZE, seed, SceneSettings(views=1))
    for start in track(range(0, count, CHUNK), description=f"drawing {count} synthetic faces"):
        batch = faces.__getitems__(list(range(start, min(start + CHUNK, count))))
        images, masks = batch.image.movedim(1, -1).double().numpy(), batch.skin[:, 0].numpy() > 0.5
        for offset, (image, mask) in enumerate(zip(images, masks, strict=True)):
            yield draw_pixels(image, mask, np.random.default_rng([seed, start + offset]))


def draw_pixels(image: np.ndarray, mask: np.ndarray, generator: np.random.Generator) -> Sample:
    """At most `PIXELS` pixels of each kind, without repetition: (N, 3) skin and (M, 3) other.

    Skin of which two channels are clipped has lost its colour and is passed over, or all black and white were skin.

    Args:
        image: (H, W, 3) RGB in [0, 1].
        mask: (H, W) bool, where skin is.
        generator: draws which.
    """
    colored = (np.abs(image - 0.5) >= 0.5 - CLIPPED).sum(axis=-1) < 2
    kinds = [image[where] for where in (mask & colored, ~mask)]
    skin, other = (pixels[generator.permutation(len(pixels))[:PIXELS]] for pixels in kinds)
    return skin, other


def _joined(samples: list[Sample]) -> Sample:
    nothing = np.zeros((0, 3))
    skin, other = (np.concatenate([nothing, *(sample[kind] for sample in samples)]) for kind in (0, 1))
    return skin, other
