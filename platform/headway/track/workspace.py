"""A saved workspace and a report on W&B for the runs of a recipe or of a sweep, made with `wandb-workspaces`.

Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headway.config.errors import UserError
from headway.track.wandb_server import NoAnswer, WandbServer, known_project, quiet_wandb

_CURVES = {
    "Losses": ["train/loss", "val/loss"],
    "Learning rate": ["train/lr"],
    "Gradient norm": ["train/grad_norm"],
    "Samples a second": ["perf/samples_per_s"],
}
_MEDIA = ["misclassified", "predictions", "generated", "attention", "first-filters", "gradient-flow"]


@dataclass(frozen=True)
class Subject:
    """What a workspace and a report are about."""

    name: str
    project: str
    entity: str
    group: str | None
    """Only runs of this group; None for all of the project."""
    monitor: str
    """The metric that decides which run is the best."""
    higher_is_better: bool
    hyperparameters: Mapping[str, bool]
    """What the sweep varies, and whether on a logarithmic scale; none where there is no sweep."""


@dataclass(frozen=True)
class Saved:
    """Where a workspace and a report are."""

    workspace: str
    report: str


def subject_of(
    name: str, tree: Mapping[str, Any], hyperparameters: Mapping[str, bool], *, entity: str, group: str | None
) -> Subject:
    """Returns what is shown of a recipe.

    Args:
        name: the recipe's or the sweep's.
        tree: the resolved recipe.
        hyperparameters: what a sweep varies, and whether on a logarithmic scale.
        entity: W&B user or team, where the recipe names none.
        group: only runs of this group.
    """
    track, trainer, search = tree.get("track") or {}, tree.get("trainer") or {}, tree.get("sweep") or {}
    monitor = search.get("metric") or trainer.get("monitor") or "val/loss"
    mode = search.get("mode") or trainer.get("monitor_mode") or "min"
    project = known_project(track.get("project"))
    return Subject(name, project, track.get("entity") or entity, group, monitor, mode == "max", hyperparameters)


def rendered(subject: Subject) -> dict[str, Any]:
    """Returns what would be sent, as plain values: the specifications of the workspace and of the report."""
    workspace, report = _workspace(subject)._to_model(), _report(subject)._to_model()
    return {
        "workspace": json.loads(workspace.spec.model_dump_json(by_alias=True, exclude_none=True)),
        "report": json.loads(report.spec.model_dump_json(by_alias=True, exclude_none=True)),
    }


def save(subject: Subject, server: WandbServer) -> Saved:
    """Saves a workspace and a report on a server and returns where they are.

    Raises:
        UserError: the server does not take them.
    """
    wandb = quiet_wandb()
    if problem := server.why_not(within_s=10):
        raise UserError(f"W&B: {problem}")
    try:
        workspace = _workspace(subject).save()
        report = _report(subject).save()
    except (wandb.errors.Error, NoAnswer, ValueError) as error:
        raise UserError(f"W&B did not take it: {error}") from None
    return Saved(workspace.url, report.url)


def _workspace(subject: Subject) -> Any:
    import wandb_workspaces.workspaces as ws

    sections = [ws.Section(name=name, panels=panels, is_open=True) for name, panels in _panels(subject)]
    filters = [ws.Metric("Group") == subject.group] if subject.group else []
    return ws.Workspace(
        entity=subject.entity,
        project=subject.project,
        name=f"headway {subject.name}",
        sections=sections,
        runset_settings=ws.RunsetSettings(filters=filters),
    )


def _report(subject: Subject) -> Any:
    import wandb_workspaces.reports.v2 as wr

    filters = f"Metric('Group') == '{subject.group}'" if subject.group else ""
    blocks: list[Any] = [wr.TableOfContents()]
    for name, panels in _panels(subject):
        # Of the report's own project, which is then not looked up.
        runs = wr.Runset(name=subject.name, filters=filters)
        blocks += [wr.H2(text=name), wr.PanelGrid(runsets=[runs], panels=panels)]
    return wr.Report(
        project=subject.project,
        entity=subject.entity,
        title=f"headway {subject.name}"[:128],
        description=f"Curves, gradient flow{' and the search' if subject.hyperparameters else ''} of {subject.name}.",
        blocks=blocks,
        width="fluid",
    )


def _panels(subject: Subject) -> list[tuple[str, list[Any]]]:
    """Returns the panels by section."""
    import wandb_workspaces.reports.v2 as wr

    curves = dict(_CURVES)
    if subject.monitor not in curves["Losses"]:
        curves = {subject.monitor: [subject.monitor], **curves}
    sections = [("Curves", [wr.LinePlot(title=title, x="step", y=names) for title, names in curves.items()])]
    if subject.hyperparameters:
        best = f"best/{subject.monitor}"
        sections.append(
            (
                "Search",
                [
                    wr.ParallelCoordinatesPlot(title=best, columns=[*_columns(subject.hyperparameters), _best(best)]),
                    wr.ParameterImportancePlot(with_respect_to=best),
                ],
            )
        )
    health = {
        "Gradient norm by layer": "health/.*/grad_norm",
        "Update to weight by layer": "health/.*/update_ratio",
        "Activations by layer": "health/.*/activation_.*",
    }
    flow: list[Any] = [
        wr.LinePlot(title=title, x="step", metric_regex=names, log_y=True) for title, names in health.items()
    ]
    flow.append(wr.MediaBrowser(title="Heat-map", media_keys=["media/gradient-flow"]))
    sections.append(("Gradient flow", flow))
    media = [wr.MediaBrowser(title=name, media_keys=[f"media/{name}"]) for name in _MEDIA[:-1]]
    return [*sections, ("What the nets do", media)]


def _best(metric: str) -> Any:
    import wandb_workspaces.reports.v2 as wr

    return wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(metric))


def _columns(hyperparameters: Mapping[str, bool]) -> Sequence[Any]:
    """Returns an axis for each hyperparameter.

    The package takes a dot for a step into a nested config; a run of ours has the dot in the name.
    """
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces.reports.v2 import internal

    class Dotted(wr.ParallelCoordinatesPlotColumn):  # type: ignore[misc]  # the package's classes are untyped here
        def _to_model(self) -> Any:
            return internal.Column(accessor=f"config:{self.display_name}.value", log=self.log)

    return [
        Dotted(metric=wr.Config(name), display_name=name, log=logarithmic)
        for name, logarithmic in hyperparameters.items()
    ]
