"""fit | validate | test | predict: LightningCLI, with the run folder and the record that every paper shares."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.table import Table
from rich.text import Text

from datamodules.preparation.file_names import printable
from datamodules.sampler import share_of_batch
from experiments.papers import EXPERIMENTS
from experiments.training.arguments import bound_yaml, short_message, unwrapped
from experiments.training.callbacks import (
    FiniteGuard,
    LastCheckpoint,
    MetricsRecord,
    Panels,
    SharedFolder,
    validation_metrics,
)
from experiments.training.checkpoint import CONFIG_KEY, newest_whole, stored_plan
from experiments.training.linked_arguments import innermost, link_arguments
from experiments.training.resuming import (
    SameTraining,
    differences,
    newest_run,
    readable_training_state,
    why_none,
)
from experiments.training.run_folder import (
    Metrics,
    RunFolder,
    choose_folder,
    make_folder,
    resumed_path,
    write_json,
    write_text,
)
from experiments.training.stored_module import Plan, describe
from lightning_modules.components.checkpoint_file import read_checkpoint
from lightning_modules.components.pretrained import a_checkpoint_follows
from renderers.coefficients import Coefficients
from renderers.io.atomic_file import written_atomically
from renderers.io.errors import UserError

COMMANDS = ("fit", "validate", "test", "predict")
WANDB_MODES = {"offline": "offline", "dryrun": "offline", "online": "online", "run": "online", "disabled": "disabled"}


class _ProgressBar(RichProgressBar):
    """Without the logger's version, and without an epoch count where steps are counted."""

    def _get_train_description(self, current_epoch: int) -> str:
        epochs = self.trainer.max_epochs
        return f"Epoch {current_epoch + 1}" + (f"/{epochs}" if epochs and epochs > 0 else "")

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


