"""The dashboard: a panel for all that a paper logs, in the package's own types, and in what a run offline holds."""

from __future__ import annotations

import json
import re
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.__main__ import main
from experiments.commands.launch import dashboard
from experiments.commands.launch.dashboard import Names, as_sent, make_workspace, packages
from renderers.io.cache import cache_dir
from renderers.io.errors import UserError

ROOT = Path(__file__).parents[3]
PAPERS = sorted(path.parent.name for path in ROOT.glob("experiments/*/default.yaml"))


@pytest.fixture(scope="module")
def workspaces() -> dict[str, Any]:
    return {paper: make_workspace(paper, "team", "monoface") for paper in PAPERS}


def lines(sent: dict[str, Any], section: str) -> dict[str, list[str]]:
    """The keys of every line plot of a section, by its title."""
    (found,) = [part for part in sections(sent) if part["name"] == section]
    return {panel["config"]["chartTitle"]: panel["config"]["metrics"] for panel in found["panels"]}


def sections(sent: dict[str, Any]) -> list[dict[str, Any]]:
    return list(sent["spec"]["section"]["panelBankConfig"]["sections"])


@pytest.mark.parametrize("paper", PAPERS)
def test_every_term_and_metric_has_its_panel(paper: str, workspaces: dict[str, Any]) -> None:
    """What the paper's table measures, and what its configurations weigh, is what the panels show."""
    sent = as_sent(workspaces[paper])
    shown = {key for keys in lines(sent, "Metrics").values() for key in keys}
    assert {"val/nme", "val/psnr", "val/vertex_rmse_mm", "val/identity_similarity"} <= shown
    assert set(yaml.safe_load((ROOT / f"experiments/{paper}/table.yaml").read_text())["metrics"]) <= shown
    terms = lines(sent, "Terms of the loss")
    model = yaml.safe_load((ROOT / f"experiments/{paper}/default.yaml").read_text())["model"]["init_args"]
    inside = {"both", "eyes", "normals", "variation"}  # factors within a term
    weighed = {
        f"fine_{name}" if part == "fine" and name in ("photometric", "identity") else name
        for part in ("weights", "coarse_weights", "coarse", "fine")
        for name in model.get(part, {})
        if not name.startswith("prior_") and name not in inside
    }
    assert weighed and weighed <= set(terms)
    assert all(keys == [f"train/{term}", f"val/{term}"] for term, keys in terms.items())
    assert not any(name.startswith("prior_") for name in terms)


@pytest.mark.parametrize("paper", PAPERS)
def test_what_is_sent_is_what_the_package_reads_back(paper: str, workspaces: dict[str, Any]) -> None:
    workspace = workspaces[paper]
    sent = as_sent(workspace)
    model = type(workspace._to_model())
    again = as_sent(type(workspace)._from_model(model.model_validate(json.loads(json.dumps(sent)))))
    assert sections(again) == sections(sent)
    (runs,) = sent["spec"]["section"]["runSets"]
    (condition,) = runs["filters"]["filters"]
    assert (condition["key"]["name"], condition["op"], condition["value"]) == ("group", "=", paper)
    assert again["spec"]["section"]["runSets"][0]["filters"] == runs["filters"]
    assert sent["entity"] == "team" and sent["project"] == "monoface" and sent["displayName"] == f"monoface {paper}"


def test_the_ablation_table_is_the_papers(workspaces: dict[str, Any]) -> None:
    for paper in PAPERS:
        path = ROOT / f"experiments/{paper}/table.json"
        found = [part for part in sections(as_sent(workspaces[paper])) if part["name"] == "Ablation table"]
        assert len(found) == path.is_file()
        if found:
            (panel,) = found[0]["panels"]
            text = panel["config"]["value"]
            for row in json.loads(path.read_text())["rows"]:
                assert f"| {row['name']} |" in text


def test_measures_of_several_faces_share_a_panel() -> None:
    names = Names((), ("psnr", "coarse_psnr", "fine_psnr", "occluded/fine_psnr", "nme", "noisy/nme", "depth_error_mm"))
    assert names.panels() == {
        "psnr": ("psnr", "coarse_psnr", "fine_psnr", "occluded/fine_psnr"),
        "nme": ("nme", "noisy/nme"),
        "depth_error_mm": ("depth_error_mm",),
    }


