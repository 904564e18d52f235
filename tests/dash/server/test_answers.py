"""What the server answers over a folder with one of everything, and over what goes wrong while it is looked at."""

import gzip
import http.client
import json
import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from headway.run import RunFolder, read_metrics


def test_the_page_is_given_for_every_path_that_is_nothing_else(server):
    page = server.ask("/").body
    assert b"<!doctype html>" in page.lower()
    assert b"VERSION" not in page
    for path in ("/runs", "/a/b/c", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/assets"):
        assert server.ask(path).body == page
    assert server.ask("/assets/index.html").headers["cache-control"].startswith("public, max-age=31536000")


@pytest.mark.parametrize(
    "name",
    ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "/etc/passwd", "..", "", ".", "nothing.js", "a%00b", "vendor",
     "..%5capp.py", "%ff"],
)  # fmt: skip
def test_no_asset_lies_outside(server, name):
    answer = server.ask(f"/assets/{name}")
    assert answer.status == 404
    assert answer.json()["error"]


def test_large_answers_are_packed(server):
    plain = server.ask("/api/runs?all=1")
    packed = server.ask("/api/runs?all=1", Accept_Encoding="gzip")
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < len(plain.body) / 5
    assert json.loads(gzip.decompress(packed.body))["total"] == plain.json()["total"]


def test_a_runs_page_tells_what_its_folder_holds(server, made):
    page = server.get("/api/run/mlp-digits-0")
    run = RunFolder(made / "mlp-digits-0")
    assert page["recipe_yaml"] == run.recipe.read_text()
    assert page["recipe"]["model.kind"] == "mlp"
    assert page["status"] == run.status()
    assert page["manifest"] == run.read_json("manifest.json")
    assert {"train/loss", "val/loss", "perf/samples_per_s"} <= set(page["metrics"])
    assert page["health"]["layers"] == ["layers.0", "layers.1", "layers.2", "head"]
    assert page["health"]["kinds"] == ["grad_norm", "update_ratio", "activation_std"]
    assert page["logs"] == [0, 1]
    best = run.status()["best"]["step"]
    assert [one["step"] for one in page["checkpoints"]] == [150, 300]
    assert [one["newest"] for one in page["checkpoints"]] == [False, True]
    assert [one["best"] for one in page["checkpoints"]] == [best == 150, best == 300]
    assert page["checkpoints"][0]["bytes"] > 20_011
    assert {one["kind"] for one in page["media"]} == {"image", "table", "text"}
    assert {one["step"] for one in page["media"]} == {150, 300}
    assert page["problems"] == []
    last = [row["val/loss"] for row in read_metrics(run.metrics) if "val/loss" in row][-1]
    assert page["row"]["values"]["val/loss"] == last


def test_curves_are_those_of_the_rows(server, made):
    rows = read_metrics(made / "mlp-digits-0" / "metrics.jsonl")
    answer = server.get("/api/run/mlp-digits-0/series?names=val/loss,train/loss&points=50")
    assert answer["x"] == "step"
    few, many = answer["series"]
    assert few["x"] == [row["step"] for row in rows if "val/loss" in row]
    assert few["y"] == pytest.approx([row["val/loss"] for row in rows if "val/loss" in row], rel=1e-8)
    assert few["min"] is None
    assert len(many["x"]) == 50 == len(many["min"]) == len(many["max"])
    assert (many["rows"], many["last_step"]) == (300, 300)
    everything = server.get("/api/run/mlp-digits-0/series")["series"]
    assert {one["name"] for one in everything} == {
        name for row in rows for name in row if "/" in name and not name.startswith("health/")
    }
    first = rows[0]["time"]
    (timed,) = server.get("/api/run/mlp-digits-0/series?names=val/loss&x=time")["series"]
    assert timed["x"] == pytest.approx([row["time"] - first for row in rows if "val/loss" in row], abs=1e-3)
    (part,) = server.get("/api/run/mlp-digits-0/series?names=train/loss&from=100&to=110")["series"]
    assert part["x"] == [*range(100, 111)]


def test_health_is_a_map_of_layers_and_steps(server, made):
    rows = read_metrics(made / "mlp-digits-0" / "metrics.jsonl")
    answer = server.get("/api/run/mlp-digits-0/health?kind=update_ratio")
    assert answer["layers"] == ["layers.0", "layers.1", "layers.2", "head"]
    assert answer["steps"] == [*range(10, 301, 10)]
    for layer, values in zip(answer["layers"], answer["values"], strict=True):
        name = f"health/{layer}/update_ratio"
        assert values == pytest.approx([row[name] for row in rows if name in row], rel=1e-8)
    assert len(server.get("/api/run/mlp-digits-0/health?kind=grad_norm&points=7")["steps"]) == 7
    assert server.get("/api/run/mlp-digits-0/health?kind=nothing")["layers"] == []


