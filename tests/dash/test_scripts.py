"""The page's scripts: read by the browser as they are, and without a way from data to markup."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import headway.dash
from headway.dash.export import answer_key

ASSETS = Path(headway.dash.__file__).parent / "assets"
SCRIPTS = sorted(ASSETS.glob("*.js"))
INDEX = (ASSETS / "index.html").read_text()
pytestmark = pytest.mark.quick


def test_the_page_loads_every_script_once() -> None:
    loaded = re.findall(r'<script defer src="assets/([^"?]+)\?v=VERSION"></script>', INDEX)
    assert sorted(loaded) == [path.name for path in SCRIPTS]
    assert INDEX.count("<script") == len(loaded)


def test_nothing_in_the_page_is_inline() -> None:
    assert not re.search(r"<style|\son\w+=|javascript:|style=", INDEX)
    assert INDEX.index("<!-- EXPORT -->") < INDEX.index("<script")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_makes_no_markup_from_text(path: Path) -> None:
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc|https?://(?!www\.w3\.org)"
    assert re.findall(ways, path.read_text()) == []


def node(program: str, *arguments: str) -> str:
    """Returns what a program of node prints; skips where there is none."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed here")
    done = subprocess.run(["node", "-e", program, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scripts_parse() -> None:
    program = "for (const path of process.argv.slice(1)) new vm.Script(fs.readFileSync(path, 'utf8'), {filename: path})"
    node(program, *map(str, SCRIPTS))


def test_page_and_export_name_an_answer_alike() -> None:
    asked = [
        ("api/runs", {"all": "1"}),
        ("api/run/täglich <b>/series", {"x": "step", "points": "1000", "names": ""}),
        ("api/run/a&b=c?d/log", {"rank": "0", "from": "-65536"}),
        ("api/run/" + "long-" * 40 + "/health", {"kind": "grad_norm", "points": "200"}),
    ]
    program = """
        globalThis.window = globalThis;
        (0, eval)(fs.readFileSync(process.argv[1], 'utf8'));
        console.log(JSON.stringify(JSON.parse(process.argv[2]).map(([path, params]) => Headway.api.key(path, params))));
    """
    names = json.loads(node(program, str(ASSETS / "api.js"), json.dumps(asked)))
    assert names == [answer_key(path, parameters) for path, parameters in asked]
    assert all(re.fullmatch(r"[A-Za-z0-9._~-]{1,150}", name) for name in names)


def test_what_never_ceases_to_change_is_drawn_all_the_same_and_never_twice_at_a_time() -> None:
    program = """
        globalThis.window = globalThis;
        (0, eval)(fs.readFileSync(process.argv[1], 'utf8'));
        const page = { signal: { aborted: false }, onLeave: (work) => (page.leave = work) };
        const told = { ran: 0, at_once: 0, most: 0 };
        const changed = Headway.dom.throttle(page, async () => {
            told.ran += 1;
            told.most = Math.max(told.most, (told.at_once += 1));
            await new Promise((done) => setTimeout(done, 40));
            told.at_once -= 1;
        }, 20);
        const changes = setInterval(changed, 2);
        const until = Date.now() + 30000;
        setInterval(() => {
            if (told.ran < 3 && Date.now() < until) return;
            clearInterval(changes);
            page.signal.aborted = true;
            page.leave();
            const before = told.ran;
            changed();
            setTimeout(() => (console.log(JSON.stringify({ ...told, after: told.ran - before })), process.exit()), 200);
        }, 1);
    """
    told = json.loads(node(program, str(ASSETS / "dom.js")))
    assert told["ran"] >= 3
    assert told["most"] == 1
    assert told["after"] == 0
