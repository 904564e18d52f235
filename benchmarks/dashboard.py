"""What `headway dash` takes over a large runs folder: time, bytes and memory, against what was promised.

    python benchmarks/dashboard.py [--runs 10000] [--rows 1000000] [--folder FOLDER]

prints the table and writes benchmarks/results/dashboard-cpu.md. The runs are made up, with the real writers; the server
is a process of its own, asked over loopback as a browser asks it, a new connection each time. A chart is cold where
nobody has looked at that run since the server started. A live update takes from the row's being in
metrics.jsonl to the event's being here. FOLDER is used as it is where it holds runs already.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gzip
import http.client
import importlib.util
import json
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from headway.run import MetricsFile, make_run_folder

HERE = Path(__file__).parent
VIEWERS = 50
LONG_RUNS = 5


@dataclass
class Line:
    """One line of the table."""

    what: str
    measured: str
    goal: str = ""


@dataclass
class Dash:
    """A running server."""

    port: int
    process: psutil.Process
    started: float

    def get(self, path: str) -> tuple[float, int, bytes]:
        """Returns the seconds that an answer took, its bytes on the wire, and what they say."""
        begin = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
        response = connection.getresponse()
        body = response.read()
        took = time.perf_counter() - begin
        packed = response.getheader("Content-Encoding") == "gzip"
        connection.close()
        assert response.status == 200, (path, response.status, body[:200])
        return took, len(body), gzip.decompress(body) if packed else body

    def listen(self, query: str, hear: Callable[[str, Any, float], bool]) -> threading.Thread:
        """Hears events in a thread, until `hear` says False."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("GET", f"/api/events?{query}")
        response = connection.getresponse()

        def read() -> None:
            name = ""
            while line := response.readline():
                if line.startswith(b"event: "):
                    name = line[7:].strip().decode()
                elif line.startswith(b"data: ") and not hear(name, json.loads(line[6:]), time.perf_counter()):
                    break
            connection.close()

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread


