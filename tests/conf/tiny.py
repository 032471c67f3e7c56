"""A module and a data module that train in a moment: the mean colour of a small image."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric

from renderers.io.errors import UserError


@dataclass
class TinyWeights:
    color: float = 1.0
    prior: float = 0.0


class TinyPart:
    """Stands for a class in whose place a configuration puts something else."""

    def __init__(self, name: str = "") -> None:
        self.name = name


def make_part(prefix: str, count: int = 1) -> TinyPart:
    return TinyPart(prefix * count)


class TinyModule(LightningModule):
    """Learns the mean colour of an image; `interrupt_at` stands for a user's Ctrl-C at that step."""

    def __init__(
        self,
        image_size: int = 4,
        hidden: int = 8,
        weights: TinyWeights = TinyWeights(),  # noqa: B008
        face_model: str = "first",
        part: TinyPart | None = None,
        interrupt_at: int | None = None,
        diverge_at: int | None = None,
        init_weights: str | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
    ) -> None:
        super().__init__()
        if face_model == "missing":
            raise UserError("missing: no such face model")
        self.image_size, self.weights, self.face_model = image_size, weights, face_model
        self.part = part
        self.interrupt_at, self.diverge_at, self.make_optimizer = interrupt_at, diverge_at, optimizer
        size = 3 * image_size * image_size
        self.color_error = MeanMetric()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(size, hidden), nn.Tanh(), nn.Linear(hidden, 3))
        if init_weights is not None:
            self.load_state_dict(torch.load(init_weights, weights_only=True)["state_dict"])

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        if self.interrupt_at == self.global_step:
            os.kill(os.getpid(), signal.SIGINT)
        color = (self(batch["image"]) - batch["color"]).square().mean()
        if self.diverge_at == self.global_step:
            color = color / 0 * 0
        prior = sum(p.square().sum() for p in self.parameters())
        self.log("train/color", color)
        self.log("train/prior", prior)
        return self.weights.color * color + self.weights.prior * prior

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.color_error.update((self(batch["image"]) - batch["color"]).abs())

    def on_validation_epoch_end(self) -> None:
        self.log("val/color_error", self.color_error.compute())
        self.color_error.reset()

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("test/color_error", (self(batch["image"]) - batch["color"]).abs().mean())

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return {"color": self(batch["image"])}

    def panels(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        image = batch["image"]
        return {"input": image, "color": self(image)[:, :, None, None].expand_as(image)}

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(self.parameters())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["face_model"] = self.face_model

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint["face_model"] != self.face_model:
            raise UserError(f"the checkpoint was made for {checkpoint['face_model']}, this run uses {self.face_model}")


class _Colors(Dataset[dict[str, Tensor]]):
    def __init__(self, size: int, count: int, bad: int | None, unreadable: int | None) -> None:
        self.size, self.count, self.bad, self.unreadable = size, count, bad, unreadable

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if index == self.unreadable:
            raise UserError(f"{index}.jpg: not an image")
        generator = torch.Generator().manual_seed(index)
        color = torch.rand(3, generator=generator)
        image = color[:, None, None] + 0.05 * torch.randn(3, self.size, self.size, generator=generator)
        if index == self.bad:
            image[0, 0, 0] = torch.nan
        return {"image": image, "color": color}


class TinyData(LightningDataModule):
    """`bad`: index of a training sample with a NaN; `unreadable`: index of one that raises a UserError."""

    def __init__(
        self,
        size: int = 4,
        count: int = 16,
        batch_size: int = 4,
        bad: int | None = None,
        unreadable: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.size, self.count, self.batch_size, self.num_workers = size, count, batch_size, num_workers
        self.bad, self.unreadable = bad, unreadable

    def _loader(self, bad: int | None = None, unreadable: int | None = None) -> DataLoader[dict[str, Tensor]]:
        data = _Colors(self.size, self.count, bad, unreadable)
        return DataLoader(data, batch_size=self.batch_size, num_workers=self.num_workers)

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return self._loader(self.bad, self.unreadable)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return self._loader()

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return self._loader()

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return self._loader()
