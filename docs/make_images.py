"""Takes the pictures of docs/images/ anew: real runs, a real sweep and real jobs, in `headway dash`, in a real browser.

    python docs/make_images.py [NAME ...] [--folder FOLDER]

It takes some minutes on two cores, and Debian's Chromium (`apt install chromium`). NAMEs are pictures, all when
absent. FOLDER is kept, so that taking pictures again does not train again. Names of this machine and its folders are
replaced in the page before a picture is taken.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright

import headway
from headway.config.errors import EXIT_DONE, EXIT_TRAINING_FAILED, EXIT_USER_ERROR, UserError
from headway.run import RunFolder
from headway.terminal import tell

IMAGES = Path(__file__).parent / "images"
DESKTOP, TALL, PHONE = (1440, 900), (1440, 1280), (390, 844)

# ---- what is shown -------------------------------------------------------------------------------

# One thread: on a machine that does something else, too, two that wait for each other take many times as long.
QUIETLY = ("track.wandb=disabled", "trainer.threads=1")
SWEEP = "digits-asha"
SEARCH = ["mlp-digits", "sweep.trials=32", "track.tags=[search]"]
GPT = "gpt-reference"
COMPARED = ("convnet", "convnet-slow", "convnet-fast", "mlp")
# The table of runs has the last one first.
FITS: list[tuple[str, list[str]]] = [
    ("tumours", ["logistic-breast-cancer", "track.tags=[tables]"]),
    ("diabetes", ["mlp-diabetes", "track.tags=[tables]"]),
    ("half-moons", ["mlp-two-moons"]),
    ("deep-relu", ["depth-relu", "track.health_every=20", "track.tags=[lesson]"]),
    ("deep-sigmoid", ["depth-sigmoid", "track.health_every=20", "track.tags=[lesson]"]),
    ("lstm-reference", ["lstm-python-docs", "trainer.max_steps=300", "trainer.validate_every=100"]),
    (GPT, ["gpt-python-docs", "trainer.max_steps=500", "trainer.validate_every=100", "track.health_every=20"]),
    ("denoiser", ["autoencoder-digits", "trainer.max_epochs=30"]),
    ("resnet", ["resnet20-digits", "trainer.max_epochs=8", "track.tags=[baseline]"]),
    ("mlp", ["mlp-digits", "track.tags=[baseline]"]),
    ("convnet-slow", ["convnet-digits", "optim.lr=3e-4", "track.tags=[rates]"]),
    ("convnet-fast", ["convnet-digits", "optim.lr=3e-2", "track.tags=[rates]"]),
    ("convnet-ddp", ["convnet-digits", "trainer.devices=2"]),
    ("convnet", ["convnet-digits", "track.tags=[rates, baseline]"]),
]
LONG = ["gpt-python-docs", "trainer.max_steps=20000", "trainer.validate_every=50"]
JOBS: dict[str, list[str]] = {
    "too-long": LONG,
    "digits-seeds": ["mlp-digits", "trainer.max_epochs=15", "--seeds", "1-2"],
    "too-fast": ["mlp-digits", "optim={kind: sgd, lr: 1e4, momentum: 0.9}"],
    "overnight": [*LONG, "--seeds", "1-2"],
}


def train(folder: Path) -> None:
    """Makes the sweep and the runs that are not there."""
    everything = [(SWEEP, ["sweep", *SEARCH]), *((name, ["fit", *arguments]) for name, arguments in FITS)]
    for name, arguments in everything:
        if RunFolder(folder / "runs" / name).status().get("state") != "done":
            call(folder, *arguments, *QUIETLY, "--name", name)


def send_jobs(folder: Path) -> None:
    """Sends jobs until one is cancelled, one failed, some are done, one runs and one waits for it."""
    runs = folder / "runs"
    shutil.rmtree(runs / ".jobs", ignore_errors=True)
    for run in [path for name in JOBS for path in runs.glob(f"{name}*")]:
        shutil.rmtree(run)
    for name, arguments in JOBS.items():
        call(folder, "submit", "fit", *arguments, *QUIETLY, "--on", "local", "--name", name)
        if name == "too-long":
            wait_for(lambda: RunFolder(runs / "too-long").status().get("best"), "a job's first validation")
            call(folder, "jobs", "cancel", name)
        if name != "overnight":
            call(folder, "jobs", "wait", name, or_exit_with=(EXIT_TRAINING_FAILED, 143))
    wait_for(lambda: RunFolder(runs / "overnight-seed1").status().get("best"), "a job's first validation")


def call(folder: Path, *arguments: str, or_exit_with: tuple[int, ...] = ()) -> None:
    """Runs a command of headway in a folder, whose `runs/` it works on."""
    tell("$ headway " + " ".join(arguments))
    done = subprocess.run([sys.executable, "-m", "headway", *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode not in (EXIT_DONE, *or_exit_with):
        raise UserError(f"headway {arguments[0]} ended with exit code {done.returncode}: {done.stderr.strip()[-2000:]}")


def wait_for(truth: Callable[[], Any], what: str, *, timeout_s: float = 300) -> None:
    """Waits until something is so."""
    until = time.monotonic() + timeout_s
    while not truth():
        if time.monotonic() > until:
            raise UserError(f"{what} did not come within {timeout_s:.0f} s")
        time.sleep(0.2)


# ---- the pictures --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A page as it is to be seen."""

    name: str
    """Of the file, and its theme."""
    address: str
    """What follows # in the page's address."""
    size: tuple[int, int] = DESKTOP
    """Width and height in pixels."""
    ready: str = ""
    """A selector of what comes last."""
    act: Callable[[Page], None] | None = None
    """What is done to the page first."""
    dark: bool = False
    """The theme."""


