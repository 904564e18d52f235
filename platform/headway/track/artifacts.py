"""What W&B gets of a run as artifacts: the code and recipe that made it, and its checkpoints where that is asked for.

Artifacts of an offline run are uploaded from the files in the run folder; `headway sync` finds them where that was
copied to. Imports no torch.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from headway.run import RunFolder
from headway.track.source import code_patch


def log_code(wandb_run: Any, run: RunFolder) -> None:
    """Logs the resolved recipe, the manifest, and what git's commit lacks of the code, as they are at this start."""
    import wandb

    folder = Path(wandb_run.dir).parent / "code"
    folder.mkdir(exist_ok=True)
    for name in ("recipe.yaml", "manifest.json"):
        if (run.path / name).is_file():
            shutil.copyfile(run.path / name, folder / name)
    patch = code_patch(Path.cwd())
    if patch:
        (folder / "code.patch").write_text(patch)
    artifact = wandb.Artifact(f"{run.id}-code", "code", metadata=_commit(run))
    for file in sorted(folder.iterdir()):
        artifact.add_file(str(file), policy="immutable")
    wandb_run.log_artifact(artifact)


def log_checkpoints(wandb_run: Any, run: RunFolder) -> None:
    """Logs the best and the newest checkpoint; one artifact where they are the same."""
    import wandb

    status = run.status()
    best, newest = (status.get("best") or {}).get("step"), status.get("checkpoint")
    for step in sorted({step for step in (best, newest) if step is not None}):
        folder = run.checkpoints / f"{step:08d}"
        if not folder.is_dir():
            continue
        metadata = {"step": step} | (status["best"]["metrics"] if step == best else {})
        artifact = wandb.Artifact(f"{run.id}-checkpoint", "model", metadata=metadata)
        for file in sorted(path for path in folder.iterdir() if path.is_file()):
            artifact.add_file(str(file), policy="immutable")
        aliases = [name for name, place in (("best", best), ("latest", newest)) if place == step]
        wandb_run.log_artifact(artifact, aliases=aliases)


def _commit(run: RunFolder) -> dict[str, Any]:
    code = run.read_json("manifest.json").get("code") or {}
    return {name: code[name] for name in ("commit", "dirty") if name in code}
