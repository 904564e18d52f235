"""A sweep's page: trials, rungs, lineage and best as its journal and its trials' folders tell them."""

import shutil

import pytest

from headway.dash.runs import Runs
from headway.dash.sweeps import Sweeps
from headway.run import read_metrics
from headway.sweep.folder import SweepFolder


@pytest.fixture(scope="module")
def asha(server, made):
    sweeps = Sweeps(Runs(made))
    yield sweeps.page("digits-asha", wait=True)
    sweeps.close()


def test_sweeps_are_listed_newest_first(server):
    sweeps = server.get("/api/sweeps")["sweeps"]
    assert [sweep["id"] for sweep in sweeps] == ["digits-pbt", "digits-asha"]
    (sweep,) = (sweep for sweep in sweeps if sweep["id"] == "digits-asha")
    assert (sweep["state"], sweep["scheduler"], sweep["searcher"]) == ("done", "asha", "random")
    assert (sweep["trials"], sweep["done"] + sweep["stopped"] + sweep["failed"]) == (27, 27)
    assert sweep["metric"] == "val/loss"


def test_trials_are_those_of_the_sweep(asha, made):
    trials = SweepFolder(made / "digits-asha").trials()
    assert [trial["run"] for trial in asha["trials"]] == [trial.run_id for trial in trials]
    assert [trial["number"] for trial in asha["trials"]] == [*range(27)]
    for shown, trial in zip(asha["trials"], trials, strict=True):
        assert (shown["state"], shown["values"], shown["result"]) == (trial.status, trial.config, trial.value)
        rows = [row for row in read_metrics(made / trial.run_id / "metrics.jsonl") if "val/loss" in row]
        assert shown["steps"] == rows[-1]["step"]
        assert shown["started"] < shown["ended"]


def test_axes_are_those_of_the_space(asha):
    axes = {axis["path"]: axis for axis in asha["axes"]}
    assert axes["init.kind"]["kind"] == "choice"
    assert "orthogonal" in axes["init.kind"]["choices"]
    assert (axes["optim.lr"]["kind"], axes["optim.lr"]["log"]) == ("float", True)
    assert (axes["model.dropout"]["kind"], axes["model.dropout"]["log"]) == ("float", False)


def test_rungs_tell_who_reached_them_and_who_was_stopped_there(asha):
    steps = {trial["number"]: trial["steps"] for trial in asha["trials"]}
    assert [rung["step"] for rung in asha["rungs"]] == [30, 90, 270]
    for rung, above in zip(asha["rungs"], [90, 270, 10**9], strict=True):
        assert rung["reached"] == [number for number, step in steps.items() if step >= rung["step"]]
        assert set(rung["stopped"]) <= {number for number in rung["reached"] if steps[number] < above}
    stopped = [number for rung in asha["rungs"] for number in rung["stopped"]]
    assert sorted(stopped) == [trial["number"] for trial in asha["trials"] if trial["state"] == "stopped"]


def test_what_mattered_is_told(asha):
    assert set(asha["importance"]) == {"init.kind", "model.dropout", "optim.lr"}
    assert sum(asha["importance"].values()) == pytest.approx(1)
    # The curves were made from the rate.
    assert max(asha["importance"], key=asha["importance"].get) == "optim.lr"


def test_the_best_gets_better_over_time(asha):
    values = [one["value"] for one in asha["best_over_time"]]
    times = [one["time"] for one in asha["best_over_time"]]
    assert values == sorted(values, reverse=True)
    assert times == sorted(times)
    assert values[-1] == min(trial["result"] for trial in asha["trials"] if trial["result"] is not None)


def test_a_population_tells_whose_weights_went_where(server):
    page = server.get("/api/sweep/digits-pbt")
    assert page["rungs"] == []
    assert {(one["taker"], one["giver"]) for one in page["lineage"]} == {(1, 0), (3, 2), (5, 4), (7, 6)}
    for one in page["lineage"]:
        assert one["step"] == 90
        assert "optim.lr" in one["settings"]


def test_a_sweep_with_nothing_but_its_recipe_is_a_page(made, serve, tmp_path):
    (tmp_path / "young").mkdir()
    shutil.copy(made / "digits-asha" / "sweep.yaml", tmp_path / "young")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sweep.yaml").write_text("sweep: [")
    with serve(tmp_path) as server:
        page = server.get("/api/sweep/young")
        assert (page["trials"], page["best_over_time"], page["importance"]) == ([], [], None)
        assert "0 trials" in page["reason"]
        listed = {sweep["id"]: sweep for sweep in server.get("/api/sweeps")["sweeps"]}
        assert listed["broken"]["state"] == "unreadable"
        assert server.ask("/api/sweep/broken").status == 400
        # A sweep's folder is no run.
        assert server.get("/api/runs")["total"] == 0


@pytest.mark.parametrize("file", ["sweep.yaml", "journal.jsonl", "status.json", "trials.jsonl"])
def test_a_sweeps_file_that_is_a_link_is_not_followed(made, serve, tmp_path, file):
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copytree(made / "digits-asha", runs / "digits-asha")
    (runs / "digits-asha" / file).rename(tmp_path / file)
    (runs / "digits-asha" / file).symlink_to(tmp_path / file)
    with serve(runs) as server:
        answer = server.ask("/api/sweep/digits-asha")
        assert answer.status == 400
        assert answer.json()["error"] == f"digits-asha/{file}: is no plain file; links are not followed"


def test_a_trial_that_is_a_link_is_not_followed(made, serve, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copytree(made / "digits-asha", runs / "digits-asha")
    (runs / "digits-asha-0099").symlink_to(made / "mlp-digits-0")
    with serve(runs) as server:
        answer = server.ask("/api/sweep/digits-asha")
        assert (answer.status, "link" in answer.json()["error"]) == (400, True)


def test_a_sweep_that_does_not_run_cannot_be_stopped(server):
    answer = server.post("/api/sweep/digits-asha/stop")
    assert answer.status == 400
    assert "does not run, it is done" in answer.json()["error"]