def test_a_log_is_read_in_pieces(server, made):
    whole = (made / "mlp-digits-0" / "logs" / "rank-0.log").read_text()
    answer = server.get("/api/run/mlp-digits-0/log?rank=0")
    assert answer == {"text": whole, "next": len(whole), "size": len(whole), "truncated": False}
    assert server.get("/api/run/mlp-digits-0/log?rank=0&from=-20")["text"] == whole[-20:]
    assert server.get(f"/api/run/mlp-digits-0/log?rank=0&from={len(whole) - 5}")["text"] == whole[-5:]
    assert server.get("/api/run/mlp-digits-0/log?from=999999")["text"] == ""
    assert server.ask("/api/run/mlp-digits-0/log?rank=7").status == 404
    assert server.ask("/api/run/mlp-digits-0/log?rank=x").status == 400


def test_runs_are_compared_by_what_differs(server):
    answer = server.get("/api/compare?runs=mlp-digits-0,mlp-digits-1,gpt-python-docs-0")
    assert [row["id"] for row in answer["runs"]] == ["mlp-digits-0", "mlp-digits-1", "gpt-python-docs-0"]
    differences = {one["name"]: one["values"] for one in answer["differences"]}
    assert differences["model.kind"] == ["mlp", "mlp", "gpt"]
    assert "optim.lr" in differences
    assert "trainer.max_steps" not in differences
    assert answer["same"] > 10
    assert "perf/tokens_per_s" in answer["metrics"]
    assert (answer["missing"], answer["left_out"]) == ([], [])


def test_a_run_that_is_gone_does_not_keep_the_others_from_being_compared(server):
    answer = server.get("/api/compare?runs=mlp-digits-0,nothing,mlp-digits-1")
    assert [row["id"] for row in answer["runs"]] == ["mlp-digits-0", "mlp-digits-1"]
    assert answer["missing"] == ["nothing"]
    assert server.ask("/api/compare?runs=nothing,neither").status == 404


