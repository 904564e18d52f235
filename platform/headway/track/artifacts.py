"""What W&B gets of a run as artifacts: the code and recipe that made it, and its checkpoints where that is asked for.

Artifacts of an offline run are uploaded from the files in the run folder; `headway sync` finds them where that was
copied to. Imports no torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.run import RunFolder
from headway.track.source import code_patch


def log_code(wandb_run: Any, run: RunFolder) -> None:
    """Logs the resolved recipe, the manifest, and what git's commit lacks of the code, as they are at this start."""
    folder = Path(wandb_run.dir).parent / "code"
    folder.mkdir(exist_ok=True)
    for name in ("recipe.yaml", "manifest.json"):
        if (run.path / name).is_file():
            shutil.copyfile(run.path / name, folder / name)
    patch = code_patch(Path.cwd())
    if patch:
        (folder / "code.patch").write_text(patch)
    log_code_in(wandb_run, run, folder)


def log_code_in(wandb_run: Any, run: RunFolder, folder: Path) -> None:
    """Logs code and recipe that were laid out before."""
    import wandb

    artifact = wandb.Artifact(f"{run.id}-code", "code", metadata=_commit(run))
    for file in sorted(folder.iterdir()):
        artifact.add_file(str(file), policy="immutable")
    wandb_run.log_artifact(artifact)


def best_of(run: RunFolder) -> dict[str, Any]:
    """Returns a run's best validation as its summary has it: `best/step`, `best/val/loss`."""
    best = run.status().get("best") or {}
    if not best:
        return {}
    return {"best/step": best["step"]} | {f"best/{name}": value for name, value in best.get("metrics", {}).items()}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as W&B knows it."""

    step: int
    aliases: tuple[str, ...]
    """`best` and `latest`, in that order; both where they are the same."""


def newest_checkpoints(run: RunFolder) -> list[Checkpoint]:
    """Returns the best and the newest checkpoint of those that are there."""
    status = run.status()
    best, newest = (status.get("best") or {}).get("step"), status.get("checkpoint")
    found = []
    for step in sorted({step for step in (best, newest) if step is not None}):
        if (run.checkpoints / f"{step:08d}").is_dir():
            aliases = [name for name, place in (("best", best), ("latest", newest)) if place == step]
            found.append(Checkpoint(step, tuple(aliases)))
    return found


def log_checkpoints(wandb_run: Any, run: RunFolder, checkpoints: Sequence[Checkpoint] | None = None) -> None:
    """Logs checkpoints; the best and the newest where none are named."""
    import wandb

    for checkpoint in newest_checkpoints(run) if checkpoints is None else checkpoints:
        metrics = run.status()["best"]["metrics"] if "best" in checkpoint.aliases else {}
        artifact = wandb.Artifact(f"{run.id}-checkpoint", "model", metadata={"step": checkpoint.step, **metrics})
        folder = run.checkpoints / f"{checkpoint.step:08d}"
        for file in sorted(path for path in folder.iterdir() if path.is_file()):
            artifact.add_file(str(file), policy="immutable")
        wandb_run.log_artifact(artifact, aliases=list(checkpoint.aliases))


def _commit(run: RunFolder) -> dict[str, Any]:
    code = run.read_json("manifest.json").get("code") or {}
    return {name: code[name] for name in ("commit", "dirty") if name in code}
