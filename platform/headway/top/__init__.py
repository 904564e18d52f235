"""`headway top`: runs, sweeps, jobs and GPUs on one screen that stays up to date.

    gpus.py    what nvidia-smi says
    look.py    where runs and sweeps stand, from their folders; jobs, from their launchers
    screen.py  draws it, once or until q

Imports no torch: it starts at once on a login node.
"""