def test_runs_that_are_too_many_to_compare_are_named(serve, tmp_path):
    names = [f"run-{number:02d}" for number in range(53)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text("name: x\n")
    with serve(tmp_path) as server:
        answer = server.get(f"/api/compare?runs={','.join(names)}")
    assert [row["id"] for row in answer["runs"]] == names[:50]
    assert answer["left_out"] == names[50:]


def test_a_number_is_the_same_however_it_is_written(serve, tmp_path):
    for name, text in (("a", "lr: 1\nflag: true\nown: 0\n"), ("b", "lr: 1.0\nflag: 1\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text(text)
    with serve(tmp_path) as server:
        answer = server.get("/api/compare?runs=a,b")
    assert answer["differences"] == [{"name": "flag", "values": [True, 1]}, {"name": "own", "values": [0, None]}]
    assert answer["same"] == 1


def test_metrics_are_asked_for_in_measure_and_all_are_given_when_none_is_named(serve, tmp_path):
    (tmp_path / "wide").mkdir()
    row = {f"layer-{number}/norm": float(number) for number in range(311)}
    (tmp_path / "wide" / "metrics.jsonl").write_text(json.dumps({"step": 1, "time": 1.0, **row}) + "\n")
    with serve(tmp_path) as server:
        assert len(server.get("/api/run/wide/series")["series"]) == 311
        answer = server.ask(f"/api/run/wide/series?names={','.join(row)}")
        assert answer.status == 400
        assert answer.json()["error"] == "names: 311 metrics; ask for at most 200 at once"


@pytest.mark.parametrize(
    "odd", [{"pid": -5}, {"pid": 10**30}, {"pid": True}, {"pid": "7"}, {"pid": 7, "updated": "yesterday"}], ids=str
)
def test_a_status_with_no_process_of_this_world_is_a_run_like_others(serve, making, tmp_path, odd):
    run = making.make_fit(tmp_path, "mlp-digits", "odd", lr=1e-3, started=1e9, draw=random.Random(0), num_rows=31)
    run.write_json("status.json", {**run.status(), "state": "running", **odd})
    with serve(tmp_path) as server:
        for _ in range(2):
            assert [row["id"] for row in server.get("/api/runs")["rows"]] == ["odd"]
        assert "status.json: does not name its process" in server.get("/api/run/odd")["problems"]


# ---- no path leads out -----------------------------------------------------------------------------

OUTSIDE = (
    "..",
    "../..",
    "%2e%2e",
    "..%2f..%2fetc",
    "%2fetc",
    ".jobs",
    ".",
    "",
    "mlp-digits-0%2f..%2f..",
    "a%00b",
    "%ff%fe",
    ".dash.log",
)


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_run_lies_outside(server, name):
    for rest in ("", "/series", "/log?rank=0", "/file?path=media/x.png", "/health"):
        answer = server.ask(f"/api/run/{name}{rest}")
        assert answer.status == 404, (name, rest)
        assert "error" in answer.json()
    assert server.ask(f"/api/sweep/{name}").status == 404


@pytest.mark.parametrize(
    "path",
    ["../recipe.yaml", "media/../recipe.yaml", "media/../../mlp-digits-1/recipe.yaml", "recipe.yaml", "/etc/passwd",
     "media//etc/passwd", "media", "media/", "media/.", "media/nothing.png", "", "media/x%00.png",
     "checkpoints/00000150/position.json"],
)  # fmt: skip
def test_only_files_of_the_media_are_served(server, path):
    answer = server.ask(f"/api/run/mlp-digits-0/file?path={quote(path, safe='%')}")
    assert answer.status == 404
    assert answer.json() == {"error": "no such file among the run's media"}


def test_files_are_served_so_that_a_browser_runs_nothing(server, serve, making, tmp_path):
    answer = server.ask("/api/run/mlp-digits-0/file?path=media/misclassified-00000150.png")
    assert answer.body.startswith(b"\x89PNG")
    assert answer.headers["content-type"] == "image/png"
    assert "sandbox" in answer.headers["content-security-policy"]
    run = making.make_fit(tmp_path, "mlp-digits", "x", lr=1e-3, started=1e9, draw=random.Random(0), num_rows=31)
    kinds = {"a.html": "application/octet-stream", "a.svg": "image/svg+xml", "a.js": "application/octet-stream",
             "a.txt": "text/plain; charset=utf-8", "a.json": "application/json"}  # fmt: skip
    for name in kinds:
        (run.path / "media" / name).write_text("<script>alert(1)</script>")
    (tmp_path / "secret").write_text("secret")
    (run.path / "media" / "linked.txt").symlink_to(tmp_path / "secret")
    with serve(tmp_path) as other:
        for name, kind in kinds.items():
            answer = other.ask(f"/api/run/x/file?path=media/{name}")
            assert answer.headers["content-type"] == kind
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "script-src" not in answer.headers["content-security-policy"]
            assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert other.ask("/api/run/x/file?path=media/linked.txt").status == 404
        assert "linked.txt" not in json.dumps(other.get("/api/run/x"))


def test_a_hostile_name_is_a_name(server, made):
    name = next(path.name for path in made.iterdir() if path.name.startswith("<script>"))
    page = server.get(f"/api/run/{quote(name, safe='')}")
    assert page["id"] == name
    assert page["row"]["recipe"] == "<img src=x onerror=alert(3)>"
    answer = server.ask(f"/api/run/{quote(name, safe='')}")
    assert answer.headers["content-type"] == "application/json"
    assert server.get(f"/api/run/{quote(name, safe='')}/series?names=train/loss")["series"][0]["rows"] == 300


# ---- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/nothing", 404, "nothing of that name"),
        ("/api/runs?page=x", 400, "page: 'x' should be a whole number"),
        ("/api/run/mlp-digits-0/series?x=nothing", 400, "x: 'nothing'; there is step, time, tokens, samples"),
        ("/api/run/mlp-digits-0/series?from=nan", 400, "from: 'nan' should be a number"),
        ("/api/run/mlp-digits-0/series?x=tokens", 400, "reads no tokens; use step"),
        ("/api/run/nothing", 404, "nothing: no run of that name"),
        ("/api/sweep/nothing", 404, "nothing: no sweep of that name"),
        ("/api/job/nothing/log", 400, "nothing: no such job"),
    ],
)
def test_a_mistake_is_one_line(server, path, status, said):
    answer = server.ask(path)
    assert answer.status == status
    assert said in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_torn_half_written_and_foreign_things_tell_what_is_wrong(server):
    assert server.get("/api/run/torn-metrics")["problems"] == ["metrics.jsonl: 2 torn lines"]
    (curve,) = server.get("/api/run/torn-metrics/series?names=train/loss")["series"]
    assert curve["last_step"] == 302
    problems = server.get("/api/run/half-written")["problems"]
    assert any(problem.startswith("status.json") for problem in problems)
    assert any(problem.startswith("recipe.yaml") for problem in problems)
    assert server.get("/api/run/holiday-photos")["problems"]


# Root may read everything, unless it gives that up.
AS_ANYBODY = () if os.geteuid() else ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


@pytest.mark.skipif(bool(AS_ANYBODY) and shutil.which("setpriv") is None, reason="setpriv is not installed here")
def test_a_folder_that_may_not_be_read_is_shown_as_such_and_nothing_is_written(making, tmp_path, serve):
    runs = tmp_path / "runs"
    for name in ("open", "closed", "half"):
        making.make_fit(runs, "mlp-digits", name, lr=1e-3, started=1e9, draw=random.Random(0), num_rows=31)
    half = RunFolder(runs / "half")
    shut = [runs / "closed", half.metrics, half.recipe, half.path / "manifest.json", half.path / "media", half.log(0)]
    for path in shut:
        path.chmod(0)
    runs.chmod(0o500)
    try:
        with serve(runs, prefix=AS_ANYBODY) as server:
            rows = {row["id"]: row for row in server.get("/api/runs")["rows"]}
            assert (rows["closed"]["state"], rows["closed"]["reason"]) == ("unreadable", "Permission denied")
            assert rows["open"]["state"] == rows["half"]["state"] == "done"
            assert server.get("/api/run/closed")["problems"][0] == "Permission denied"
            problems = server.get("/api/run/half")["problems"]
            for name in ("recipe.yaml", "manifest.json", "media", "metrics.jsonl"):
                assert f"{name}: Permission denied" in problems
            assert server.get("/api/run/half/series?names=train/loss")["series"][0]["rows"] == 0
            assert server.ask("/api/run/half/log?rank=0").status == 403
            answer = server.post("/api/run/open/delete")
            assert answer.status == 400
            assert "nothing is done without a log" in answer.json()["error"]
    finally:
        runs.chmod(0o700)
        for path in shut:
            path.chmod(0o700)
    assert sorted(path.name for path in runs.iterdir()) == ["closed", "half", "open"]


def test_runs_that_are_deleted_while_they_are_looked_at_are_no_error(serve, making, tmp_path):
    for number in range(60):
        making.make_fit(
            tmp_path,
            "mlp-digits",
            f"run-{number}",
            lr=1e-3,
            started=1e9,
            draw=random.Random(0),
            num_rows=31,
            media=False,
        )
    with serve(tmp_path) as server, ThreadPoolExecutor(4) as pool:
        assert server.get("/api/runs")["total"] == 60
        paths = [
            f"/api/run/run-{number}{rest}" for number in range(60) for rest in ("", "/series", "/log", "/health")
        ] + ["/api/runs", "/api/compare?runs=run-1,run-2"] * 10
        random.Random(1).shuffle(paths)
        answers = pool.map(server.ask, paths)
        for number in range(60):
            shutil.rmtree(tmp_path / f"run-{number}")
        assert {answer.status for answer in answers} <= {200, 404}
        assert server.process.poll() is None


def test_huge_files_are_not_read_whole(serve, making, tmp_path):
    run = making.make_fit(tmp_path, "mlp-digits", "x", lr=1e-3, started=1e9, draw=random.Random(0), num_rows=31)
    for path in (
        run.path / "status.json",
        run.recipe,
        run.path / "manifest.json",
        run.path / "media" / "x.png",
        run.log(0),
    ):
        with path.open("r+b" if path.exists() else "wb") as file:
            file.truncate(1 << 36)
    with serve(tmp_path) as server:
        page = server.get("/api/run/x")
        assert "status.json: status.json is larger than 1,048,576 bytes" in page["problems"]
        assert server.ask("/api/run/x/file?path=media/x.png").status == 404
        log = server.get("/api/run/x/log?from=-65536")
        assert log["size"] == 1 << 36
        assert server.get("/api/run/x/log")["truncated"] is True


def test_an_unfinished_request_and_nonsense_do_no_harm(server):
    import socket

    for content in (b"GET", b"\0\1\2\3\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 5000, b"\r\n" * 1000):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(content)
    assert server.get("/api/about")["version"]
    assert server.ask("/api/runs?q=" + "x" * 60_000).status in (200, 400, 414, 431)


def test_the_server_imports_nothing_heavy():
    program = (
        "import sys, headway.dash.serve, headway.dash.app\n"
        "heavy = ('torch', 'lightning', 'ray', 'wandb', 'deepspeed', 'optuna', 'sklearn')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_a_connection_is_used_again(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    for _ in range(3):
        connection.request("GET", "/api/about")
        assert connection.getresponse().read()
    connection.close()
