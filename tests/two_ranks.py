"""One rank of two that trains cases of [name, recipe] in order; `on_two_ranks` sets RANK and where rank 0 is."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from headway.config.contracts import Place
from headway.fit import prepare
from headway.recipe import load_recipe
from headway.run import RunFolder
from headway.training import Job, train


def main() -> None:
    """Makes a run of each case in the folder."""
    folder, cases = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    rank = int(os.environ["RANK"])
    place = Place(rank, 2, rank, 2, "cpu")
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    for name, tree in cases:
        recipe = load_recipe(tree, {"trainer.devices": 2})
        run = RunFolder(folder / name)
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        train(Job(recipe, run, place, sys.argv, progress=False), prepare(recipe, place))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
