"""Skin probabilities on any data module's batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from datamodules.preparation.skin_classifier import SkinClassifier
from datamodules.skin_weighted_faces import SkinWeightedFaces
from renderers.io.errors import UserError
from tests.datamodules.test_corrupted_faces import Brightened


def test_probabilities_of_the_picture_as_the_data_module_gives_it() -> None:
    data = SkinWeightedFaces(Brightened(), prior=0.3)
    (batch,) = list(data.train_dataloader())
    bright = (batch.image + 0.1).clamp(0, 1)
    given = data.on_after_batch_transfer(batch, 0)
    assert torch.equal(given.image, bright)
    assert torch.equal(given.views, batch.views)  # type: ignore[attr-defined]
    torch.testing.assert_close(given.skin_probability, SkinClassifier.load().probability(bright, 0.3))


def test_a_classifier_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mine\.json"):
        SkinWeightedFaces(Brightened(), str(tmp_path / "mine.json"))
