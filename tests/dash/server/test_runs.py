"""The table of runs: whatever lies in the folder, kept up to date, filtered, sorted, grouped, paged."""

import json
import os
import shutil
import time

import pytest

from headway.dash.entries import read_entry
from headway.dash.query import Query
from headway.dash.runs import Runs
from headway.run import RunFolder


@pytest.fixture(scope="module")
def table(made):
    return Runs(made)


def ids(answer):
    return [row["id"] for row in answer["rows"]]


def ask(table, words="", **how):
    return table.answer(Query(words=words, **{"size": 500, **how}))


# ---- what lies in the folder -----------------------------------------------------------------------


def test_every_folder_is_a_row_and_no_sweep_is(table, made):
    answer = ask(table)
    folders = {path.name for path in made.iterdir() if path.is_dir() and not (path / "sweep.yaml").exists()}
    assert len(answer["rows"]) == answer["total"] == answer["matched"] == len(folders)
    assert set(ids(answer)) == folders
    assert answer["foreign"] == ["notes.txt"]
    assert answer["problem"] is None


def test_a_finished_run_tells_what_its_files_tell(table, made):
    run = RunFolder(made / "mlp-digits-0")
    status, manifest = run.status(), run.read_json("manifest.json")
    (row,) = ask(table, "id=mlp-digits-0", columns=("optim.lr", "val/loss", "best:val/loss", "nothing"))["rows"]
    assert row["state"] == "done"
    assert row["recipe"] == "mlp-digits"
    assert row["step"] == row["total_steps"] == 300
    assert row["started"] == manifest["started"]
    assert row["duration_s"] == round(manifest["ended"] - manifest["started"], 3)
    assert (row["metric_name"], row["metric"]) == ("val/loss", status["best"]["value"])
    assert row["values"]["val/loss"] == status["final"]["val/loss"]
    assert row["values"]["best:val/loss"] == status["best"]["value"]
    assert row["values"]["nothing"] is None
    assert f"lr: {row['values']['optim.lr']}" in run.recipe.read_text()
    assert row["source"] == "headway"


def test_trials_name_their_sweep(table):
    assert {row["sweep"] for row in ask(table, "id:digits-asha-00")["rows"]} == {"digits-asha"}
    assert {row["sweep"] for row in ask(table, "id:gpt")["rows"]} == {None}


def test_what_goes_wrong_is_shown_as_such(table):
    rows = {row["id"]: row for row in ask(table)["rows"]}
    assert rows["running-now"]["state"] == "running"
    assert rows["died-silently"]["state"] == "died"
    assert "is gone and left no word" in rows["died-silently"]["reason"]
    assert rows["half-written"]["state"] == "created"
    assert rows["holiday-photos"]["state"] == rows["holiday-photos"]["source"] == "unreadable"
    assert "no run" in rows["holiday-photos"]["reason"]
    problems = table.find("half-written").problems
    assert any(problem.startswith("status.json: is not JSON") for problem in problems)
    assert any(problem.startswith("recipe.yaml:") for problem in problems)


def put(runs, name, **files):
    (runs / name).mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        path = runs / name / file.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.quick
@pytest.mark.parametrize(
    "status",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"state": 7}',
        b'{"state": null}',
        b'{"state": "running", "pid": "x"}',
        b'{"state": "running", "pid": -1, "host": "HOST", "updated": "soon"}',
        b'{"best": [], "final": "x"}',
        b'{"best": {"metric": ["x"], "value": "y", "metrics": 3, "step": {}}}',
        b'{"step": "many", "updated": {}}',
        b'{"step": NaN, "updated": Infinity, "best": {"value": NaN, "metric": "val/loss"}}',
        b'{"recipe": {"a": 1}, "reason": [1]}',
        b'{"kind": "sweep"}',
        b'{"state": "running", "pid": 99999999999999999999999, "host": "HOST", "updated": 1}',
        b'{"step": 1' + b"0" * 400 + b"}",
    ],
)
def test_any_status_is_a_row(tmp_path, status):
    put(tmp_path, "run", recipe__yaml="name: x\n", status__json=status.replace(b"HOST", os.uname().nodename.encode()))
    answer = ask(Runs(tmp_path), columns=("val/loss", "name"))
    json.dumps(answer)
    assert ids(answer) == ["run"]
    assert answer["rows"][0]["state"] in ("created", "running", "died", "failed")
    for sort in ("-started", "metric", "step", "state", "val/loss", "updated", "recipe"):
        assert ids(ask(Runs(tmp_path), sort=sort, group="recipe")) == ["run"]


