"""`experiments/PAPER/sweep.yaml`: a sweep in the schema of W&B, and the commands that it draws."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.papers import EXPERIMENTS, paper_folder
from experiments.training.plain_yaml import read_yaml
from renderers.io.errors import UserError

ARGUMENTS = "${args}"
"""Stands in a command for what was drawn, as `--name=value`."""

Parameters = dict[str, Any]


@dataclass(frozen=True)
class SweepSpec:
    """What `sweep.yaml` says.

    Attributes:
        folder: where it lies, `experiments/PAPER`.
        tree: the whole file.
        words: `fit` and its arguments, `${args}` among them.
        config: the configuration that every run starts from.
    """

    folder: Path
    tree: Mapping[str, Any]
    words: tuple[str, ...]
    config: Path

    @property
    def paper(self) -> str:
        return self.folder.name

    @property
    def metric(self) -> str:
        """The name in the runs' `metrics.json`."""
        return str(self.tree["metric"]["name"])

    @property
    def maximizes(self) -> bool:
        """Whether more of the metric is better."""
        return bool(self.tree["metric"].get("goal") == "maximize")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of what is drawn: arguments of `fit`."""
        return tuple(self.tree["parameters"])

    def command(self, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """`fit` and its arguments with the drawn ones in their place."""
        drawn = [f"--{name}={value}" for name, value in parameters.items()]
        return tuple(part for word in self.words for part in (drawn if word == ARGUMENTS else [word]))

    def value(self, metrics: Mapping[str, float | None]) -> float | None:
        """The metric among those of a run; None where it is not there or not finite."""
        return metrics.get(self.metric)


def read_spec(paper: str) -> SweepSpec:
    """experiments/PAPER/sweep.yaml, by the paper's name or its folder.

    Raises:
        UserError: there is none, it is not in the schema, or its command is not `... -m experiments fit ... ${args}`
            with a configuration that is there.
    """
    folder = paper_folder(paper, "sweep.yaml")
    path = folder / "sweep.yaml"
    tree = read_yaml(path)
    if not isinstance(tree, dict) or not {"command", "metric", "parameters", "project"} <= set(tree):
        raise UserError(f"{path}: expected the keys project, command, metric and parameters")
    try:
        wrong = engine().schema_violations_from_proposed_config(tree)
    except ValueError as error:
        wrong = [str(error)]
    if wrong:
        raise UserError(f"{path}: {'; '.join(' '.join(str(line).split()) for line in wrong)}")
    command = [str(word) for word in tree["command"]]
    words = command[command.index("fit") :] if "fit" in command else []
    configs = [word.removeprefix("--config=") for word in words if word.startswith("--config=")]
    if ARGUMENTS not in words or len(configs) != 1:
        raise UserError(f"{path}: command: expected ... -m experiments fit --config=FILE ... {ARGUMENTS}")
    # Relative to the folder that W&B's agent is started in, the one above `experiments`.
    config = EXPERIMENTS.parent / configs[0]
    words = [f"--config={config}" if word.startswith("--config=") else word for word in words]
    if not config.is_file():
        raise UserError(f"{path}: {config}: no such file")
    return SweepSpec(folder, tree, tuple(words), config)


def engine() -> ModuleType:
    """W&B's own search engine, the package `sweeps`.

    Raises:
        UserError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It is written for an older pydantic, and works with this one.
            import sweeps
    except ImportError as error:
        raise UserError(f"sweep: {error}: install the launch extra, pip install -e '.[launch]'") from error
    return sweeps


def draw(spec: SweepSpec, earlier: Sequence[Any]) -> Parameters | None:
    """The parameters of the next run; the same for the same earlier ones.

    Args:
        spec: of the sweep.
        earlier: a `sweeps.SweepRun` of every run so far.

    Returns:
        A value for each name, floats with four digits; None when a grid is used up.
    """
    import numpy as np

    # The engine draws from the two global generators.
    random.seed(len(earlier))
    np.random.seed(len(earlier))  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The Gaussian process of the Bayesian search finds its bounds.
        drawn = engine().next_run(dict(spec.tree), list(earlier))
    if drawn is None:
        return None
    return {name: _plain(part["value"]) for name, part in drawn.config.items()}


def _plain(value: Any) -> Any:
    """A Python value of a NumPy one, with as many digits as anybody wants to type."""
    value = value.item() if hasattr(value, "item") else value
    return float(f"{value:.4g}") if isinstance(value, float) else value