class CommandLine(LightningCLI):
    """Parses, makes the parts, and runs one command inside its run folder."""

    def __init__(self, args: list[str]) -> None:
        strict = {"exit_on_error": False, "allow_abbrev": False}
        shared = {**strict, "default_config_files": [str(EXPERIMENTS / "shared" / "trainer.yaml")]}
        with contextlib.ExitStack() as self.while_it_runs:
            super().__init__(
                LightningModule,
                LightningDataModule,
                save_config_callback=None,
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                seed_everything_default=0,
                parser_kwargs={"prog": "monoface", **strict, **{name: dict(shared) for name in COMMANDS}},
                args=args,
            )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        skipped = {"model", "datamodule", "weights_only", "verbose", "return_predictions"}
        return {name: skipped | {"train_dataloaders", "val_dataloaders", "dataloaders"} for name in COMMANDS}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--paper", type=str | None, default=None, help="the paper's name, the folder of its runs")
        parser.add_argument("--run_id", type=str | None, default=None, help="the run's folder; by default the time")
        parser.add_argument("--runs_dir", type=str, default="runs", help="where the runs lie")
        parser.add_argument(
            "--wandb",
            type=Literal["offline", "online", "disabled"] | None,
            default=None,
            help="Weights & Biases; by default $WANDB_MODE, or offline",
        )
        parser.add_argument(
            "--resume",
            type=str | None,
            default=None,
            help="go on: `auto` with the newest run of this paper, model, data and seed (or with that of --run_id) if "
            "there is one, or a run by its name or folder, or a checkpoint",
        )
        parser.add_argument(
            "--checkpoint_every", type=int, default=500, help="steps between two checkpoints; 0: validations and epochs"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)
        link_arguments(self.settings.model, self.settings.data)

    @property
    def settings(self) -> Namespace:
        """The chosen command's configuration."""
        settings: Namespace = self.config[self.config.subcommand]
        return settings

    def _parse_ckpt_path(self) -> None:
        """Reads the checkpoint before anything is built; unlike Lightning's own, the command's arguments win."""
        self.resumed: Path | None = None
        self.starts_over = False
        if self.settings.resume:
            self._find_resume()
        given = self.settings.ckpt_path
        if not given:
            return
        self.resumed = Path(given)
        contents = read_checkpoint(self.resumed)
        if CONFIG_KEY in contents:
            for line in differences(stored_plan(contents, self.resumed), self.model_plan()):
                _tell(f"warning: {self.resumed}: {line}; the command's value is used")

    def _find_resume(self) -> None:
        """Puts the checkpoint that `--resume` means into `ckpt_path`; none where `auto` finds nothing to go on with."""
        settings = self.settings
        if settings.ckpt_path:
            raise UserError("--resume and --ckpt_path both say where to go on: give one of them")
        if self.config.subcommand != "fit":
            raise UserError(f"--resume goes on with a training; {self.config.subcommand} takes --ckpt_path")
        automatic = settings.resume == "auto"
        folder: RunFolder | None
        reason = ""
        if not automatic:
            path = resumed_path(settings.resume, Path(settings.runs_dir), str(settings.paper))
            if not path.is_dir():
                settings.ckpt_path = str(path)
                return
            folder = RunFolder(path)
        elif settings.run_id and settings.paper:
            folder = choose_folder(Path(settings.runs_dir), settings.paper, settings.run_id)
            self.starts_over = True
        else:
            runs, wanted = Path(settings.runs_dir) / str(settings.paper), self._comparable(settings)
            folder = newest_run(runs, wanted)
            reason = "" if folder else why_none(runs, wanted)
        found = newest_whole(folder.checkpoints(), _tell) if folder else None
        if found is None and not automatic:
            raise UserError(f"--resume {settings.resume}: there is no checkpoint in it")
        if found is not None:
            settings.ckpt_path, settings.run_id, self.starts_over = str(found), None, False
        if _is_first():
            _tell(f"going on from {found}" if found else f"nothing to go on from yet: a new run{reason}")

    def _comparable(self, settings: Namespace) -> dict[str, Any]:
        """What two runs must have in common for one to go on with the other."""
        dumped = yaml.safe_load(self._parser(self.config.subcommand).dump(settings, skip_unset=False))
        return {name: dumped[name] for name in ("model", "data", "seed_everything")}

    def model_plan(self) -> Plan:
        """What a checkpoint says of the model, with the arguments that follow from the data's."""
        parser = self._parser(self.config.subcommand)
        dumped = yaml.safe_load(parser.dump(self.settings, skip_unset=False, skip_link_targets=False))
        return describe(dumped["model"], "model")

    def before_instantiate_classes(self) -> None:
        settings = self.settings
        if not settings.paper:
            raise UserError("which paper? --paper NAME (every shipped configuration says it)")
        prefix = "" if self.subcommand == "fit" else f"{self.subcommand}-"
        own = RunFolder.of_checkpoint(self.resumed) if self.resumed and self.subcommand == "fit" else None
        self.continues = own is not None and not settings.run_id
        if own is not None and self.continues:
            self.folder = own
        else:
            self.folder = choose_folder(Path(settings.runs_dir), settings.paper, settings.run_id, prefix)
        self.wandb_mode = wandb_mode(settings.wandb)
        self.wandb_run: Any = None
        self.dry = bool(settings.trainer.fast_dev_run)
        # Lightning counts machines only when there is a Trainer.
        first_machine = settings.trainer.num_nodes == 1 or os.environ.get("NODE_RANK", "0") == "0"
        if _is_first() and first_machine and not self.dry:
            self._reserve_folder()

    def _reserve_folder(self) -> None:
        """Makes the run's folder, before anything that takes long, and keeps it for this process."""
        if not self.continues and not (self.starts_over and self.folder.path.is_dir()):
            self.folder = make_folder(self.folder, may_differ=not self.settings.run_id)
        self.while_it_runs.enter_context(self.folder.held())
        if self.starts_over:
            self.folder.clear()  # what was killed before its first checkpoint

    def instantiate_classes(self) -> None:
        with a_checkpoint_follows() if self.resumed else contextlib.nullcontext():
            super().instantiate_classes()

    def _run_subcommand(self, subcommand: str) -> None:
        with readable_training_state(self.resumed):
            super()._run_subcommand(subcommand)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        given = {**self._get(self.config_init, "trainer", default={}), **kwargs}
        own, callbacks = self._callbacks(given), given["callbacks"] or []
        self.keeps_own_logger = given["logger"] in (None, True) and self.subcommand == "fit" and not self.dry
        logger: Any = False if given["logger"] is None else given["logger"]
        if self.keeps_own_logger:
            # Its run is opened later, in a folder that exists by then.
            logger = self.wandb_mode != "disabled" and WandbLogger(project="monoface", save_dir=self.folder.path)
        if logger and not self.dry:
            own.append(LearningRateMonitor())
        arguments = {
            **given,
            "callbacks": [*(callbacks if isinstance(callbacks, list) else [callbacks]), *own],
            "logger": logger,
            "default_root_dir": given["default_root_dir"] or str(self.folder.path),
            # The initial metrics come from a whole validation before training.
            "num_sanity_val_steps": 0,
            # torch has it for CUDA alone.
            "sync_batchnorm": given["sync_batchnorm"] and given["accelerator"] != "cpu" and torch.cuda.is_available(),
            # A metric that is reset in inference mode holds tensors that training's validations may not change.
            "inference_mode": given["inference_mode"] and self.subcommand != "fit",
        }
        trainer = Trainer(**arguments)
        if given["strategy"] == "auto" and isinstance(trainer.strategy, DDPStrategy):
            # Stages, terms that start late and turns of two optimizers leave weights without a gradient for a while.
            trainer = Trainer(**{**arguments, "strategy": "ddp_find_unused_parameters_true"})
        return trainer

    def _callbacks(self, given: dict[str, Any]) -> list[Callback]:
        self.record = MetricsRecord()
        own: list[Callback] = [SharedFolder(self.folder), FiniteGuard(), self.record]
        listed = given["callbacks"] if isinstance(given["callbacks"], list) else [given["callbacks"]]
        if given["enable_progress_bar"] is not False and not any(isinstance(item, ProgressBar) for item in listed):
            own.append(_ProgressBar())
        if self.subcommand == "fit":
            own.append(Panels(None if self.dry else self.folder))
            if self.resumed is not None:
                own.append(SameTraining(self.resumed))
            if given["enable_checkpointing"] is not False and not self.dry:
                own.append(LastCheckpoint(self.folder, self.model_plan(), self.settings.checkpoint_every))
        return own

    def _open_wandb(self) -> None:
        """Starts the W&B run of this folder; never a prompt."""
        import wandb

        try:
            self.wandb_run = wandb.init(
                project="monoface",
                group=self.settings.paper,
                name=f"{self.settings.paper}/{self.folder.path.name}",
                dir=self.folder.path.absolute(),  # its own process may have another current folder
                mode=self.wandb_mode,  # type: ignore[arg-type]
                settings=wandb.Settings(silent=True, console="off", disable_job_creation=True),
            )
        except wandb.errors.Error as error:
            raise UserError(f"W&B: {error} (or stay offline: --wandb offline)") from error
        self.wandb_run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        self.trainer.logger = WandbLogger(
            project="monoface", save_dir=self.folder.path.absolute(), experiment=self.wandb_run
        )

    def fit(self, model: LightningModule, datamodule: LightningDataModule, ckpt_path: str | None = None) -> None:
        """Validates, trains, validates, and leaves the record."""
        if self.dry:
            self.trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
            _tell("fast_dev_run: a batch went through training and validation; nothing was written")
            return
        # Before a whole validation, and not when its first batch is asked for.
        share_of_batch(innermost(self.settings.data).get("init_args", {}).get("batch_size", 0), self.trainer.world_size)
        with self.recorded():
            validates = self.trainer.limit_val_batches != 0
            if validates and ckpt_path is None:
                self.trainer.validate(model, datamodule=datamodule, verbose=False)
                self.record.initial = self.record.latest
                self.write_metrics()
            self.trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
            if validates and self.record.latest_step != self.trainer.global_step:
                self.trainer.validate(model, datamodule=datamodule, verbose=False)
            self.write_metrics(final=self.record.latest or validation_metrics(self.trainer.callback_metrics))
        self.report({"initial": self.record.initial, "final": self.record.latest})

    def validate(self, model: LightningModule, datamodule: LightningDataModule, ckpt_path: str | None = None) -> None:
        """Metrics on the validation part."""
        self._evaluate(self.trainer.validate, model, datamodule, ckpt_path)

    def test(self, model: LightningModule, datamodule: LightningDataModule, ckpt_path: str | None = None) -> None:
        """Metrics on the test part."""
        self._evaluate(self.trainer.test, model, datamodule, ckpt_path)

    def _evaluate(
        self, evaluate: Any, model: LightningModule, datamodule: LightningDataModule, ckpt_path: str | None
    ) -> None:
        if ckpt_path is None:
            _tell("warning: no --ckpt_path: these are the metrics of a network that never learnt anything")
        with self.recorded():
            results = evaluate(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True, verbose=False)
            metrics = {name: float(value) for result in results for name, value in sorted(result.items())}
            if _is_first() and not self.dry:
                write_json(self.folder.metrics, {self.subcommand: metrics})
        self.report({str(self.subcommand): metrics})

    def predict(self, model: LightningModule, datamodule: LightningDataModule, ckpt_path: str | None = None) -> None:
        """Saves what `predict_step` returns (Coefficients, or names and tensors) as one `predictions.npz`."""
        if self.trainer.world_size > 1:
            raise UserError("predict writes one file, from one process: --trainer.devices=1 --trainer.num_nodes=1")
        with self.recorded():
            batches: Any = self.trainer.predict(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
            if not self.dry:
                named = [batch.named() if isinstance(batch, Coefficients) else batch for batch in batches]
                arrays: dict[str, Any] = {
                    name: torch.cat([part[name] for part in named]).cpu().numpy() for name in named[0]
                }
                with written_atomically(self.folder.predictions) as temporary:
                    np.savez(temporary, **arrays)
        self.report({})

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Fills the run's folder; a run that ends before it learnt anything leaves no folder, or the one it found."""
        first = _is_first() and not self.dry
        before = self.folder.config.read_bytes() if first and self.continues else b""
        try:
            if first:
                if self.keeps_own_logger and self.wandb_mode != "disabled":
                    self._open_wandb()
                self.write_config()
            yield
        except BaseException as error:
            self._close_wandb()
            learnt = self.subcommand == "fit" and self.trainer.global_step > 0
            if first and not learnt:
                if self.continues:
                    with written_atomically(self.folder.config) as temporary:
                        temporary.write_bytes(before)
                else:
                    self.folder.clear()
            if isinstance(error, (SIGTERMException, KeyboardInterrupt)) or _was_interrupt(error):
                raise KeyboardInterrupt(self._how_to_resume(learnt)) from None
            raise
        self._close_wandb()

    def write_config(self) -> None:
        """config.yaml: runs the same again under a new RUN_ID, or goes on with it by --ckpt_path."""
        settings = self.settings.clone()
        settings.run_id = settings.ckpt_path = settings.resume = None
        write_text(self.folder.config, self._parser(self.subcommand).dump(settings, skip_unset=False))
        for logger in self.trainer.loggers:
            logger.log_hyperparams(yaml.safe_load(self.folder.config.read_text(encoding="utf-8")))

    def write_metrics(self, final: Metrics | None = None) -> None:
        """metrics.json; `final` only when training has ended."""
        if _is_first():
            parts = {"initial": self.record.initial}
            write_json(self.folder.metrics, parts if final is None else {**parts, "final": final})

    def _close_wandb(self) -> None:
        if self.wandb_run is not None:
            self.wandb_run.finish()

    def _how_to_resume(self, learnt: bool) -> str:
        if not learnt or not self.folder.checkpoint.is_file():
            return "nothing was learnt yet and nothing is left behind; run the same command again"
        paths = f"--config {self.folder.config} --ckpt_path {self.folder.checkpoint}"
        return f"go on with: {_this_python()} -m experiments fit {paths}"

    @rank_zero_only
    def report(self, metrics: dict[str, Metrics]) -> None:
        """The last lines: a table of the metrics, and where everything lies."""
        console = Console(soft_wrap=True)
        names = list(dict.fromkeys(name for column in metrics.values() for name in column))
        if names:
            table = Table("metric", *metrics)
            for name in names:
                cells = (f"{column[name]:.4g}" if name in column else "" for column in metrics.values())
                table.add_row(Text(printable(name)), *cells)
            console.print(table)
        if self.dry:
            return
        places = {
            "run": self.folder.path,
            "config": self.folder.config,
            "metrics": self.folder.metrics,
            "preview": self.folder.preview,
            "predictions": self.folder.predictions,
            "checkpoint": self.folder.checkpoint,
        }
        for name, path in places.items():
            if path.exists():
                console.print(f"{name:<12} {path}", markup=False, highlight=False)
        for path in sorted(self.folder.path.glob("wandb/offline-run-*")):
            console.print(f"{'W&B':<12} {path} (offline; `wandb sync` uploads it)", markup=False, highlight=False)


def wandb_mode(given: str | None) -> str:
    """offline unless the command line, a configuration or $WANDB_MODE says otherwise; never a prompt.

    Raises:
        UserError: a mode that does not exist.
    """
    asked = given or os.environ.get("WANDB_MODE") or "offline"
    if asked not in WANDB_MODES:
        raise UserError(f"WANDB_MODE={asked}: choose offline, online or disabled")
    return WANDB_MODES[asked]


def _this_python() -> str:
    """What a user types for the Python that runs this: a shell's own `python` may be another one."""
    given, here = Path(sys.executable), Path.cwd()
    return str(given.relative_to(here) if given.is_relative_to(here) else given)


def _was_interrupt(error: BaseException) -> bool:
    """Lightning turns Ctrl-C into SystemExit(1)."""
    return isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt)


