"""Times a sweep of small nets: headway's trials as rows of an array, in processes of their own, plain Ray Tune, Optuna.

    python benchmarks/sweep.py --workload mlp|convnet|lstm|gpt|trivial [--scheduler fifo|asha] [--trials 64]
    python benchmarks/sweep.py --workload mlp --contenders fused,auto --small

    fused         headway with `fuse: on`
    auto          headway with `fuse: auto`, which times the ways and takes one
    reuse_actors  headway with `fuse: off`: a process for each core, which trains one trial after another
    plain         Ray Tune as its documentation writes it: a function with a torch loop, a process a trial
    optuna        the same torch loop, one trial after another in one process

All train the same nets for as many steps, in batches of one size, and report as many validations of the same split.
The headway sides also write a run folder a trial: metrics of every step, checkpoints, a test of the best; the plain
sides write what their library writes. Each contender is a process of its own, since what it imports and starts is
part of what a person waits for. Prints a table; writes benchmarks/results/sweep-<workload>-<scheduler>-cpu.{md,json}.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headway.config.overrides import override
from headway.config.reading import Tree
from headway.config.space import Distribution
from headway.init.base import initialize
from headway.nn.draws import name_streams
from headway.recipe import Recipe, load_recipe, read_recipe

RESULTS = Path(__file__).parent / "results"
HEADWAY = {"fused": "on", "auto": "auto", "reuse_actors": "off"}
CONTENDERS = (*HEADWAY, "plain", "optuna")
SPACE = {"init.kind": {"choice": ["xavier", "kaiming", "orthogonal"]}, "optim.lr": {"loguniform": [1e-4, 1e-1]}}
TEXT_SPACE = {"init.kind": {"choice": ["xavier", "orthogonal"]}, "optim.lr": {"loguniform": [1e-4, 1e-2]}}
DROPOUT = {"model.dropout": {"uniform": [0.0, 0.5]}}

WORKLOADS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # Of a name: the recipe, what is changed in it, and the space.
    "mlp": (
        "mlp-digits",
        {"model.hidden": [64, 64], "trainer.max_steps": 300, "trainer.validate_every": 30},
        SPACE | DROPOUT,
    ),
    "convnet": ("convnet-digits", {"trainer.max_steps": 200, "trainer.validate_every": 40}, SPACE | DROPOUT),
    "lstm": (
        "lstm-python-docs",
        {
            "model.hidden": 64, "model.embedding": 32, "data.max_characters": 50_001,
            "trainer.max_steps": 100, "trainer.validate_every": 25,
        },
        TEXT_SPACE,
    ),
    "gpt": (
        "gpt-python-docs",
        {
            "init": "xavier", "model.num_layers": 2, "model.num_heads": 2, "model.width": 64,
            "data.max_characters": 50_001, "trainer.max_steps": 100, "trainer.validate_every": 25,
        },
        TEXT_SPACE | DROPOUT,
    ),
    "trivial": (
        "logistic-breast-cancer",
        {"trainer.max_steps": 20, "trainer.validate_every": 20},
        {"optim.lr": {"loguniform": [1e-3, 1.0]}, "optim.weight_decay": {"loguniform": [1e-5, 1e-1]}},
    ),
}  # fmt: skip
SMALL = {"trainer.max_steps": 12, "trainer.validate_every": 4}
SEED = 0


def tree_of(workload: str, trials: int, scheduler: str, *, small: bool) -> Tree:
    """Returns a workload's recipe with its sweep, as a person would write it."""
    name, changes, space = WORKLOADS[workload]
    section = {"trials": trials, "scheduler": scheduler, "seed": SEED, "space": space}
    changes = {**changes, **(SMALL if small else {}), "trainer.max_epochs": None, "track.wandb": "disabled"}
    return override({**read_recipe(name)[0], "sweep": section}, changes)


# ---- what the plain sides train --------------------------------------------------------------------


