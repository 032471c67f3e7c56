"""Any data module's faces, with each pixel's probability of skin by its colour."""

from __future__ import annotations

from dataclasses import replace

import torch
from lightning import LightningDataModule

from datamodules.batch import FaceBatch
from datamodules.preparation.skin_classifier import SkinClassifier
from datamodules.wrapped_faces import WrappedFaces


class SkinWeightedFaces(WrappedFaces):
    """Fills `FaceBatch.skin_probability`, on the batch's device (the specular paper, equation (9)).

    Args:
        data: where the faces come from; its batches may be any `FaceBatch`.
        classifier: a file of `prepare skin`; the one that comes along where absent.
        prior: share of skin among the pixels of a face, in (0, 1).
    """

    def __init__(self, data: LightningDataModule, classifier: str | None = None, prior: float = 0.5) -> None:
        super().__init__(data)
        self.classifier, self.prior = SkinClassifier.load(classifier), prior

    @torch.no_grad()
    def on_after_batch_transfer(self, batch: FaceBatch, dataloader_idx: int) -> FaceBatch:
        """The batch with `skin_probability` filled in."""
        given: FaceBatch = self.data.on_after_batch_transfer(batch, dataloader_idx)
        return replace(given, skin_probability=self.classifier.probability(given.image, self.prior))