def _is_first() -> bool:
    """Whether this is the process that writes."""
    return int(getattr(rank_zero_only, "rank", None) or 0) == 0


def _tell(line: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"monoface: {printable(line)}", markup=False, highlight=False)


def _quiet() -> None:
    """Lightning's advertisements and hints for its developers; warnings about the run itself stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for pattern in (
        ".*does not have many workers.*",
        ".*The number of training batches .* is smaller than the logging interval.*",
        ".*LeafSpec.*",
        ".*`isinstance\\(treespec.*",
        ".*You called `self.log\\('val/.*` in your `validation_step` but have no logger.*",
    ):
        warnings.filterwarnings("ignore", message=pattern)


def main(args: list[str]) -> int:
    """Runs `fit`, `validate`, `test` or `predict`.

    Args:
        args: the command and its arguments.

    Returns:
        0.

    Raises:
        UserError: arguments, data or a checkpoint that do not fit.
        KeyboardInterrupt: the run was stopped; its text says how to go on.
    """
    _quiet()
    bound_yaml()
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        CommandLine(args)
    except ArgumentError as error:
        raise UserError(short_message(str(error))) from error
    except MisconfigurationException as error:
        raise UserError(str(error).strip().splitlines()[0]) from error
    except ValueError as error:
        raise unwrapped(error) from None
    finally:
        # Lightning leaves SIGINT ignored after an interrupt.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, on_interrupt)
    return 0
