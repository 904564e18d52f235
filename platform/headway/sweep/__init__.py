"""Searches a recipe's `sweep.space`: Ray Tune proposes and stops, and every trial is an ordinary run.

What a sweep is, before, while and after it runs:

    check.py        what can be found wrong before anything starts; what the trials have in common
    fusing.py       whether trials train as rows of arrays or in processes of their own
    proxy.py        a narrow copy that is searched in a wide net's place
    search.py       `sweep`: check -> Ray -> result; the whole story on one screen
    ledger.py       the sweep's folder: how each trial stands, how the whole stands
    journal.py      what happened, in its order; resume.py goes on from it
    copies.py       the sweep's state files, each twice
    progress.py     what a person sees meanwhile
    result.py       what comes out: the trials, the best one, the command that repeats it
    folder.py       opens the folders that sweeps leave; ending.py stops and deletes them, export.py writes tables
    importance.py   which hyperparameter mattered; plots.py draws it; _aside.py has a process of its own do so
    wandb_definition.py  the same sweep for W&B's agents

What meets Ray:

    _tune.py        its start, the room it has for trials, its tuner
    _client.py      a cluster that is reached through Ray's client
    _proposals.py   its searchers; _schedulers.py, _population.py its schedulers; _callbacks.py what it tells meanwhile
    _trial_run.py   a trial as a run: its recipe, its folder, its end
    _trial.py       trials in Ray's worker processes, one `fit` after another; _ranks.py on several processes each
    _rows.py        Tune over arrays; _arrays.py an array, in this process or in one of its own

Importing this package imports neither Ray nor torch.
"""

from __future__ import annotations

from headway.sweep.result import SweepResult
from headway.sweep.search import sweep

__all__ = ["SweepResult", "sweep"]
