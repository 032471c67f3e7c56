"""The W&B workspace of a paper, made from what its module says that it logs."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule
from torch import nn

from experiments.commands import table
from experiments.papers import paper_folder
from experiments.training.plain_yaml import read_yaml
from experiments.training.run_folder import read_json
from lightning_modules.components.evaluation import NamedMetrics
from lightning_modules.components.weighting import Weights
from renderers.io.errors import UserError

STEP = "trainer/global_step"
"""The axis that `fit` logs everything over."""
PICTURES = "panels"
"""The key of the pictures that `Panels` logs."""


@dataclass(frozen=True)
class Names:
    """What a paper logs, without the stage.

    Attributes:
        terms: of its loss.
        metrics: of a validation.
    """

    terms: tuple[str, ...]
    metrics: tuple[str, ...]

    def panels(self) -> dict[str, tuple[str, ...]]:
        """Metrics by the title of their panel. A metric of several faces or stages has one panel for all of them."""
        grouped: dict[str, list[str]] = {}
        for name in self.metrics:
            # `occluded/coarse_psnr`, `fine_psnr` and `psnr` are one measure of three faces.
            grouped.setdefault(re.sub(r"^(.*/)?(coarse_|fine_)?", "", name), []).append(name)
        return {title: tuple(names) for title, names in grouped.items()}


def logged_names(module: nn.Module) -> Names:
    """The names that a paper logs: the terms of its `Weights` classes, and the metrics of its parts."""
    weights = [value for value in vars(module).values() if isinstance(value, Weights)]
    terms = [name for value in weights for name in value.terms()]
    metrics = [name for part in module.children() if isinstance(part, NamedMetrics) for name, _ in part.named()]
    return Names(tuple(dict.fromkeys(terms)), tuple(dict.fromkeys(metrics)))


def load_default(folder: Path) -> LightningModule:
    """The untrained module of a paper's default.yaml."""
    section = read_yaml(folder / "default.yaml")["model"]
    given = section.get("init_args", {})
    for name, value in given.items():
        if isinstance(value, str) and (folder / value).is_file():
            given[name] = str((folder / value).resolve())
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model")
    module = parser.instantiate(parser.parse_object({"model": section})).model
    assert isinstance(module, LightningModule)
    return module


def packages() -> tuple[ModuleType, ModuleType, ModuleType]:
    """wandb_workspaces: its workspaces, its panels and its filters.

    Raises:
        UserError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It still uses pydantic's older validators.
            import wandb_workspaces.expr as filters
            import wandb_workspaces.reports.v2 as panels
            import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise UserError(f"dashboard: {error}: install the launch extra, pip install -e '.[launch]'") from error
    return workspaces, panels, filters


def make_workspace(paper: str, entity: str, project: str) -> Any:
    """A `wandb_workspaces.workspaces.Workspace` for the runs of a paper.

    Args:
        paper: a folder of experiments/, by name or by path.
        entity: the user or team.
        project: where `fit` logs to.

    Raises:
        UserError: no such paper, or the package is not installed.
    """
    folder = paper_folder(paper, "default.yaml")
    workspaces, panels, filters = packages()
    names = logged_names(load_default(folder))

    def section(name: str, lines: Sequence[tuple[str, tuple[str, ...]]]) -> Any:
        drawn = [panels.LinePlot(title=title, x=STEP, y=list(keys)) for title, keys in lines]
        return workspaces.Section(name=name, panels=drawn, is_open=True)

    sections = [
        workspaces.Section(name="Pictures", panels=[panels.MediaBrowser(media_keys=[PICTURES])], is_open=True),
        section("Metrics", [(t, tuple(f"val/{name}" for name in keys)) for t, keys in names.panels().items()]),
        section("Terms of the loss", [(name, (f"train/{name}", f"val/{name}")) for name in ("loss", *names.terms)]),
    ]
    ablation = ablation_table(folder)
    if ablation:
        told = panels.MarkdownPanel(markdown=ablation, layout=panels.Layout(w=24, h=12))
        sections.append(workspaces.Section(name="Ablation table", panels=[told], is_open=True))
    return workspaces.Workspace(
        name=f"monoface {folder.name}",
        entity=entity,
        project=project,
        sections=sections,
        settings=workspaces.WorkspaceSettings(x_axis=STEP),
        # `fit` puts its runs into a group of the paper's name.
        runset_settings=workspaces.RunsetSettings(filters=filters.And(filters.Metric("Group") == folder.name)),
    )


def ablation_table(folder: Path) -> str:
    """table.json of a paper as Markdown, in the parts of its table.yaml; empty where there is none yet."""
    measured = read_json(folder / "table.json")
    return table.markdown(measured, table.read_spec(str(folder)).parts) if measured else ""


def as_sent(workspace: Any) -> dict[str, Any]:
    """What `save` would send, by the names that W&B gives it."""
    sent: dict[str, Any] = json.loads(workspace._to_model().model_dump_json(by_alias=True, exclude_none=True))
    return sent


def save(workspace: Any) -> str:
    """Makes the workspace on W&B and returns its address.

    Raises:
        UserError: W&B cannot be reached, or refuses it.
    """
    import wandb

    try:
        return str(workspace.save().url)
    except (wandb.errors.Error, OSError) as error:
        raise UserError(f"W&B: {' '.join(str(error).split())} (--dry-run prints it without W&B)") from error