@pytest.mark.quick
@pytest.mark.parametrize(
    "recipe",
    [
        b"",
        b"- 1",
        b"a: [",
        b"\xff",
        b"a: &x [*x]",
        b"x" * 300_000,
        b"track: {tags: 3}",
        b"track:\n  tags:\n  - {a: 1}\n",
    ],
)
def test_any_recipe_is_a_row(tmp_path, recipe):
    put(tmp_path, "run", recipe__yaml=recipe, status__json='{"state": "done"}')
    answer = ask(Runs(tmp_path), "state=done")
    json.dumps(answer)
    assert ids(answer) == ["run"]


@pytest.mark.quick
def test_links_are_not_followed(tmp_path):
    put(tmp_path, "outside", recipe__yaml="name: secret\n", status__json='{"state": "done", "recipe": "secret"}')
    runs = tmp_path / "runs"
    put(runs, "own", recipe__yaml="name: own\n")
    (runs / "linked").symlink_to(tmp_path / "outside")
    (runs / "own" / "status.json").symlink_to(tmp_path / "outside" / "status.json")
    (runs / "dangling").symlink_to(tmp_path / "nowhere")
    answer = ask(Runs(runs))
    assert "secret" not in json.dumps(answer)
    assert {row["id"]: row["state"] for row in answer["rows"]} == {
        "linked": "unreadable", "dangling": "unreadable", "own": "created",
    }  # fmt: skip
    assert read_entry(runs, "own").problems == ("status.json: status.json is a link; links are not followed",)


@pytest.mark.quick
def test_names_that_are_no_text_are_shown_and_found(tmp_path):
    name = os.fsdecode(b"caf\xe9-\xff")
    put(tmp_path, name, recipe__yaml="name: x\n", status__json='{"state": "done"}')
    table = Runs(tmp_path)
    (row,) = ask(table)["rows"]
    assert row["id"] == "caf\\xe9-\\xff"
    found = table.find(row["id"])
    assert found is not None
    assert found.folder == name


@pytest.mark.quick
def test_a_folder_that_is_not_there_is_told(tmp_path):
    table = Runs(tmp_path / "runs")
    assert ask(table)["problem"] == f"{tmp_path}/runs: No such file or directory"
    (tmp_path / "runs").mkdir()
    time.sleep(1.01)
    assert ask(table)["problem"] is None


# ---- kept up to date -------------------------------------------------------------------------------


def looked(table):
    return table.refresh(at_most_every_s=0)


@pytest.mark.quick
def test_what_changes_is_told_and_what_does_not_is_not(tmp_path):
    for name in ("a", "b", "c"):
        put(tmp_path, name, recipe__yaml="name: x\n", status__json='{"state": "created"}')
        os.utime(tmp_path / name, (1, 1))
    table = Runs(tmp_path)
    assert {row["id"] for row in looked(table).changed} == {"a", "b", "c"}
    assert looked(table).changed == []
    RunFolder(tmp_path / "b").update_status(state="done", step=5)
    (row,) = looked(table).changed
    assert (row["id"], row["state"], row["step"]) == ("b", "done", 5)
    shutil.rmtree(tmp_path / "a")
    put(tmp_path, "d", recipe__yaml="name: x\n")
    changes = looked(table)
    assert changes.gone == ["a"]
    assert [row["id"] for row in changes.changed] == ["d"]
    assert {row["id"] for row in ask(table)["rows"]} == {"b", "c", "d"}


@pytest.mark.quick
def test_two_changes_within_one_tick_of_the_clock_are_both_seen(tmp_path):
    put(tmp_path, "a", recipe__yaml="name: x\n")
    table, run = Runs(tmp_path), RunFolder(tmp_path / "a")
    for step in range(200):
        run.update_status(step=step)
        looked(table)
        assert table.find("a").row["step"] == step


@pytest.mark.quick
def test_viewers_are_told_of_what_somebody_elses_question_found(tmp_path):
    put(tmp_path, "a", recipe__yaml="name: x\n")
    table = Runs(tmp_path)
    table.changes_since_last()
    put(tmp_path, "b", recipe__yaml="name: x\n")
    looked(table)
    assert [row["id"] for row in table.changes_since_last().changed] == ["b"]
    assert table.changes_since_last().changed == []


@pytest.mark.quick
def test_a_run_that_began_a_moment_ago_is_found(tmp_path):
    table = Runs(tmp_path)
    assert table.find("a") is None
    put(tmp_path, "a", recipe__yaml="name: x\n")
    assert table.find("a") is not None


