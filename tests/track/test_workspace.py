"""`headway wandb-workspace`: what is saved, through the real `wandb-workspaces` and a fake server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_wandb import FakeWandb

from headway.cli import run as headway
from headway.recipe import load_recipe

# wandb-workspaces 0.4 declares its models as pydantic 1 wanted it.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:pydantic", "ignore::DeprecationWarning:wandb_workspaces"
)

SWEEP = {
    "space": {"optim.lr": {"loguniform": [1e-4, 1e-1]}, "init.gain": {"choice": [0.5, 1.0]}},
    "trials": 4,
    "metric": "val/accuracy",
    "mode": "max",
}


@pytest.fixture
def sweep(tiny_mlp: dict[str, Any], tmp_path: Path) -> Path:
    """Returns the folder of runs in which a sweep lies."""
    tree = {**tiny_mlp, "init": {"kind": "orthogonal"}, "track": {"project": "school"}, "sweep": SWEEP}
    folder = tmp_path / "runs" / "search"
    folder.mkdir(parents=True)
    (folder / "sweep.yaml").write_text(load_recipe(tree).yaml())
    return tmp_path / "runs"


def panels(view: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the panels of a workspace's or a report's specification."""
    if "blocks" not in view:
        return [panel for part in view["section"]["panelBankConfig"]["sections"] for panel in part["panels"]]
    grids = [block["metadata"] for block in view["blocks"] if block["type"] == "panel-grid"]
    return [panel for grid in grids for panel in grid["panelBankSectionConfig"]["panels"]]


def test_a_sweep_gets_a_workspace_and_a_report_of_its_trials(sweep, server: FakeWandb, capsys) -> None:
    assert headway(["wandb-workspace", "search", "--runs", str(sweep), "--json"]) == 0
    saved = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert saved["workspace"].startswith(f"{server.url}/local/school?nw=")
    assert saved["report"].startswith(f"{server.url}/local/school/reports/")
    workspace, report = server.views
    assert (workspace["displayName"], report["displayName"]) == ("headway search", "headway search")
    assert {view["projectName"] for view in server.views} == {"school"}
    for view in server.views:
        kinds = {panel["viewType"] for panel in panels(view["spec"])}
        assert {"Run History Line Plot", "Parallel Coordinates Plot", "Parameter Importance", "Media Browser"} <= kinds
        (parallel,) = [panel for panel in panels(view["spec"]) if panel["viewType"] == "Parallel Coordinates Plot"]
        columns = {column["accessor"]: column.get("log", False) for column in parallel["config"]["columns"]}
        assert columns == {
            "config:optim.lr.value": True,
            "config:init.gain.value": False,
            "summary:best/val/accuracy": False,
        }
        lines = [panel["config"] for panel in panels(view["spec"]) if panel["viewType"] == "Run History Line Plot"]
        assert "health/.*/grad_norm" in [line.get("metricRegex") for line in lines]
        assert "search" in json.dumps(view["spec"])


def test_a_dry_run_prints_what_would_be_sent_and_asks_nobody(sweep, monkeypatch, capsys) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert headway(["wandb-workspace", "search", "--runs", str(sweep), "--dry-run"]) == 0
    sent = json.loads(capsys.readouterr().out)
    assert set(sent) == {"workspace", "report"}
    assert len(panels(sent["workspace"])) == len(panels(sent["report"])) > 5


def test_a_recipe_without_a_sweep_has_no_search(recipe_file, server, capsys) -> None:
    assert headway(["wandb-workspace", str(recipe_file), "track.project=mine", "--dry-run"]) == 0
    sent = json.loads(capsys.readouterr().out)
    kinds = {panel["viewType"] for panel in panels(sent["workspace"])}
    assert "Run History Line Plot" in kinds
    assert "Parallel Coordinates Plot" not in kinds
    assert yaml.safe_load(recipe_file.read_text())["name"] in json.dumps(sent)


def test_a_server_that_is_not_there_is_one_line(sweep, server, capsys) -> None:
    server.stop()
    assert headway(["wandb-workspace", "search", "--runs", str(sweep)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be reached" in line
