"""`python -m experiments launch dashboard PAPER`: tools for many runs. The launchers lie beside this file."""

from __future__ import annotations

import argparse
import json

from experiments.commands.launch.account import account_entity


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    dashboard = kinds.add_parser(
        "dashboard",
        help="a paper's workspace on W&B: its terms, metrics, pictures and ablation table",
        description="Makes a workspace for a paper's runs on W&B: a panel for every term and metric that it logs, its "
        "pictures, and its ablation table where experiments/PAPER/table.json has one.",
    )
    dashboard.add_argument("paper", help="a folder of experiments/ that has a default.yaml, by name or by path")
    dashboard.add_argument("--entity", help="the user or team that it is for (default: $WANDB_ENTITY, or the account)")
    dashboard.add_argument("--project", default="monoface", help="the W&B project of the runs (default monoface)")
    dashboard.add_argument("--dry-run", action="store_true", help="print what would be sent, as JSON; needs no account")
    dashboard.set_defaults(launch=_dashboard)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; 0 when it is done, else a UserError says why not."""
    arguments.launch(arguments)
    return 0


def _dashboard(arguments: argparse.Namespace) -> None:
    from experiments.commands.launch.dashboard import as_sent, make_workspace, save

    if arguments.dry_run:
        workspace = make_workspace(arguments.paper, arguments.entity or "ENTITY", arguments.project)
        print(json.dumps(as_sent(workspace), indent=2))
        return
    entity = account_entity("--dry-run prints it without one", arguments.entity)
    workspace = make_workspace(arguments.paper, entity, arguments.project)
    print(f"dashboard    {save(workspace)}")