def point_at_the_loss(page: Page) -> None:
    """Puts the cursor into the middle of the first chart."""
    box = page.locator("[data-metric='train/loss'] .chart").bounding_box()
    assert box is not None
    for share in (0.4, 0.42):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + 0.08 * box["height"])


def brush_the_better_half(page: Page) -> None:
    """Drags along the axis of the result, from the best to the middle one."""
    place = page.evaluate(
        """async ([sweep]) => {
            const box = document.querySelector("[data-chart=parallel] .chart");
            const { trials } = await Headway.api.get("api/sweep/" + sweep);
            const results = trials.map((one) => one.result).filter(Number.isFinite).sort((one, other) => one - other);
            const parallel = echarts.getInstanceByDom(box).getModel().getComponent("parallel").coordinateSystem;
            const dim = parallel.dimensions.at(-1);
            const [x, bottom] = parallel.getAxisLayout(dim).position;
            const at = (value) => parallel.dataToPoint(value, dim)[1];
            const edge = box.getBoundingClientRect();
            const middle = results[Math.floor(results.length / 2)];
            return { x: edge.x + x, from: edge.y + bottom - 1, to: edge.y + at(middle) };
        }""",
        [SWEEP],
    )
    page.mouse.move(place["x"], place["from"])
    page.mouse.down()
    page.mouse.move(place["x"], (place["from"] + place["to"]) / 2, steps=4)
    page.mouse.move(place["x"], place["to"], steps=4)
    page.mouse.up()
    page.mouse.move(5, 5)
    page.wait_for_function("() => document.querySelector('#trials-count').textContent.includes(' of ')")


CHOSEN_COLUMNS = "id,state,strategy,step,metric,optim.lr,val/accuracy,tags"
PICTURES = [
    Picture("runs-light", "/runs"),
    Picture(
        "runs-dark", f"/runs?q=digits&group=recipe&sort=metric&columns={CHOSEN_COLUMNS}", ready="tr.group", dark=True
    ),
    Picture(
        "compare-light",
        f"/compare?runs={','.join(COMPARED)}&smooth=0.8",
        ready="[data-metric='val/loss'] canvas",
        act=point_at_the_loss,
    ),
    Picture("run-light", f"/run/{GPT}"),
    Picture("health-light", "/run/deep-sigmoid?tab=health", ready="[data-kind=grad_norm] canvas"),
    Picture("throughput-dark", f"/run/{GPT}?tab=throughput", ready="[data-metric] canvas", dark=True),
    Picture("sweep-light", f"/sweep/{SWEEP}", size=TALL, ready=".importance tbody tr", act=brush_the_better_half),
    Picture("jobs-light", "/jobs", ready=".state.is-running"),
    Picture("phone-runs", "/runs", size=PHONE),
    Picture("phone-sweep", f"/sweep/{SWEEP}", size=PHONE, ready=".importance tbody tr"),
    Picture(
        "phone-compare",
        f"/compare?runs={','.join(COMPARED[:3])}",
        size=PHONE,
        ready="[data-metric='train/loss'] canvas",
        dark=True,
    ),
]

# Runs in the page before its own scripts: whatever text of this machine comes into it is replaced at once.
ANONYMOUS = """([host, texts]) => {
    const replace = (node) => {
        let text = node.data.trim() === host ? "laptop" : node.data;
        texts.forEach(([from, to]) => (text = text.replaceAll(from, to)));
        if (text !== node.data) node.data = text;
    };
    const all = (root) => {
        if (root.nodeType === Node.TEXT_NODE) return void replace(root);
        const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) replace(walker.currentNode);
    };
    const changed = (one) => (one.type === "childList" ? one.addedNodes.forEach(all) : all(one.target));
    const observer = new MutationObserver((changes) => changes.forEach(changed));
    observer.observe(document, { subtree: true, childList: true, characterData: true });
}"""