def test_a_dry_run_prints_it_and_needs_no_account(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert main(["launch", "dashboard", "mgcnet", "--dry-run", "--project", "mine"]) == 0
    sent = json.loads(capsys.readouterr().out)
    assert sent["project"] == "mine"
    assert [part["name"] for part in sections(sent)][:3] == ["Pictures", "Metrics", "Terms of the loss"]


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["launch", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_without_an_account_or_a_network_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_ENTITY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "wandb login" in complaint(capsys, "dashboard", "mgcnet")
    # `wandb login` writes the key here.
    host = re.sub(r"https?://", "", wandb.setup().settings.base_url)
    (tmp_path / ".netrc").write_text(f"machine {host}\n  login user\n  password {'0' * 40}\n")

    def unreachable() -> None:
        raise wandb.errors.CommError("no route\nto host")

    monkeypatch.setattr(wandb, "Api", unreachable)
    assert "W&B: no route to host (--dry-run" in complaint(capsys, "dashboard", "mgcnet")
    assert "no default.yaml there; papers with one: finegrained, mgcnet" in complaint(
        capsys, "dashboard", "nobody", "--dry-run"
    )
    assert "the following arguments are required: KIND" in complaint(capsys)


def test_saving_sends_the_workspace(workspaces: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb
    from wandb_workspaces.workspaces import internal

    sent = []

    def upsert(view: Any) -> dict[str, Any]:
        sent.append(view.model_dump(by_alias=True, exclude_none=True))
        return {"upsertView": {"view": {"name": "nw-abc-v", "id": "1"}}}

    monkeypatch.setattr(internal, "upsert_view2", upsert)
    monkeypatch.setattr(dashboard.packages()[0].Workspace, "url", "https://wandb.example/team/monoface?nw=abc")
    assert dashboard.save(workspaces["mgcnet"]) == "https://wandb.example/team/monoface?nw=abc"
    assert sent[0]["entity"] == "team" and sent[0]["name"].startswith("nw-")

    def refused(view: Any) -> None:
        raise wandb.errors.CommError("permission denied")

    monkeypatch.setattr(internal, "upsert_view2", refused)
    with pytest.raises(UserError, match="permission denied"):
        dashboard.save(workspaces["mgcnet"])


def test_the_package_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.delitem(sys.modules, "wandb_workspaces.workspaces", raising=False)
    with pytest.raises(UserError, match="install the launch extra"):
        packages()


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a .wandb file: a header of 7 bytes, then LevelDB's log format in blocks of 32 KiB."""
    contents = path.read_bytes()
    assert contents[:4] in (b":W&B", b"")
    place, held = 7, b""
    while place + 7 <= len(contents):
        left = 32768 - place % 32768
        if left < 7:
            place += left  # padding: a part's head never spans two blocks
            continue
        _, length, kind = struct.unpack("<IHB", contents[place : place + 7])
        part = contents[place + 7 : place + 7 + length]
        if kind == 0 or len(part) < length:
            return
        held = part if kind in (1, 2) else held + part
        if kind in (1, 4):
            yield held
        place += 7 + length


def read_keys(folder: Path, wanted: str) -> dict[str, Any]:
    """All that a run offline logged, by key, a picture's parts as `KEY/PART`.

    It waits until W&B's own process has written `wanted`.
    """
    from wandb.proto import wandb_internal_pb2

    deadline = time.monotonic() + 30
    while True:
        found: dict[str, Any] = {}
        for data in (data for path in folder.glob("run-*.wandb") for data in read_records(path)):
            record = wandb_internal_pb2.Record.FromString(data)
            if record.HasField("run"):
                found["group"] = record.run.run_group
            for item in record.history.item:
                found["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
        if wanted in found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def test_a_run_offline_holds_what_every_panel_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workspaces: dict[str, Any]
) -> None:
    """A real run of two steps with every term on, read back from its .wandb file."""
    (tmp_path / "cache").mkdir()
    for model_file in (path for path in cache_dir().glob("*") if path.is_file()):
        (tmp_path / "cache" / model_file.name).symlink_to(model_file)
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    little = [
        *("--trainer.max_steps=2", "--trainer.val_check_interval=2", "--trainer.log_every_n_steps=1"),
        *("--data.init_args.batch_size=1", "--data.init_args.train_faces=2", "--data.init_args.val_faces=1"),
        *("--data.init_args.size=32", "--model.init_args.multi_view_start=0", "--model.init_args.identity_start=0"),
    ]
    command = ["fit", "--config", str(ROOT / "experiments/mgcnet/default.yaml"), "--wandb=offline", *little]
    # A whole path: W&B's own process may have been started by another test, in another folder.
    assert main([*command, "--runs_dir", str(tmp_path / "runs"), "--run_id=a"]) == 0
    (folder,) = (tmp_path / "runs/mgcnet/a/wandb").glob("offline-run-*")
    held = read_keys(folder, "val/loss")
    sent = as_sent(workspaces["mgcnet"])
    for section in ("Metrics", "Terms of the loss"):
        for title, keys in lines(sent, section).items():
            assert set(keys) <= set(held), title
    (pictures,) = sections(sent)[0]["panels"]
    (key,) = pictures["config"]["mediaKeys"]
    (path,) = held[f"{key}/filenames"]
    assert (folder / "files" / path).is_file()
    assert held["group"] == "mgcnet"
    assert "trainer/global_step" in held
    # Nothing that is logged is without a panel.
    drawn = [lines(sent, section) for section in ("Metrics", "Terms of the loss")]
    shown = {name for panels in drawn for keys in panels.values() for name in keys}
    assert {name for name in held if name.startswith(("train/", "val/"))} <= shown
