"""What a person sees while a sweep runs, with a clock that the test turns."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from headway.sweep import progress
from headway.sweep.ledger import Counts
from headway.sweep.progress import Pace, SweepProgress, clock
from headway.sweep.result import Trial

pytestmark = pytest.mark.quick


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Returns a clock that stands still until a test sets it."""
    turned = SimpleNamespace(s=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: turned.s))
    return turned


def counts(
    done: int, *, stopped: int = 0, failed: int = 0, running: int = 2, paused: int = 0, total: int = 13
) -> Counts:
    pending = total - done - stopped - failed - running - paused
    return Counts(total, pending, running, done, stopped, failed, paused)


def ledger(at: Counts, best: Trial | None = None) -> Any:
    search = SimpleNamespace(metric="val/loss")
    return SimpleNamespace(
        counts=at, best=best, folder=SimpleNamespace(id="s"), plan=SimpleNamespace(num_trials=at.total, search=search)
    )


def test_the_time_left_is_by_the_pace_of_trials_that_ended(now: SimpleNamespace) -> None:
    pace = Pace(counts(0, running=0))
    now.s += 31  # Ray starts
    pace.update(counts(0))
    assert pace.left_s(counts(0)) is None
    now.s += 60
    assert pace.left_s(counts(1, stopped=1, failed=1)) == 20 * 10
    now.s += 60
    assert pace.left_s(counts(13, running=0)) == 0


def test_trials_that_had_ended_before_tell_nothing_of_the_pace(now: SimpleNamespace) -> None:
    pace = Pace(counts(7, running=0))
    pace.update(counts(7))
    now.s += 60
    assert pace.left_s(counts(7)) is None
    assert pace.left_s(counts(10)) == 20 * 3


@pytest.mark.parametrize(("seconds", "said"), [(5.9, "0:05"), (125, "2:05"), (3725, "1:02:05"), (0, "0:00")])
def test_times_are_as_a_clock_has_them(seconds: float, said: str) -> None:
    assert clock(seconds) == said


def test_the_line_has_counts_best_and_time_left(now: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    account = ledger(counts(0))
    shown = SweepProgress(account)
    shown.update()
    account.counts = counts(2, stopped=3)
    account.best = Trial("s-0003", "", "done", {}, 0.25, 10)
    now.s += 50
    shown.update()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == ("s  5/13 trials  2 running  2 done  3 stopped  0 failed  best val/loss 0.25 (s-0003)  1:20 left")


def test_those_that_wait_do_not_count_as_running(now: SimpleNamespace) -> None:
    shown = SweepProgress(ledger(counts(1, running=2, paused=4)))
    assert shown.summary() == "1/13 trials  2 running  4 paused  1 done  0 stopped  0 failed"
    assert shown.short_summary() == "1/13  2 running  4 paused"


def test_before_a_trial_ended_no_time_is_promised(now: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    shown = SweepProgress(ledger(counts(0)))
    now.s += 50
    shown.update()
    assert capsys.readouterr().err.splitlines() == ["s  0/13 trials  2 running  0 done  0 stopped  0 failed"]


@pytest.mark.parametrize("width", [80, 160])
def test_a_terminal_has_all_of_it_on_one_line(
    width: int, now: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": str(width), "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    account = ledger(counts(0))
    account.folder.id = "mlp-digits-sweep-20261122-234722-5002"
    shown = SweepProgress(account)
    shown.update()
    account.counts = counts(2, stopped=3)
    account.best = Trial(f"{account.folder.id}-0003", "", "done", {}, 0.25, 10)
    now.s += 50
    shown.close()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    last = [drawn for drawn in plain.split("\r") if drawn.strip()][-1]
    (line,) = last.strip("\n").splitlines()
    assert "5/13  2 running  3 stopped  best val/loss 0.25 (0003)" in line
    assert line.rstrip().endswith("1:20 left")
    assert (account.folder.id in line) == (width == 160)
