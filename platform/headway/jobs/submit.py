"""`headway submit`: recipe x profile -> a job that has been sent, and its record.

    check -> ship -> render -> record -> send -> note the launcher's id

What is wrong with a recipe or a profile is said before anything is written or sent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from headway.config.contracts import Place
from headway.config.errors import UserError
from headway.config.overrides import override, parse_assignments
from headway.config.reading import dump
from headway.jobs.records import JobRecord, create_record, job_folder, new_job_id
from headway.jobs.shipping import shipped_files
from headway.launch.base import Job, Launcher, Rendering, Unreachable
from headway.recipe import Recipe, load_recipe
from headway.run import check_run_name
from headway.sweep.check import as_written, check_space

Verb = Literal["fit", "sweep"]


@dataclass(frozen=True)
class Submission:
    """A job that is ready to be sent."""

    job: Job
    profile: Launcher
    profile_name: str
    rendering: Rendering
    runs: Path


def prepare_submission(
    verb: Verb,
    recipe: str | Path,
    overrides: Iterable[str] = (),
    *,
    profile: Launcher,
    profile_name: str,
    runs: Path,
    name: str | None = None,
    group: str | None = None,
    seeds: Sequence[int] = (),
    trust: Collection[str] = (),
) -> Submission:
    """Returns what would be sent; nothing is written yet.

    Args:
        verb: what the job does.
        recipe: a path, or the name of one that comes along.
        overrides: changes to it.
        profile: where it is to run.
        profile_name: what the person calls that.
        runs: the folder of run folders on this machine.
        name: the run's id (with seeds: their common start), or the sweep's.
        group: a name for jobs that belong together; the run's when absent.
        seeds: an array with one run for each, in place of one run.
        trust: modules outside headway that the recipe may name.

    Raises:
        UserError: one line with the setting, its value and the remedy.
    """
    changes = parse_assignments(overrides)
    loaded = load_recipe(recipe, changes, trust=trust)
    shipped = (
        place_recipe(loaded, profile).yaml() if verb == "fit" else _sweep_as_written(recipe, changes, loaded, trust)
    )
    _check_seeds(verb, seeds)
    for given in filter(None, (name, group)):
        check_run_name(given)
    job_id = new_job_id(name or loaded.name)
    base = name or job_id
    job = Job(
        id=job_id,
        verb=verb,
        names=tuple(f"{base}-seed{seed}" for seed in seeds) or (base,),
        group=group or base,
        overrides=tuple((f"trainer.seed={seed}",) for seed in seeds) or ((),),
        trust=tuple(trust),
        workers=profile.nodes - 1 if verb == "sweep" else 0,
        files=shipped_files(shipped, trust),
    )
    profile.check(job)
    runs = runs.absolute()
    return Submission(job, profile, profile_name, profile.render(job, job_folder(runs, job.id), runs), runs)


def _sweep_as_written(recipe: str | Path, changes: Mapping[str, Any], loaded: Recipe, trust: Collection[str]) -> str:
    """Returns a sweep's recipe without its defaults, with which a sampled kind would meet those of another.

    Raises:
        UserError: there is nothing to search, or a value of the space that the recipe refuses.
    """
    if loaded.sweep is None:
        raise UserError(f"{recipe}: has no sweep section to submit; add one, or use `headway submit fit`")
    tree = override(as_written(recipe), changes)
    check_space(tree, loaded.sweep, trust=trust)
    return dump(tree)


def place_recipe(recipe: Recipe, profile: Launcher) -> Recipe:
    """Returns the recipe with the profile's machines and ranks.

    Raises:
        UserError: the recipe asks for others, or its strategy cannot use them.
    """
    trainer = recipe.trainer
    ranks_field = "gpus_per_node" if profile.gpus_per_node else "ranks_per_node"
    for setting, asked, given, field in (
        ("nodes", trainer.nodes if trainer.nodes > 1 else None, profile.nodes, "nodes"),
        ("devices", None if trainer.devices == "auto" else trainer.devices, profile.ranks, ranks_field),
    ):
        if asked is not None and asked != given:
            raise UserError(
                f"trainer.{setting}: {asked}, but the profile gives {given}; leave it out or add --with {field}={asked}"
            )
    device = "cuda" if profile.gpus_per_node else "cpu"
    if trainer.accelerator not in ("auto", device):
        raise UserError(
            f"trainer.accelerator: {trainer.accelerator}, but the profile has {profile.gpus_per_node} GPUs on a node; "
            "leave it out, or change the profile's gpus_per_node"
        )
    world = profile.nodes * profile.ranks
    if recipe.strategy.kind == "single" and world > 1:
        raise UserError(f"strategy: single, but the profile gives {world} ranks; use strategy=ddp, fsdp or deepspeed")
    recipe.strategy.check(Place(0, world, 0, profile.ranks, device), trainer.precision)  # type: ignore[arg-type]
    placed = trainer.model_copy(update={"nodes": profile.nodes, "devices": profile.ranks, "accelerator": device})
    return recipe.model_copy(update={"trainer": placed})


def submit(submission: Submission) -> JobRecord:
    """Records a job, sends it, and notes that it was sent.

    Raises:
        UserError: it could not be recorded, or the launcher refused it.
        Unreachable: it is not known whether the launcher has it; `headway jobs` finds out.
    """
    job, profile = submission.job, submission.profile
    record = create_record(submission.runs, job, profile, submission.rendering, profile_name=submission.profile_name)
    send(record, submission.rendering)
    return record


def send(record: JobRecord, rendering: Rendering) -> None:
    """Sends a job that has been recorded.

    Raises:
        UserError: the launcher refused it; the record says so.
        Unreachable: it is not known whether the launcher has it.
    """
    try:
        record.mark_sent(record.profile.send(record.job, rendering, record.folder))
    except Unreachable:
        raise
    except UserError as error:
        record.mark_refused(str(error))
        raise


def retry(record: JobRecord) -> JobRecord:
    """Submits a job once more, as a new one which goes on with the same runs.

    Raises:
        UserError: the launcher refused it.
    """
    job = replace(record.job, id=new_job_id(record.job.names[0]))
    rendering = record.profile.render(job, job_folder(record.runs, job.id), record.runs)
    again = submit(Submission(job, record.profile, record.profile_name, rendering, record.runs))
    record.mark_retried(again.job.id)
    return again


def _check_seeds(verb: Verb, seeds: Sequence[int]) -> None:
    if seeds and verb == "sweep":
        raise UserError("--seeds: is for fit; a sweep searches seeds with sweep.space: {trainer.seed: ...}")
    twice = sorted({seed for seed in seeds if list(seeds).count(seed) > 1})
    if twice:
        raise UserError(f"--seeds: {twice[0]} stands twice; each seed is one run")
