"""A data module around another one, whose batches it changes on their device."""

from __future__ import annotations

from typing import Any

from lightning import LightningDataModule


class WrappedFaces(LightningDataModule):
    """Forwards every call to `data`. A subclass changes the batches in its `on_after_batch_transfer`.

    Args:
        data: the wrapped data module; its batches may be any `FaceBatch`.
    """

    def __init__(self, data: LightningDataModule) -> None:
        super().__init__()
        self.data = data

    def prepare_data(self) -> None:
        self.data.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        self.data.trainer = self.trainer
        self.data.setup(stage)  # type: ignore[arg-type]  # Lightning calls it with None too

    def train_dataloader(self) -> Any:
        return self.data.train_dataloader()

    def val_dataloader(self) -> Any:
        return self.data.val_dataloader()

    def test_dataloader(self) -> Any:
        return self.data.test_dataloader()

    def predict_dataloader(self) -> Any:
        return self.data.predict_dataloader()
