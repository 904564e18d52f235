"""The dashboard as files, and runs that W&B wrote elsewhere."""

import json
import random
import shutil
import time
from pathlib import Path

import pytest

from headway.dash.export import answer_key
from headway.dash.offline_wandb import OfflineRuns
from headway.wandb_file import LogFile, read_offline_run, write_log


def data(folder):
    """Returns the answers that an exported page is given."""
    found = {}
    for path in (folder / "data").glob("*.js"):
        text = path.read_text()
        if path.name != "index.js":
            assert text.startswith('window.HEADWAY_EXPORT.put("')
            key, _, answer = text.removeprefix('window.HEADWAY_EXPORT.put("').partition('",')
            assert path.name == f"{key}.js"
            found[key] = json.loads(answer.removesuffix(");\n"))
    return found


@pytest.fixture(scope="module")
def exported(server, made, tmp_path_factory):
    from headway.dash.serve import write_export

    folder = tmp_path_factory.mktemp("export") / "page"
    num_runs = write_export(made, folder, wandb=None, progress=lambda _: None)
    return folder, data(folder), num_runs


def test_the_answers_are_the_servers(exported, server):
    folder, answers, num_runs = exported
    table = answers[answer_key("api/runs", {"all": "1"})]
    assert len(table["rows"]) == num_runs == server.get("/api/runs")["total"]
    assert set(table["rows"][0]["values"]) == set(table["columns"])
    assert answers["api~2Fabout"]["export"] is True
    assert answers["api~2Fabout"]["actions"] is False
    for path in ("api/run/mlp-digits-0", "api/run/torn-metrics", "api/run/holiday-photos", "api/sweeps", "api/jobs"):
        assert answers[answer_key(path, {})] == server.get(f"/{path}")
    for axis in ("step", "time", "tokens"):
        parameters = {"points": "1000", "x": axis}
        asked = server.get(f"/api/run/gpt-python-docs-1/series?points=1000&x={axis}")
        assert answers[answer_key("api/run/gpt-python-docs-1/series", parameters)] == asked
    assert answer_key("api/run/mlp-digits-0/series", {"points": "1000", "x": "tokens"}) not in answers
    log = answers[answer_key("api/run/mlp-digits-0/log", {"from": "-65536", "rank": "0"})]
    assert log == server.get("/api/run/mlp-digits-0/log?rank=0&from=-65536")
    assert answers[answer_key("api/sweep/digits-asha", {})]["importance"]
    picture = folder / "data" / "files" / "mlp-digits-0" / "media" / "misclassified-00000150.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = answers[answer_key("api/run/mlp-digits-0/file", {"path": "media/sample-00000150.txt"})]
    assert "def step_150" in text["text"]


def test_the_page_is_whole_and_takes_nothing_from_elsewhere(exported):
    folder, _, _ = exported
    page = (folder / "index.html").read_text()
    assert '<script defer src="data/index.js"></script>' in page
    assert "VERSION" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_a_folder_that_holds_something_is_left_alone(command, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "mine").write_text("kept")
    done = command("dash", "--export", tmp_path / "page", "--runs", tmp_path / "runs")
    assert done.returncode == 2
    assert done.stderr == f"headway: --export: {tmp_path}/page is not empty; name a new folder\n"
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["mine"]


