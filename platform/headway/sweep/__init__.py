"""Searches a recipe's `sweep.space`: Ray Tune proposes and stops, and every trial is an ordinary run.

    check.py     what can be found wrong before anything starts; what the trials have in common
    search.py    `sweep`: check -> Ray -> result; the whole story on one screen
    ledger.py    the sweep's folder: how each trial stands, how the whole stands
    progress.py  what a person sees meanwhile
    result.py    what comes out: the trials, the best one, the command that repeats it
    folder.py    opens the folders that sweeps leave; ending.py stops and deletes them, export.py writes tables
    importance.py  which hyperparameter mattered; plots.py draws it
    wandb_definition.py  the same sweep for W&B's agents
    _tune.py     drives Ray: its start, searcher, scheduler
    _callbacks.py  what Ray tells meanwhile
    _trial.py    what runs in Ray's worker processes: one `fit` after another

Importing this package imports neither Ray nor torch.
"""

from __future__ import annotations

from headway.sweep.result import SweepResult
from headway.sweep.search import sweep

__all__ = ["SweepResult", "sweep"]