def split_tensors(recipe: Recipe) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns inputs and targets of the training and validation parts."""
    data = recipe.data.load()
    found = {}
    for name in ("train", "validation"):
        split = getattr(data, name).to(torch.device("cpu"), torch.float32)
        whole = split.gather(torch.arange(len(split)), epoch=0)
        found[name] = whole["input"], whole["target"]
    return found


def validations(recipe: Recipe, spec: Any, tensors: dict[str, tuple[Tensor, Tensor]]) -> Iterator[dict[str, float]]:
    """Trains as a careful person's loop does and yields each validation."""
    assert recipe.model is not None
    assert recipe.init is not None
    assert recipe.optim is not None
    torch.manual_seed(recipe.trainer.seed)
    net = initialize(name_streams(recipe.model.build(spec)), recipe.init)
    optimizer = recipe.optim.build(net)
    section = recipe.trainer
    inputs, targets = tensors["train"]
    size, steps, every = section.batch_size, int(section.max_steps or 0), int(section.validate_every or 0)
    position, order = 0, torch.randperm(len(inputs))
    net.train()
    for step in range(steps):
        if position >= len(inputs):
            position, order = 0, torch.randperm(len(inputs))
        index = order[position : position + size]
        position += size
        for group in optimizer.param_groups:
            group["lr"] = recipe.optim.lr * recipe.optim.schedule.factor(step, steps)
        loss_of(net(inputs[index]), targets[index]).backward()
        if section.clip_norm is not None:
            nn.utils.clip_grad_norm_(net.parameters(), section.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % every == 0 or step + 1 == steps:
            yield {"step": step + 1, **validate(net, *tensors["validation"], section.eval_batch_size or size)}
            net.train()


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean cross-entropy over rows or tokens."""
    logits = logits[0] if isinstance(logits, tuple) else logits
    if logits.shape[-1] == 1:
        return nn.functional.binary_cross_entropy_with_logits(logits.squeeze(-1), targets.to(logits.dtype))
    return nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


@torch.inference_mode()
def validate(net: nn.Module, inputs: Tensor, targets: Tensor, size: int) -> dict[str, float]:
    """Returns the mean loss over a split."""
    net.eval()
    total = torch.zeros(())
    for x, y in zip(inputs.split(size), targets.split(size), strict=True):
        total += loss_of(net(x), y) * len(x)
    return {"val/loss": float(total / len(inputs))}


# ---- contenders: each returns (seconds since 1970, validation loss) of every report ----------------

Reports = list[tuple[float, float]]


def run_headway(tree: Tree, fuse: str) -> Reports:
    """Sweeps with headway, and reads from the trials' run folders when they reported."""
    from headway.run import RunFolder, read_metrics
    from headway.sweep import sweep

    with tempfile.TemporaryDirectory() as runs:
        result = sweep(tree, {"sweep.fuse": fuse}, runs=runs, name="timed")
        rows = [row for trial in result.trials for row in read_metrics(RunFolder(Path(trial.run_dir)).metrics)]
    return [(row["time"], row["val/loss"]) for row in rows if "val/loss" in row]


def run_plain(tree: Tree) -> Reports:
    """Sweeps with Ray Tune as its documentation does."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.basic_variant import BasicVariantGenerator

    recipe = load_recipe(tree)
    assert recipe.sweep is not None
    spec, tensors = recipe.data.load().spec, split_tensors(recipe)
    reports: Reports = []

    def train(config: dict[str, Any], spec: Any, tensors: Any) -> None:
        for metrics in validations(load_recipe(tree, config), spec, tensors):
            tune.report(metrics)

    class Clock(tune.Callback):  # type: ignore[misc]  # Ray has no types
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
            reports.append((time.time(), result["val/loss"]))

    section, total = recipe.sweep, int(recipe.trainer.max_steps or 0)
    grace = int(recipe.trainer.validate_every or 1)
    asha = ASHAScheduler(
        time_attr="step", grace_period=grace, max_t=total, reduction_factor=section.scheduler.reduction
    )
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            tune.with_parameters(train, spec=spec, tensors=tensors),
            param_space={path: _ray_domain(drawn) for path, drawn in section.space.items()},
            tune_config=tune.TuneConfig(
                metric="val/loss",
                mode="min",
                num_samples=section.trials,
                search_alg=BasicVariantGenerator(random_state=SEED),
                scheduler=asha if section.scheduler.kind == "asha" else None,
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[Clock()]),
        ).fit()
    return reports


def _ray_domain(drawn: Distribution) -> Any:
    from ray import tune

    for name in ("choice", "uniform", "loguniform"):
        value = getattr(drawn, name)
        if value is not None:
            return tune.choice(value) if name == "choice" else getattr(tune, name)(*value)
    raise AssertionError(drawn)


def run_optuna(tree: Tree) -> Reports:
    """Sweeps with Optuna, one trial after another here."""
    import optuna

    recipe = load_recipe(tree)
    assert recipe.sweep is not None
    section = recipe.sweep
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spec, tensors = recipe.data.load().spec, split_tensors(recipe)
    grace = int(recipe.trainer.validate_every or 1)
    reports: Reports = []

    def objective(trial: optuna.Trial) -> float:
        config: dict[str, Any] = {}
        for path, drawn in section.space.items():
            if drawn.choice is not None:
                config[path] = trial.suggest_categorical(path, drawn.choice)
            else:
                low, high = drawn.loguniform or drawn.uniform or (0.0, 0.0)
                config[path] = trial.suggest_float(path, low, high, log=drawn.loguniform is not None)
        best = float("inf")
        for metrics in validations(load_recipe(tree, config), spec, tensors):
            reports.append((time.time(), metrics["val/loss"]))
            best = min(best, metrics["val/loss"])
            trial.report(metrics["val/loss"], int(metrics["step"]))
            if trial.should_prune():
                raise optuna.TrialPruned
        return best

    pruner: Any = optuna.pruners.NopPruner()
    if section.scheduler.kind == "asha":
        pruner = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=grace, reduction_factor=section.scheduler.reduction
        )
    sampler = optuna.samplers.RandomSampler(seed=SEED)
    optuna.create_study(sampler=sampler, pruner=pruner).optimize(objective, n_trials=section.trials)
    return reports


# ---- one process a contender -----------------------------------------------------------------------


def child(arguments: argparse.Namespace) -> None:
    """Runs one contender and writes when it reported what."""
    started = time.time()
    tree = tree_of(arguments.workload, arguments.trials, arguments.scheduler, small=arguments.small)
    ways: dict[str, Callable[[], Reports]] = {
        **{name: lambda fuse=fuse: run_headway(tree, fuse) for name, fuse in HEADWAY.items()},
        "plain": lambda: run_plain(tree),
        "optuna": lambda: run_optuna(tree),
    }
    reports = sorted(ways[arguments.child]())
    best = min(reports, key=lambda report: report[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {
        "reports": len(reports),
        "between_s": reports[-1][0] - reports[0][0],
        "until_first_s": reports[0][0] - started,
        "until_best_s": best[0] - started,
        "best": best[1],
        "peak_mb": peak / 1024,
    }
    arguments.out.write_text(json.dumps(found))


def time_contender(name: str, trials: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs a contender in a process of its own and returns its seconds, for `--trials` trials."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [
            sys.executable, __file__, "--child", name, "--out", str(out), "--workload", arguments.workload,
            "--scheduler", arguments.scheduler, "--trials", str(trials), *(["--small"] if arguments.small else []),
        ]  # fmt: skip
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        whole = time.perf_counter() - started
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        found: dict[str, Any] = json.loads(out.read_text())
    said = [line.split("  ", 1)[1] for line in done.stderr.splitlines() if "trials are " in line]
    # Of fewer trials: what lies between the first report and the last grows with their number, the rest does not.
    scale = arguments.trials / trials
    between = found["between_s"] * scale
    whole += between - found["between_s"]
    return {
        **found,
        "trials_run": trials,
        "said": said[0] if said else None,
        "reports": found["reports"] * scale,
        "between_s": between,
        "whole_s": whole,
        "trials_per_h": 3600 * arguments.trials / whole,
    }


def table(found: dict[str, dict[str, Any]], against: str) -> list[str]:
    """Returns the table's lines."""
    lines = [
        "| contender | first to last report, s | whole process, s | trials an hour | until the best loss, s "
        f"| best loss | driver, MB | slower than {against}: reports | whole |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    first = found.get(against)
    for name, row in found.items():
        ratios = [f"{row[key] / max(first[key], 1e-9):.1f}" if first else "" for key in ("between_s", "whole_s")]
        lines.append(
            f"| {name} | {row['between_s']:.1f} | {row['whole_s']:.1f} | {row['trials_per_h']:,.0f} "
            f"| {row['until_best_s']:.1f} | {row['best']:.4f} | {row['peak_mb']:.0f} | {ratios[0]} | {ratios[1]} |"
        )
    return lines


def write(arguments: argparse.Namespace, found: dict[str, dict[str, Any]]) -> str:
    """Writes the results and returns them as text."""
    packages = ("torch", "ray", "lightning", "optuna")
    versions = {name: importlib.metadata.version(name) for name in packages}
    recipe = load_recipe(tree_of(arguments.workload, arguments.trials, arguments.scheduler, small=arguments.small))
    machine = f"{platform.machine()} CPU, {len(os.sched_getaffinity(0))} cores"
    notes = [f"{name}: {row['said']}." for name, row in found.items() if row["said"]]
    notes += [
        f"{name}: {row['trials_run']} trials were run; what lies between the first report and the last is scaled to "
        f"{arguments.trials}."
        for name, row in found.items()
        if row["trials_run"] != arguments.trials
    ]
    against = "fused" if "fused" in found else next(iter(found))
    text = "\n".join([
        f"# Sweep: {arguments.workload}, {arguments.scheduler}, {machine}",
        "",
        f"{datetime.date.today()}, " + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f". {arguments.trials} trials of {recipe.trainer.max_steps} steps, a validation every "
        f"{recipe.trainer.validate_every}; no W&B. Each contender once, one after another, in a process of its own.",
        "",
        *table(found, against),
        "",
        *notes,
    ])  # fmt: skip
    if not arguments.small:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"sweep-{arguments.workload}-{arguments.scheduler}-cpu.md"
        path.write_text(text + "\n")
        facts = {
            "machine": machine,
            "versions": versions,
            "date": str(datetime.date.today()),
            "trials": arguments.trials,
        }
        path.with_suffix(".json").write_text(json.dumps({**facts, "contenders": found}, indent=2) + "\n")
    return text


def main() -> None:
    """Times the contenders, prints the table and keeps it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", choices=WORKLOADS, default="mlp")
    parser.add_argument("--scheduler", choices=["fifo", "asha"], default="fifo")
    parser.add_argument("--trials", type=int, default=None, help="64; 1,000 of trivial; 8 where small")
    parser.add_argument("--plain-trials", type=int, default=None, help="fewer of plain Ray Tune, scaled")
    parser.add_argument("--contenders", default=None, help=f"of {','.join(CONTENDERS)}; trivial: auto")
    parser.add_argument("--small", action="store_true", help="a few steps; writes nothing")
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    trivial = arguments.workload == "trivial"
    arguments.trials = arguments.trials or (8 if arguments.small else 1000 if trivial else 64)
    if arguments.child:
        child(arguments)
        return
    found = {}
    for name in (arguments.contenders or ("auto" if trivial else ",".join(CONTENDERS))).split(","):
        trials = (
            min(arguments.trials, arguments.plain_trials or arguments.trials) if name == "plain" else arguments.trials
        )
        found[name] = time_contender(name, trials, arguments)
        print(
            f"{name}: {found[name]['between_s']:.1f} s, {found[name]['whole_s']:.1f} s in all",
            file=sys.stderr,
            flush=True,
        )
    print(write(arguments, found))


if __name__ == "__main__":
    main()