def take(pictures: list[Picture], folder: Path) -> None:
    """Takes pictures of a folder's `runs/`.

    Raises:
        UserError: there is no Chromium.
    """
    program = find_chromium()
    texts = [[str(folder.resolve()), "/home/ada"], [str(Path(headway.__file__).with_name("__main__.py")), "headway"]]
    script = f"({ANONYMOUS})({json.dumps([socket.gethostname(), texts])})"
    with serving(folder / "runs") as address, sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for picture in pictures:
            phone = picture.size == PHONE
            context = chromium.new_context(
                viewport=ViewportSize(width=picture.size[0], height=picture.size[1]),
                color_scheme="dark" if picture.dark else "light",
                has_touch=phone,
                is_mobile=phone,
            )
            context.add_init_script(script)
            page = context.new_page()
            show(page, picture, address)
            write_compact(page.screenshot(), IMAGES / f"{picture.name}.png")
            tell(f"{picture.name}.png  {(IMAGES / f'{picture.name}.png').stat().st_size / 1000:.0f} kB")
            context.close()
        chromium.close()


def show(page: Page, picture: Picture, address: str) -> None:
    """Opens a picture's page and waits until all of it is drawn."""
    page.goto(address)
    page.wait_for_selector(".page[data-ready]")
    page.evaluate("hash => { location.hash = hash }", picture.address)
    name = picture.address.split("/")[1].partition("?")[0]
    page.wait_for_selector(f"[data-page={name}][data-ready]")
    if picture.ready:
        page.wait_for_selector(picture.ready, state="attached")
    if name != "jobs":
        page.wait_for_selector("[data-live=on]")
    page.wait_for_function("() => !document.querySelector('.is-loading')")
    if picture.act is not None:
        picture.act(page)
    page.wait_for_timeout(700)  # a chart in view draws with the next frames


@contextlib.contextmanager
def serving(runs: Path) -> Iterator[str]:
    """Gives the address of `headway dash` over a runs folder, with its token."""
    command = [sys.executable, "-m", "headway", "dash", "--runs", str(runs), "--no-open", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
            process.wait(timeout=20)


def find_chromium() -> str:
    """Returns the browser.

    Raises:
        UserError: there is none.
    """
    program = shutil.which("chromium")
    if program is None:
        raise UserError("chromium: not found; `apt install chromium`")
    return program


def write_compact(png: bytes, path: Path) -> None:
    """Writes a picture with a palette of 256 colours.

    They are picked one after the other: the colour that is worst off so far, by its distance and how much there is of
    it. So a surface keeps its very colour and so does a thin line, which Pillow's own ways mix with what is near.
    """
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    colours, place, count = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
    colours = colours.astype(np.int64)
    nearest = np.zeros(len(colours), dtype=np.uint8)
    distance = np.full(len(colours), np.inf)
    palette: list[np.ndarray] = []
    while len(palette) < min(256, len(colours)):
        palette.append(colours[np.argmax(distance * np.sqrt(count)) if palette else np.argmax(count)])
        to_it = ((colours - palette[-1]) ** 2).sum(axis=1)
        nearest[to_it < distance] = len(palette) - 1
        distance = np.minimum(distance, to_it)
    picture = Image.fromarray(nearest[place].reshape(pixels.shape[:2]))
    picture.putpalette(np.array(palette, dtype=np.uint8).tobytes())
    picture.save(path, optimize=True)


def make(names: list[str], folder: Path) -> None:
    """Makes the pictures of these names, of a folder whose runs are trained where they are not there."""
    known = {picture.name: picture for picture in PICTURES}
    for name in names:
        if name not in known:
            raise UserError(f"{name}: no picture; there are {', '.join(known)}")
    find_chromium()
    train(folder)
    send_jobs(folder)
    try:
        take([known[name] for name in names or known], folder)
    finally:
        call(folder, "jobs", "cancel", "overnight")
        call(folder, "jobs", "wait", "overnight", or_exit_with=(143,))


def main() -> int:
    """Makes what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="pictures; all when absent")
    parser.add_argument("--folder", type=Path, help="where runs are made and kept; one that goes away when absent")
    given = parser.parse_args()
    try:
        if given.folder is not None:
            given.folder.mkdir(parents=True, exist_ok=True)
            make(given.names, given.folder)
        else:
            with tempfile.TemporaryDirectory() as folder:
                make(given.names, Path(folder))
    except UserError as error:
        tell(f"make_images: {error}")
        return EXIT_USER_ERROR
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
