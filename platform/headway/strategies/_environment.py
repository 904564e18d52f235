"""Tells Lightning where a process stands among the ranks."""

from __future__ import annotations

import os

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

from headway.config.contracts import Place


class RankEnvironment(ClusterEnvironment):
    """Tells Lightning where this process stands; whoever started it has said so already."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    @property
    def creates_processes_externally(self) -> bool:
        """Returns True: headway starts ranks with torch's elastic agent, never with Lightning's launchers."""
        return True

    @property
    def main_address(self) -> str:
        """Returns the host of rank 0."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """Returns the port of rank 0's store."""
        return int(os.environ.get("MASTER_PORT", "29500"))

    @staticmethod
    def detect() -> bool:
        """Returns False: it is always named."""
        return False

    def world_size(self) -> int:
        """Returns the number of ranks."""
        return self.place.world_size

    def set_world_size(self, size: int) -> None:
        """Does nothing: the size is given."""

    def global_rank(self) -> int:
        """Returns this rank."""
        return self.place.rank

    def set_global_rank(self, rank: int) -> None:
        """Does nothing: the rank is given."""

    def local_rank(self) -> int:
        """Returns this rank's place on its node."""
        return self.place.local_rank

    def node_rank(self) -> int:
        """Returns this node's place."""
        return self.place.rank // self.place.local_world_size