@pytest.mark.quick
def test_runs_that_go_while_they_are_read_are_gone(tmp_path):
    for number in range(50):
        put(tmp_path, f"run-{number}", recipe__yaml="name: x\n", status__json='{"state": "done"}')
    table = Runs(tmp_path)
    looked(table)
    entry = table.find("run-7")
    shutil.rmtree(tmp_path / "run-7")
    assert entry.value("val/loss", tmp_path) is None
    assert looked(table).gone == ["run-7"]
    assert table.find("run-7") is None


# ---- asking ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        ("digits-asha", lambda row: "digits-asha" in row["id"]),
        ("DIGITS-ASHA stopped", lambda row: "digits-asha" in row["id"] and row["state"] == "stopped"),
        ("state=done", lambda row: row["state"] == "done"),
        ("-state=done", lambda row: row["state"] != "done"),
        ("recipe:conv", lambda row: "conv" in (row["recipe"] or "")),
        ("optim.lr>0.01", lambda row: (row["values"]["optim.lr"] or 0) > 0.01),
        ("optim.lr<1e-3", lambda row: (row["values"]["optim.lr"] or 1) < 1e-3),
        ("val/loss<0.3", lambda row: row["values"]["val/loss"] is not None and row["values"]["val/loss"] < 0.3),
        ("best:val/loss<0.3", lambda row: (row["values"]["best:val/loss"] or 1) < 0.3),
        ("best:val/loss:0.2", lambda row: "0.2" in str(row["values"]["best:val/loss"])),
        ("step=300", lambda row: row["step"] == 300),
        ("step=300.0", lambda row: row["step"] == 300),
        ("tags=set-1", lambda row: "set-1" in row["tags"]),
        ("tags:set", lambda row: any("set" in tag for tag in row["tags"])),
        ('"onerror=alert(2)"', lambda row: False),
        ("no-such-column=3", lambda row: False),
        ("no-such-column>3", lambda row: False),
        ("strategy>3", lambda row: False),
        ('id:"img src"', lambda row: "img src" in row["id"]),
        ("=", lambda row: False),
        ("sweep=digits-pbt", lambda row: row["sweep"] == "digits-pbt"),
    ],
)  # fmt: skip
def test_words_filter(table, words, holds):
    columns = ("optim.lr", "val/loss", "best:val/loss")
    everything = ask(table, columns=columns)["rows"]
    found = ask(table, words, columns=columns)
    assert set(ids(found)) == {row["id"] for row in everything if holds(row)}
    assert found["matched"] == len(found["rows"])
    assert found["total"] == len(everything)


@pytest.mark.parametrize("column", ["started", "metric", "recipe", "optim.lr", "val/loss", "state", "step", "tags"])
def test_any_column_sorts_with_what_is_missing_last_either_way(table, column):
    def values(sort):
        rows = ask(table, sort=sort, columns=(column,))["rows"]
        return [row["values"][column] for row in rows]

    up, down = values(column), values(f"-{column}")
    assert len(up) == len(down) == ask(table)["total"]
    having = [value for value in up if value is not None and value != []]
    assert having == up[: len(having)]
    assert having == sorted(having, key=lambda value: value if not isinstance(value, list) else ", ".join(value))
    assert down[: len(having)] == having[::-1]


def test_pages_are_parts_of_the_whole(table):
    whole = ids(ask(table))
    parts = [ids(ask(table, page=page, size=7)) for page in range(len(whole) // 7 + 2)]
    assert [name for part in parts for name in part] == whole
    assert len(ask(table, size=0)["rows"]) == 1
    assert ids(ask(table, everything=True, size=3)) == whole


def test_groups_are_counted_and_tell_their_best(table):
    answer = ask(table, group="recipe", sort="metric")
    assert sum(group["count"] for group in answer["groups"]) == answer["total"]
    keys = [row["recipe"] for row in answer["rows"]]
    assert [group["key"] for group in answer["groups"]] == list(dict.fromkeys(keys))
    assert keys[-1] is None
    for group in answer["groups"]:
        metrics = [
            row["metric"] for row in answer["rows"] if row["recipe"] == group["key"] and row["metric"] is not None
        ]
        assert group["best"] == min(metrics, default=None)
        assert metrics == sorted(metrics)


def test_columns_are_the_recipes_and_the_metrics(table):
    columns = ask(table)["columns"]
    assert {"optim.lr", "model.kind", "val/loss", "best:val/loss", "test/loss"} <= set(columns)
    assert not any(column.startswith("sweep.") for column in columns)
    assert len(columns) == len(set(columns))
