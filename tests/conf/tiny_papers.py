"""Every paper at a size that trains in a moment, and processes of their own to train them in."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from datamodules.batch import CorruptedBatch, FaceBatch
from datamodules.corruption.draws import Corrupted
from datamodules.wrapped_faces import WrappedFaces
from lightning_modules.components.backbones import ImageEncoder, ResNet
from renderers.face_models.base import MorphableModel
from tests.conf.scenes import small_face_model
from tests.conf.shiny import small_shiny_model

PAPERS = ("mgcnet", "rogue", "self_augmentation", "specular", "finegrained")
SIZE = 32
STEPS = 5  # of `little`
LOADED = (
    "experiments.training.cli",
    *(f"lightning_modules.{paper}" for paper in PAPERS),
    "datamodules.synthetic",
    "datamodules.corrupted_faces",
    "datamodules.skin_weighted_faces",
    "tests.conf.tiny_papers",
    "tests.conf.tiny",
)


class SmallBackbone(ResNet):
    """Stands for a ResNet: two convolutions, with `norm` a batch norm between them that a checkpoint must carry."""

    def __init__(self, norm: bool = False) -> None:
        ImageEncoder.__init__(self)
        self.features = 12
        between = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.network = nn.Sequential(
            nn.Conv2d(3, 8, 5, 4), between, nn.Tanh(), nn.Conv2d(8, 12, 3, 2), nn.Tanh(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip


def make_face_model(shiny: bool = False) -> MorphableModel:
    """`small_face_model`, or the one with a specular albedo."""
    return small_shiny_model() if shiny else small_face_model()


class FixedCorruption(nn.Module):
    """A block that is the same in every picture: what a batch shows does not depend on who else is in it."""

    def forward(self, image: Tensor, landmarks: Tensor, generator: torch.Generator | None = None) -> Corrupted:
        mask = torch.zeros_like(image[:, :1], dtype=torch.bool)
        mask[..., SIZE // 2 : 3 * SIZE // 4, SIZE // 4 : SIZE // 2] = True
        return Corrupted(torch.where(mask, 0.2, image), mask)


class FixedCorruptions(WrappedFaces):
    """`CorruptedFaces` without chance: the block in place of occlusions, stripes in place of noise."""

    def on_after_batch_transfer(self, batch: FaceBatch, dataloader_idx: int) -> CorruptedBatch:
        block = FixedCorruption()(batch.image, batch.landmarks)
        stripes = (batch.image + 0.2 * (torch.arange(SIZE) % 2 - 0.5)).clamp(0, 1)
        names = ("delusional", "noisy") if self.trainer is not None and self.trainer.training else None
        images = {"rational": block.image, "delusional": block.image, "noisy": stripes}
        masks = {"rational": block.mask, "delusional": block.mask, "noisy": torch.ones_like(block.mask)}
        clean = {f.name: getattr(batch, f.name) for f in fields(FaceBatch)}
        kept = names or tuple(images)
        return CorruptedBatch(
            **clean, corrupted={name: images[name] for name in kept}, masks={name: masks[name] for name in kept}
        )


def configuration(paper: str, norm: bool = False, fixed: bool = False, optimizer: str = "Adam") -> dict[str, Any]:
    """A configuration of `fit` for a paper: all its stages within ten steps, three batches of 2 faces an epoch.

    Args:
        paper: one of `PAPERS`.
        norm: whether the backbone has a batch norm.
        fixed: whether nothing is drawn at random but the data's order.
        optimizer: a class of torch.optim.
    """
    face_model = {"class_path": f"{__name__}.make_face_model", "init_args": {"shiny": paper == "specular"}}
    step: dict[str, Any] = {"class_path": f"torch.optim.{optimizer}", "init_args": {"lr": 1.0e-3}}
    model: dict[str, Any] = {
        "face_model": face_model,
        "backbone": {"class_path": f"{__name__}.SmallBackbone", "init_args": {"norm": norm}},
        "identity_encoder": {"class_path": "tests.conf.parts.SmallEncoder"},
        "image_size": SIZE,
        "optimizer": step,
        "schedule": "cosine",
    }
    settings: dict[str, Any] = {"views": 3 if paper == "mgcnet" else 1, "max_yaw": 40.0}
    if paper == "specular":
        settings["specular"] = True
    data: dict[str, Any] = {
        "class_path": "datamodules.synthetic.SyntheticMultiView",
        "init_args": {
            "face_model": face_model, "size": SIZE, "batch_size": 2, "train_faces": 7, "val_faces": 3,
            "settings": settings,
        },
    }  # fmt: skip
    if paper == "rogue":
        wrapper = f"{__name__}.FixedCorruptions" if fixed else "datamodules.corrupted_faces.CorruptedFaces"
        data = {"class_path": wrapper, "init_args": {"data": data}}
    if paper == "specular":
        data = {"class_path": "datamodules.skin_weighted_faces.SkinWeightedFaces", "init_args": {"data": data}}
    model |= _own_arguments(paper, fixed, step)
    names = {"mgcnet": "MGCNet", "rogue": "ROGUE", "self_augmentation": "SelfAugmentation", "specular": "Specular"}
    return {
        "paper": paper,
        "wandb": "disabled",
        "seed_everything": 3,
        "trainer": {
            "max_steps": 10, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False,
            "log_every_n_steps": 1, "check_val_every_n_epoch": None, "val_check_interval": 4,
        },
        "model": {
            "class_path": f"lightning_modules.{paper}.{names.get(paper, 'Finegrained')}",
            "init_args": model,
        },
        "data": data,
    }  # fmt: skip


def _own_arguments(paper: str, fixed: bool, step: dict[str, Any]) -> dict[str, Any]:
    if paper == "mgcnet":
        return {"multi_view_start": 2, "identity_start": 3}
    if paper == "rogue":
        weights = {"consistency": 1.0}
        return {"robust_start": 2, "perceptual_start": 3, "weights": weights, "discriminator_optimizer": step}
    if paper == "specular":
        return {"identity_start": 3, "mouth_start": 2}
    if paper == "finegrained":
        # A chart of so few vertices is drawn in as few texels.
        return {"fine_start": 2, "identity_start": 1, "chart_size": 32, "channels": [4, 6, 8], "camera": "perspective"}
    corruption = f"{__name__}.FixedCorruption" if fixed else "datamodules.corruption.DelusionalOcclusion"
    weights = {"rotation": 0.0, "robustified": 0.0} if fixed else {}
    return {
        "attribute_encoder": {"class_path": "tests.conf.parts.SmallEncoder"},
        "corruption": {"class_path": corruption},
        "coarse_steps": 2,
        "augmentation_start": 2,
        "weights": weights,
        "channels": 4,
        "hidden": 16,
    }


def little(paper: str, faces: int, fixed: bool = True) -> dict[str, Any]:
    """`faces` faces a step, of all processes together, by SGD, which does not enlarge a rounding error."""
    config = configuration(paper, fixed=fixed, optimizer="SGD")
    for name in ("optimizer", "discriminator_optimizer"):
        if name in config["model"]["init_args"]:
            config["model"]["init_args"][name]["init_args"] |= {"lr": 0.02, "momentum": 0.9}
    config["trainer"] |= {"max_steps": STEPS, "val_check_interval": STEPS}
    data = config["data"]
    while "data" in data["init_args"]:
        data = data["init_args"]["data"]
    data["init_args"] |= {"batch_size": faces, "train_faces": 10, "val_faces": 6}
    return config


class StepRecord(Callback):
    """Each process's gradients after every step, what it saw of the data, and its weights at the end."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.gradients: list[dict[str, Tensor]] = []
        self.seen: list[list[float]] = []
        self.drawn = 0.0
        self.start: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = {name: p.detach().clone() for name, p in pl_module.named_parameters()}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        state = torch.get_rng_state()
        self.drawn = float(torch.rand(()))
        torch.set_rng_state(state)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        held = {name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None}
        self.gradients.append(held)
        self.seen.append(batch.truth.coefficients[:, 0].tolist())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        held = {"gradients": self.gradients, "seen": self.seen, "drawn": self.drawn, "start": self.start}
        world, strategy = trainer.world_size, type(trainer.strategy).__name__
        held |= {"weights": pl_module.state_dict(), "world": world, "strategy": strategy}
        torch.save(held, self.folder / f"{trainer.global_rank}.pt")


