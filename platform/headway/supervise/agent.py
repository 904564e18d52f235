"""Starts this node's ranks with torch's elastic agent and waits for them.

Each rank is the same `headway fit` command with RANK in its environment. One command a node is the
whole launch; nodes meet at MASTER_ADDR:MASTER_PORT.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from uuid import uuid4

from headway.config.errors import UserError
from headway.run import JOB_VARIABLE
from headway.supervise.orphans import PARENT_VARIABLE


def run_ranks(
    arguments: Sequence[str],
    *,
    ranks_per_node: int,
    num_nodes: int,
    environment: Mapping[str, str],
    save_timeout_s: int,
) -> int:
    """Runs `headway fit` as ranks and returns the exit code that stands for all of them.

    Args:
        arguments: of the headway command, after `headway`.
        ranks_per_node: processes on this node.
        num_nodes: nodes that take part.
        environment: variables that the ranks get besides this process's.
        save_timeout_s: seconds that ranks which are told to stop have to save; then they are killed.

    Raises:
        UserError: several nodes, and no address to meet at.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if num_nodes > 1 and "MASTER_ADDR" not in os.environ:
        raise UserError(
            f"trainer.nodes: {num_nodes}, but MASTER_ADDR is not set; set it (and MASTER_PORT) to the first node's "
            "on every node"
        )
    endpoint = f"{os.environ.get('MASTER_ADDR', '127.0.0.1')}:{os.environ.get('MASTER_PORT', '29511')}"
    config = LaunchConfig(
        min_nodes=num_nodes,
        max_nodes=num_nodes,
        nproc_per_node=ranks_per_node,
        run_id=os.environ.get(JOB_VARIABLE, "headway") if num_nodes > 1 else uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=endpoint if num_nodes > 1 else "127.0.0.1:0",
        local_addr="127.0.0.1" if num_nodes == 1 else None,
        max_restarts=0,
        monitor_interval=0.2,
        signals_to_handle="SIGQUIT",  # the others are ours, since torch's agent leaves at a second one, mid-save
        shutdown_timeout=save_timeout_s,
    )
    # The agent tells of a failed rank in forty lines; headway says it in one.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    saved = dict(os.environ)
    leave = _LeaveOnce()
    handlers = {number: signal.signal(number, leave) for number in _PASSED_ON}
    os.environ.update({**environment, PARENT_VARIABLE: str(os.getpid())})
    try:
        elastic_launch(config, sys.executable)("-m", "headway", *arguments)
    except ChildFailedError as failure:
        return _exit_code([child.exitcode for child in failure.failures.values()])
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SignalException as stopped:
        return 128 + int(signal.SIGTERM if stopped.sigval == signal.SIGUSR1 else stopped.sigval)
    finally:
        os.environ.clear()
        os.environ.update(saved)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 0


_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


class _LeaveOnce:
    """Makes the agent pass a signal on to its ranks and wait for them; what comes while it waits changes nothing.

    A second SIGINT is a person who does not want to wait.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        from torch.distributed.elastic.multiprocessing.api import SignalException

        if self.number == signal.SIGINT == number:
            raise KeyboardInterrupt
        if self.number is None:
            self.number = number
            raise SignalException(f"got {signal.Signals(number).name}", sigval=signal.Signals(number))


def _exit_code(codes: Sequence[int]) -> int:
    """Returns the exit code that tells most: a rank that was killed explains why the others failed."""
    # One that was told to stop before it could listen has stopped, too.
    asked = {-signal.SIGTERM: 143, -signal.SIGUSR1: 143}
    codes = [asked.get(code, code) for code in codes]
    killed = [128 - code for code in codes if code < 0]
    if killed:
        return killed[0]
    return next((code for code in (2, 1, 3, 143, 130) if code in codes), codes[0])
