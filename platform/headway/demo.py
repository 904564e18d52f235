"""`headway demo`: what headway does, in a few minutes on a laptop, on data that come along.

Every part is an ordinary command, printed before it runs, that a reader can type again.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from headway.config.errors import HeadwayError
from headway.run import read_metrics

_GPT = ["fit", "gpt-python-docs", "trainer.devices=2", "trainer.max_steps=500", "trainer.validate_every=250"]
_CONVNET = ["fit", "convnet-digits", "trainer.devices=2"]
_ZERO = [*_CONVNET, "strategy={kind: deepspeed, stage: 2}"]
_SWEEP = ["sweep", "mlp-digits"]


def demo(runs: Path) -> None:
    """Runs the demo and prints what came out.

    Raises:
        HeadwayError: a part failed; the line says which command to try by hand.
    """
    console = Console()
    results: list[tuple[str, dict[str, Any]]] = []
    for label, title, arguments in [
        ("GPT, 2 DDP ranks", "A GPT learns Python's manual, character by character, on two DDP ranks", _GPT),
        ("convnet, 2 DDP ranks", "A convnet learns digits, on two DDP ranks", _CONVNET),
        ("convnet, 2 ZeRO-2 ranks", "The same under DeepSpeed ZeRO-2", _ZERO),
        ("MLP sweep", "Ray Tune searches an MLP's initialization, dropout and learning rate, with ASHA", _SWEEP),
    ]:
        results.append((label, _run(console, title, [*arguments, "--runs", str(runs)])))
    _print_results(console, results)
    ddp, zero = Path(results[1][1]["run_dir"]), Path(results[2][1]["run_dir"])
    steps, difference = loss_difference(ddp, zero)
    console.print(
        f"\nDDP and ZeRO-2: {steps} steps, losses equal to {difference:.0e} (largest relative difference).",
        highlight=False,
    )
    best = results[3][1]["best"]
    console.print(
        f"\n[bold]What next[/bold]\n"
        f"  headway runs --runs {runs}                     every run, its status and its headline metric\n"
        f"  less {ddp / 'recipe.yaml'}\n"
        f"  tail {ddp / 'metrics.jsonl'}\n"
        f"  headway recipes                                what else comes along\n"
        f"  headway fit mlp-digits {_assignments(best['config'])}\n"
        f"  headway fit gpt-python-docs                    the whole GPT: about two minutes",
        highlight=False,
        soft_wrap=True,
    )


def loss_difference(first: Path, second: Path) -> tuple[int, float]:
    """Returns how many steps two runs have in common and the largest relative difference of their losses."""

    def losses(run: Path) -> dict[int, float]:
        return {row["step"]: row["train/loss"] for row in read_metrics(run / "metrics.jsonl") if "train/loss" in row}

    ours, theirs = losses(first), losses(second)
    both = ours.keys() & theirs.keys()
    return len(both), max(abs(ours[step] - theirs[step]) / abs(ours[step]) for step in both)


def _run(console: Console, title: str, arguments: list[str]) -> dict[str, Any]:
    line = "headway " + shlex.join(arguments)
    console.print(f"\n[bold]{title}[/bold]\n$ {line}", highlight=False, soft_wrap=True)
    done = subprocess.run([sys.executable, "-m", "headway", *arguments, "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise HeadwayError(f"the demo stopped: `{line}` ended with exit code {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _print_results(console: Console, results: list[tuple[str, dict[str, Any]]]) -> None:
    table = Table(title="\nWhat came out", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("what", "result", "steps", "seconds", "folder"):
        table.add_column(column, overflow="fold")
    for label, result in results:
        if "trials" in result:
            best = result["best"]
            table.add_row(
                label,
                f"best {result['metric']} {best['value']:.4g}",
                f"{len(result['trials'])} trials",
                f"{result['wall_s']:.0f}",
                result["sweep_dir"],
            )
            continue
        metrics = result["metrics"]
        shown = [
            f"{name} {metrics[name]:.4g}" for name in ("val/loss", "test/loss", "test/accuracy") if name in metrics
        ]
        table.add_row(label, "  ".join(shown), str(result["step"]), f"{result['wall_s']:.0f}", result["run_dir"])
    Console(width=None if console.is_terminal else 160).print(table)


def _assignments(config: dict[str, Any]) -> str:
    return shlex.join(f"{path}={value}" for path, value in config.items())
