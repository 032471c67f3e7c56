"""Every validation of a run, in a file that a sweep reads while the run goes on."""

from __future__ import annotations

import json
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from experiments.training.callbacks import validation_metrics


class ValidationHistory(Callback):
    """Adds a line of JSON for each validation: the step, and every `val/...`.

    Args:
        path: of the file; a run that is gone on with goes on with it.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        line = json.dumps({"step": trainer.global_step, **validation_metrics(trainer.callback_metrics)})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