class LossRecord(Callback):
    """A line "step loss" for every training step, and a death or an interruption.

    Args:
        path: the file, which is appended to.
        kill_at: so many steps are done when SIGKILL comes, after the backward pass of the next one.
        lives: the process dies after so many steps of its own; 0 never.
        interrupt_at: so many steps are done when SIGINT comes, after the backward pass of the next one.
    """

    def __init__(self, path: str, kill_at: int = -1, lives: int = 0, interrupt_at: int = -1) -> None:
        self.path, self.kill_at, self.lives, self.interrupt_at = Path(path), kill_at, lives, interrupt_at
        self.steps = 0

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.steps == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.steps == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        name = "train/loss" if "train/loss" in trainer.callback_metrics else "train/color"
        with self.path.open("a") as file:
            file.write(f"{trainer.global_step} {float(trainer.callback_metrics[name])!r}\n")
        self.steps += 1
        if self.steps == self.lives:
            os.kill(os.getpid(), signal.SIGKILL)


def curve(path: Path) -> list[tuple[int, float]]:
    """What a `LossRecord` wrote."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return [(int(step), float(loss)) for step, loss in (line.split() for line in lines)]


class Processes:
    """Runs `fit` in fresh processes that have all modules loaded already: a fork of a server that did nothing else."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(LOADED))
        # The server looks for what it loads beforehand along PYTHONPATH alone.
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), *([before] if before else [])])
        try:
            forkserver.ensure_running()
        finally:
            os.environ.pop("PYTHONPATH")
            if before is not None:
                os.environ["PYTHONPATH"] = before

    def start(self, folder: Path, arguments: Sequence[str], log: Path, **environment: str) -> BaseProcess:
        """One process that runs a command in a folder."""
        process = self.context.Process(target=_run, args=(str(folder), list(arguments), environment, str(log)))
        process.start()
        return process

    def run(self, folder: Path, arguments: Sequence[str], world: int = 1, **environment: str) -> list[int]:
        """The exit codes of `world` processes that run a command together, as torchrun would start them."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ranks: list[Mapping[str, str]] = [{}]
        if world > 1:
            shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
            shared |= {"LOCAL_WORLD_SIZE": str(world), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "tiny"}
            shared |= {"GLOO_SOCKET_IFNAME": "lo"}
            ranks = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
        processes = [
            self.start(folder, arguments, folder / f"log{rank}", **environment, **own) for rank, own in enumerate(ranks)
        ]
        for process in processes:
            process.join(timeout=200)
            if process.is_alive():
                process.kill()
                process.join()
        return [int(process.exitcode or 0) for process in processes]


def _run(folder: str, arguments: list[str], environment: Mapping[str, str], log: str) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    torch.set_num_threads(1)
    from lightning.pytorch.utilities import rank_zero_only

    from experiments.__main__ import main

    rank_zero_only.rank = int(environment.get("RANK", "0"))  # type: ignore[attr-defined]
    with Path(log).open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        code = main(arguments)
        file.flush()
    sys.exit(code)


def write_configuration(path: Path, contents: Mapping[str, Any]) -> str:
    """The YAML file's name."""
    path.write_text(yaml.safe_dump(dict(contents), sort_keys=False))
    return str(path)
