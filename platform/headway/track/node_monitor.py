"""What each node of a run is busy with: processor, memory, disk and network, a row every so many seconds.

W&B's own monitor sees the first rank's node alone, and its mode for several needs its server. Here the first rank of
each node writes `system/node-<n>.jsonl` in the run folder, and the first of all hands the rows on, offline as well.

Imports no torch.
"""

from __future__ import annotations

import json
import platform as machine
import threading
from pathlib import Path
from typing import Any

import psutil

from headway.run import MetricsFile, RunFolder

EVERY_S = 15.0


class NodeMonitor:
    """Writes rows of one node until it is closed.

    Args:
        run: whose folder.
        node: which node of the run this is.
        every_s: seconds between rows.
    """

    def __init__(self, run: RunFolder, node: int, *, every_s: float = EVERY_S) -> None:
        self.path = run.path / "system" / f"node-{node}.jsonl"
        self.every_s = every_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._sample, name=f"node-{node}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the sampling."""
        self._closed.set()
        self._thread.join()

    def _sample(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = MetricsFile(self.path)
        before = _counters()
        psutil.cpu_percent()
        try:
            while not self._closed.wait(self.every_s):
                now = _counters()
                file.write([{"host": machine.node(), **_levels(), **_rates(before, now, self.every_s)}])
                before = now
        finally:
            file.close()


class NodeRows:
    """Reads on in the files of all nodes but the first, which W&B's own monitor sees.

    Args:
        run: whose folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.folder = run.path / "system"
        # What is there already was handed on before the run was resumed.
        self._read = {path: path.stat().st_size for path in self.folder.glob("node-[1-9]*.jsonl")}

    def newest(self) -> dict[str, Any]:
        """Returns the newest row of each node that has a new one: `system/node-1/cpu_percent` and so on."""
        found: dict[str, Any] = {}
        for path in sorted(self.folder.glob("node-[1-9]*.jsonl")):
            row = self._next(path)
            found |= {
                f"system/{path.stem}/{name}": value for name, value in row.items() if name not in ("time", "host")
            }
        return found

    def _next(self, path: Path) -> dict[str, Any]:
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            lines = file.read().split(b"\n")
        whole = [line for line in lines[:-1] if line]
        self._read[path] = self._read.get(path, 0) + sum(len(line) + 1 for line in lines[:-1])
        return json.loads(whole[-1]) if whole else {}


def _counters() -> dict[str, float]:
    disk, network = psutil.disk_io_counters(), psutil.net_io_counters()
    return {
        "disk_read_bytes_per_s": disk.read_bytes if disk else 0,
        "disk_written_bytes_per_s": disk.write_bytes if disk else 0,
        "network_sent_bytes_per_s": network.bytes_sent,
        "network_received_bytes_per_s": network.bytes_recv,
    }


def _rates(before: dict[str, float], now: dict[str, float], seconds: float) -> dict[str, float]:
    return {name: round((now[name] - before[name]) / seconds, 1) for name in now}


def _levels() -> dict[str, float]:
    memory = psutil.virtual_memory()
    levels = {"cpu_percent": psutil.cpu_percent(), "memory_percent": memory.percent, "memory_used_bytes": memory.used}
    return levels | _gpus()


def _gpus() -> dict[str, float]:
    """Returns how busy each GPU is, where NVIDIA's library for that is installed."""
    try:
        import pynvml
    except ImportError:
        return {}
    found: dict[str, float] = {}
    try:
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            found[f"gpu-{index}_percent"] = pynvml.nvmlDeviceGetUtilizationRates(device).gpu
            found[f"gpu-{index}_memory_used_bytes"] = pynvml.nvmlDeviceGetMemoryInfo(device).used
            found[f"gpu-{index}_power_w"] = pynvml.nvmlDeviceGetPowerUsage(device) / 1000
    except pynvml.NVMLError:
        return found  # a machine without a GPU, or one that does not tell
    return found
