"""What the tests of tracking share: a fake W&B server, and rows that are there once each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_wandb import FakeWandb

from headway.track.patience import SERVERS


@pytest.fixture(autouse=True)
def _no_grudges() -> Iterator[None]:
    """A server that one test has killed is another's at the same address."""
    SERVERS.forget()
    yield
    SERVERS.forget()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWandb]:
    """Gives a fake W&B server that this process's SDK, and those of its children, talk to."""
    import wandb

    with FakeWandb() as fake:
        wandb.teardown()
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        yield fake
        wandb.teardown()