def pictures_and_tables():
    """Returns what the SDK keeps as files or as many numbers, with names that a metric could have."""
    import numpy as np
    import wandb

    picture = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    return {
        "val/samples": wandb.Image(picture, caption="one"),
        "grid": [wandb.Image(picture), wandb.Image(picture + 1)],
        "answers": wandb.Table(columns=["wanted", "found"], data=[[1, 2], [3, 3]]),
        "weights": wandb.Histogram([0.1, 0.2, 0.2]),
    }


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """Returns a folder in which the real SDK left two runs, one of them torn."""
    import wandb

    folder = tmp_path_factory.mktemp("elsewhere")
    draw = random.Random(0)
    for name in ("whole", "torn"):
        with wandb.init(
            mode="offline", dir=str(folder), project="other", id=name, tags=["theirs"],
            config={"optim": {"lr": 0.1}, "depth": 3}, settings=wandb.Settings(silent=True),
        ) as run:  # fmt: skip
            for step in range(40):
                more = pictures_and_tables() if (name, step) == ("whole", 39) else {}
                run.log({"val/loss": 1.0 / (step + 1), "plain": draw.random(), **more})
            if name == "whole":
                run.name = "first try"
                (Path(run.dir) / "output.log").write_text("epoch 1\n")
    # The SDK's process may write a run out only after the run has ended here.
    until = time.monotonic() + 60
    while not all(read_offline_run(path).complete for path in folder.rglob("run-*.wandb")):
        assert time.monotonic() < until
        time.sleep(0.05)
    (path,) = folder.rglob("run-torn.wandb")
    path.write_bytes(path.read_bytes()[:-700])
    (folder / "run-none.wandb").write_bytes(b"nothing of W&B's")
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_runs_of_wandb_are_rows_and_curves(offline, serve, tmp_path):
    with serve(tmp_path, "--wandb", str(offline)) as server:
        rows = {row["id"]: row for row in server.get("/api/runs?columns=optim.lr,val/loss")["rows"]}
        assert set(rows) == {"wandb-whole", "wandb-torn"}
        whole = rows["wandb-whole"]
        assert (whole["source"], whole["state"], whole["recipe"], whole["tags"]) == (
            "wandb",
            "done",
            "other",
            ["theirs"],
        )
        assert whole["values"] == {"optim.lr": 0.1, "val/loss": pytest.approx(1 / 40)}
        assert whole["step"] == 39
        page = server.get("/api/run/wandb-whole")
        assert page["recipe"] == {"optim.lr": 0.1, "depth": 3}
        assert sorted(page["metrics"]) == ["val/loss", "wandb/plain"]  # the SDK keeps no order
        (curve,) = server.get("/api/run/wandb-whole/series?names=val/loss")["series"]
        assert curve["x"] == [*range(40)]
        assert curve["y"] == pytest.approx([1 / (step + 1) for step in range(40)])
        assert rows["wandb-torn"]["state"] in ("running", "died")
        assert any("torn at byte" in problem for problem in server.get("/api/run/wandb-torn")["problems"])
        assert [row["id"] for row in server.get("/api/runs?q=depth=3%20-id:torn")["rows"]] == ["wandb-whole"]
        assert server.post("/api/run/wandb-whole/delete").status == 400
        assert server.ask("/api/run/wandb-whole/file?path=media/x.png").status == 404


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pictures_tables_and_output_of_wandb_are_shown_and_are_no_metrics(offline, serve, tmp_path):
    with serve(tmp_path, "--wandb", str(offline)) as server:
        page = server.get("/api/run/wandb-whole")
        assert sorted(page["metrics"]) == ["val/loss", "wandb/plain"]  # the SDK keeps no order
        assert page["row"]["title"] == "first try"
        assert page["row"]["job"] is None
        kinds = {medium["name"]: (medium["kind"], medium["step"]) for medium in page["media"]}
        assert kinds == {
            "val/samples": ("image", 39), "grid/0": ("image", 39), "grid/1": ("image", 39), "answers": ("table", 39),
        }  # fmt: skip
        for medium in page["media"]:
            assert server.ask(f"/api/run/wandb-whole/file?path={medium['path']}").status == 200
        for path in ("media/../output.log", "output.log", "media/images/other.png", "../run-whole.wandb"):
            assert server.ask(f"/api/run/wandb-whole/file?path={path}").status == 404
        assert page["logs"] == [0]
        assert "epoch 1" in server.get("/api/run/wandb-whole/log?rank=0")["text"]
        assert [row["id"] for row in server.get("/api/runs?q=%22first%20try%22")["rows"]] == ["wandb-whole"]
        assert not any("grid" in name for name in page["manifest"]["summary"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_histograms_of_wandb_are_told_by_step_and_bin(offline, serve, tmp_path):
    with serve(tmp_path, "--wandb", str(offline)) as server:
        assert server.get("/api/run/wandb-whole")["histograms"] == ["weights"]
        assert server.get("/api/run/wandb-torn")["histograms"] == []
        found = server.get("/api/run/wandb-whole/histogram?name=weights")
        assert (found["name"], found["steps"], len(found["edges"])) == ("weights", [39], 65)
        assert (found["edges"][0], found["edges"][-1]) == (0.1, 0.2)
        (shares,) = found["shares"]
        assert (shares[0], shares[-1], sum(shares)) == (pytest.approx(1 / 3), pytest.approx(2 / 3), pytest.approx(1))
        for run, name in (("wandb-whole", "plain"), ("wandb-whole", ""), ("wandb-torn", "weights")):
            assert server.ask(f"/api/run/{run}/histogram?name={name}").status == 404


def test_an_export_has_their_histograms(offline, tmp_path):
    from headway.dash.serve import write_export

    (tmp_path / "runs").mkdir()
    write_export(tmp_path / "runs", tmp_path / "page", wandb=offline, progress=lambda _: None)
    answers = data(tmp_path / "page")
    key = answer_key("api/run/wandb-whole/histogram", {"name": "weights", "points": "200"})
    assert answers[key]["steps"] == [39]


def test_an_id_that_is_a_path_leads_nowhere(offline, tmp_path):
    from wandb.proto.wandb_internal_pb2 import Record, RunRecord

    from headway.dash.serve import write_export

    (folder,) = (path.parent for path in offline.rglob("run-whole.wandb"))
    evil = tmp_path / "elsewhere" / folder.name
    shutil.copytree(folder, evil)
    records = [*LogFile(evil / "run-whole.wandb").records(), Record(run=RunRecord(run_id="a/../../../../b,c"))]
    write_log(evil / "run-whole.wandb", records)
    (tmp_path / "runs").mkdir()
    write_export(tmp_path / "runs", tmp_path / "deep" / "page", wandb=tmp_path / "elsewhere", progress=lambda _: None)
    pictures = {path.relative_to(tmp_path).parts[:5] for path in tmp_path.rglob("*.png")}
    assert pictures == {
        ("elsewhere", folder.name, "files", "media", "images"),
        ("deep", "page", "data", "files", "wandb-a~2F..~2F..~2F..~2F..~2Fb~2Cc"),
    }


def test_a_file_that_is_none_of_wandbs_is_told_of(offline):
    found = OfflineRuns(offline)
    assert len(found.entries()) == 2, found.problems
    assert len(found.problems) == 1
    assert "not a run of W&B's" in found.problems[0]


def test_a_folder_without_such_runs_is_one_line(command, tmp_path):
    (tmp_path / "runs").mkdir()
    for folder, said in (("nowhere", "is no folder"), ("runs", "holds no run-*.wandb")):
        done = command("dash", "--no-open", "--runs", tmp_path / "runs", "--wandb", tmp_path / folder)
        assert done.returncode == 2
        assert done.stderr.startswith(f"headway: --wandb: {tmp_path / folder} {said}")
        assert done.stderr.count("\n") == 1
