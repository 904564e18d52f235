"""Has a process of its own work out what a sweep's process would need two more libraries for, at its very end.

That one holds torch and Ray Tune already; matplotlib and scikit-learn beside them would be a quarter on top.

    python -m headway.sweep._aside draw|measure FOLDER
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.config.errors import UserError
from headway.sweep.folder import SweepFolder
from headway.sweep.importance import Effect, Importance

if TYPE_CHECKING:
    from collections.abc import Sequence


def draw_aside(folder: Path) -> str | None:
    """Draws a sweep's plots; returns why they could not be, or None."""
    answer = _ask("draw", folder)
    return answer if isinstance(answer, str) else None


def measure_aside(folder: Path) -> Importance:
    """Returns which hyperparameter of a sweep mattered, or why nothing can be said of that."""
    answer = _ask("measure", folder)
    if isinstance(answer, str):
        return Importance([], answer)
    return Importance([Effect(**effect) for effect in answer["effects"]], answer["reason"])


def _ask(what: str, folder: Path) -> dict[str, Any] | str:
    """Returns what the process answers; a string where it could not, which says why."""
    command = [sys.executable, "-m", "headway.sweep._aside", what, str(folder)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2]
        return said or f"the process that was to {what} ended with {done.returncode}"
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def main(arguments: Sequence[str]) -> int:
    """Answers a sweep's process."""
    what, folder = arguments
    sweep = SweepFolder(Path(folder))
    try:
        if what == "draw":
            from headway.sweep.plots import write_plots

            answer: dict[str, Any] = {"plots": len(write_plots(sweep))}
        else:
            answer = asdict(sweep.result().importance())
    except OSError as error:
        sys.stderr.write(f"{error.strerror or error}\n")
        return 1
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