@contextlib.contextmanager
def serving(runs: Path) -> Iterator[Dash]:
    """Gives a server over a folder."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "headway", "dash", "--runs", str(runs), "--no-open", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        try:
            yield Dash(told["port"], psutil.Process(process.pid), begin)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=20)


def make(folder: Path, num_runs: int, num_rows: int) -> None:
    """Makes the runs, where they are not there."""
    spec = importlib.util.spec_from_file_location("make_runs", HERE.parent / "tests" / "dash" / "make_runs.py")
    assert spec is not None and spec.loader is not None
    making = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(making)
    if not folder.exists() or not any(folder.iterdir()):
        making.make_many(folder, num_runs)
        for number in range(LONG_RUNS):
            making.make_long(folder, num_rows, name=f"long-{number}")
        making.make_long(folder, num_rows, name="long-without-columns", columns=False)


def spread(times: list[float]) -> str:
    """Returns p50 and p95 in milliseconds."""
    ordered = sorted(times)
    return f"{statistics.median(ordered) * 1e3:.0f} ms (p95 {ordered[int(len(ordered) * 0.95)] * 1e3:.0f} ms)"


def first_pages(dash: Dash) -> list[Line]:
    """Measures the table of runs."""
    begin = time.perf_counter()
    _, _, body = dash.get("/api/runs?size=50")
    since_start = time.perf_counter() - dash.started
    total = json.loads(body)["total"]
    lines = [
        Line(
            f"from the command to the first page of {total:,} runs, folder never read before",
            f"{since_start:.1f} s, of which reading the folder {time.perf_counter() - begin:.1f} s",
        )
    ]
    pages: list[float] = []
    num_bytes = 0
    for _ in range(100):
        parts = [dash.get(path) for path in ("/", "/api/about", "/api/runs?size=50&columns=optim.lr,val/loss")]
        pages.append(sum(part[0] for part in parts))
        num_bytes = sum(part[1] for part in parts)
        time.sleep(0.03)
    lines.append(Line("first page: index, about and 50 runs", spread(pages), "300 ms (p95)"))
    lines.append(Line("its bytes beyond cached assets", f"{num_bytes / 1e3:.0f} kB", "200 kB"))
    queries = ("q=optim.lr%3E0.01&sort=val/loss", "q=state=done&sort=metric&group=recipe", "q=mlp&sort=-optim.lr")
    for query in queries:
        dash.get(f"/api/runs?{query}")
    found = [dash.get(f"/api/runs?{queries[number % 3]}")[0] for number in range(60)]
    return [*lines, Line("filtered, sorted or grouped by config or metric", spread(found))]


def charts(dash: Dash, num_rows: int) -> list[Line]:
    """Measures charts."""
    question = "series?names=train/loss&points=1000"
    cold = [dash.get(f"/api/run/long-{number}/{question}")[0] for number in range(LONG_RUNS)]
    cached = [dash.get(f"/api/run/long-{number % LONG_RUNS}/{question}")[0] for number in range(60)]
    zoomed = [
        dash.get(f"/api/run/long-0/{question}&from={number * 7001}&to={number * 7001 + 300_000}")[0]
        for number in range(40)
    ]
    without = dash.get(f"/api/run/long-without-columns/{question}")[0]
    return [
        Line(f"a chart of {num_rows:,} rows, cold", spread(cold), "1 s"),
        Line("the same, cached", spread(cached), "200 ms"),
        Line("zoomed into another part of it", spread(zoomed)),
        Line("cold, of a run that has no columns yet (once: they are kept)", f"{without:.1f} s"),
    ]


def live(dash: Dash, runs: Path, name: str, num_viewers: int) -> list[float]:
    """Returns the seconds that each of many updates took to the last of the viewers."""
    run = make_run_folder(runs / f"{name}-{time.time_ns()}")
    name = run.id
    run.recipe.write_text("name: live\n")
    file = MetricsFile(run.metrics)
    file.write([{"step": 0, "train/loss": 1.0}])
    heard: dict[int, list[float]] = {}

    def hear(event: str, data: Any, now: float) -> bool:
        if event != "rows":
            return True
        for step, _, _ in data["series"].get("train/loss", []):
            heard.setdefault(step, []).append(now)
        return bool(data["series"]["train/loss"][-1][0] < 100)

    threads = [dash.listen(f"runs={name}&table=1", hear) for _ in range(num_viewers)]
    until = time.monotonic() + 30
    while len(heard.get(0, [])) < num_viewers:
        assert time.monotonic() < until, "the viewers are not told of the first row"
        time.sleep(0.05)
    written = {}
    for step in range(1, 101):
        file.write([{"step": step, "train/loss": 1.0 / step}])
        written[step] = time.perf_counter()
        time.sleep(0.0837)
    for thread in threads:
        thread.join(timeout=20)
    file.close()
    return [max(heard[step]) - moment for step, moment in written.items()]


def crowd(dash: Dash, runs: Path) -> list[Line]:
    """Measures many viewers at once."""
    times = live(dash, runs, "crowded", VIEWERS)
    done = threading.Event()
    for _ in range(VIEWERS):
        dash.listen("table=1&runs=long-0,long-1", lambda *_: not done.is_set())
    time.sleep(1)
    dash.process.cpu_percent()
    time.sleep(5)
    idle = dash.process.cpu_percent()
    pages: list[float] = []

    def look() -> None:
        for _ in range(4):
            pages.append(dash.get("/api/runs?size=50")[0])
            time.sleep(1.0)

    viewers = [threading.Thread(target=look) for _ in range(VIEWERS)]
    for number, viewer in enumerate(viewers):
        threading.Timer(number / VIEWERS, viewer.start).start()
    time.sleep(2)
    for viewer in viewers:
        viewer.join()
    done.set()
    return [
        Line(f"live update to the last of {VIEWERS} viewers", spread(times), "100 ms"),
        Line(f"first page while {VIEWERS} viewers look, each once a second", spread(pages), "300 ms (p95)"),
        Line(f"CPU of the server while {VIEWERS} viewers wait and nothing happens", f"{idle:.0f}% of one core"),
    ]


def writing() -> list[Line]:
    """Measures what the columns cost a training."""
    rows = [
        {"step": step, "train/loss": 1.0 / step, "train/accuracy": 0.5, "train/lr": 1e-3} for step in range(1, 50_001)
    ]
    rates: dict[bool, list[float]] = {False: [], True: []}
    longest = 0.0
    for _ in range(3):
        for columns in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                file = MetricsFile(Path(folder) / "metrics.jsonl", columns=columns)
                begin = time.perf_counter()
                for row in rows:
                    before = time.perf_counter()
                    file.write([row])
                    longest = max(longest, (time.perf_counter() - before) if columns else 0.0)
                rates[columns].append(len(rows) / (time.perf_counter() - begin))
                file.close()
    plain, kept = (statistics.median(rates[columns]) for columns in (False, True))
    return [
        Line("rows a second to the local file, with columns kept", f"{kept:,.0f}", "5,000"),
        Line(
            "what the columns cost of that, and the longest wait for a block",
            f"{(1 / kept - 1 / plain) * 1e6:.1f} us a row, {longest * 1e3:.0f} ms",
        ),
    ]


def report(lines: list[Line], num_rows: int) -> str:
    """Returns the table."""
    head = [
        f"# Dashboard: {platform.machine()} CPU, {psutil.cpu_count()} cores",
        "",
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}. Median (p95) of requests over loopback, one after the other.",
        f"The machine is shared. Rows of long runs: {num_rows:,}, five numbers each.",
        "",
        "| | measured | goal |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *(f"| {line.what} | {line.measured} | {line.goal} |" for line in lines)]) + "\n"


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "runs"
        make(folder, given.runs, given.rows)
        lines = writing()
        with serving(folder) as dash:
            lines += first_pages(dash)
            lines += charts(dash, given.rows)
            lines.append(Line("live update to one viewer", spread(live(dash, folder, "watched", 1)), "100 ms"))
            lines += crowd(dash, folder)
            memory = dash.process.memory_info().rss
            peak = next(
                int(line.split()[1]) * 1024
                for line in Path(f"/proc/{dash.process.pid}/status").read_text().splitlines()
                if line.startswith("VmHWM")
            )
        lines.append(
            Line(
                "memory of the server after all this, and at its peak",
                f"{memory / 1e6:.0f} MB, {peak / 1e6:.0f} MB",
                "500 MB",
            )
        )
    text = report(lines, given.rows)
    print(text)
    (HERE / "results" / "dashboard-cpu.md").write_text(text)


if __name__ == "__main__":
    main()
