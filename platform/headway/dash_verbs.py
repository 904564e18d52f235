"""`headway dash`: the runs folder as a web page."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from headway.config.errors import EXIT_DONE
from headway.terminal import print_json, print_table, tell
from headway.verbs import Json, Runs


def add_dash(app: App) -> None:
    """Gives a command line `dash`."""
    app.command(dash)


def dash(
    *,
    runs: Runs = Path("runs"),
    host: str = "127.0.0.1",
    port: int | None = None,
    read_only: Annotated[bool, Parameter(negative="")] = False,
    open_browser: Annotated[bool | None, Parameter(name="--open", negative="--no-open")] = None,
    wandb: Path | None = None,
    export: Path | None = None,
    json: Json = False,
) -> int:
    """Look at runs, sweeps and jobs in a browser.

    Parameters
    ----------
    host
        Address to answer at. Another than this machine's own needs the token for everything.
    port
        Port; a free one from 6007 on when absent.
    read_only
        Refuse to cancel, retry, stop and delete.
    open_browser
        Open it in a browser; done where there is a screen, when absent.
    wandb
        Folder of runs that Weights & Biases wrote offline, shown among the others.
    export
        Write the page with everything in it into this new folder, to send or to keep, and serve nothing.
    """
    if export is not None:
        return _export(runs, export, wandb=wandb, as_json=json)
    from headway.dash.serve import Address, serve

    def announce(address: Address) -> None:
        tunnel = address.tunnel(dict(os.environ))
        if json:
            print_json({"url": address.url, "host": address.host, "port": address.port, "token": address.token})
        else:
            rows = [["dashboard", address.url], ["runs", str(runs.resolve())]]
            if tunnel is not None:
                rows += [["from your machine", tunnel], ["", "then open the address above there"]]
            print_table(["", ""], [*rows, ["stop", "Ctrl-C"]])
        sys.stdout.flush()

    shown = open_browser if open_browser is not None else _has_screen()
    # Ctrl-C is how it ends.
    with contextlib.suppress(KeyboardInterrupt):
        serve(runs, host=host, port=port, read_only=read_only, open_browser=shown, announce=announce, wandb=wandb)
    return EXIT_DONE


def _export(runs: Path, folder: Path, *, wandb: Path | None, as_json: bool) -> int:
    from headway.dash.serve import write_export

    num_runs = write_export(runs, folder, wandb=wandb, progress=tell)
    if as_json:
        print_json({"folder": str(folder), "runs": num_runs})
    else:
        print_table(["", ""], [["runs", f"{num_runs:,}"], ["open", str((folder / "index.html").resolve())]])
    return EXIT_DONE


def _has_screen() -> bool:
    """Returns whether a browser would open in front of who typed the command."""
    environment: Any = os.environ
    if not sys.stdout.isatty() or "SSH_CONNECTION" in environment:
        return False
    return sys.platform == "darwin" or "DISPLAY" in environment or "WAYLAND_DISPLAY" in environment
