"""One rank of two that trains runs and goes on with them under other strategies; started by torchrun."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from headway.config.contracts import Place
from headway.prepare import prepare
from headway.recipe import load_recipe
from headway.run import RunFolder
from headway.training import Job, train


def main() -> None:
    """Makes the legs of [run, strategy, steps, whether to go on] in order."""
    legs = json.loads(sys.argv[2])
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    place = Place(rank, 2, rank, 2, "cpu")
    for name, strategy, steps, resume in legs:
        changes = {"strategy": strategy, "trainer.max_steps": steps, "trainer.devices": 2}
        recipe = load_recipe(Path(sys.argv[1]) / "tiny.yaml", changes)
        run = RunFolder(Path(sys.argv[1]) / "runs" / name)
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        dist.barrier()
        train(Job(recipe, run, place, sys.argv, resume=resume, progress=False), prepare(recipe, place))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
