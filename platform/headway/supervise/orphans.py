"""Leaves no process behind: a rank ends when what started it has ended, even by SIGKILL."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT_VARIABLE = "HEADWAY_AGENT_PID"
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Asks Linux to kill this process when the one that PARENT_VARIABLE names ends; elsewhere nothing is done.

    SIGKILL, since what the parent would have passed on cannot come any more, and the other ranks, here or on other
    nodes, end by the loss of this one.

    Source: prctl(2), PR_SET_PDEATHSIG.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if sys.platform != "linux" or parent is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # It may have gone before the kernel knew.
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGKILL)
