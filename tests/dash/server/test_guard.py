"""Who is answered, and with which headers: over a real server, with the very bytes that a browser would send."""

import json
import os
import random
import socket
import stat
import subprocess
import sys
import time

import pytest

from headway.dash.guard import access_for, is_loopback
from headway.dash.serve import Address

OTHERS = (
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "10.0.0.1",
    "",
    "[",
    "a b",
    "localhost@evil.example",
)


@pytest.mark.parametrize("host", OTHERS)
@pytest.mark.parametrize("path", ["/", "/api/about", "/api/runs", "/assets/index.html"])
def test_a_name_that_was_made_to_point_here_is_refused(server, host, path):
    answer = server.ask(path, Host=host)
    assert answer.status in (400, 403)
    assert b"runs_folder" not in answer.body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:81", "127.0.0.1:9999", "[::1]:6007"])
def test_this_machine_by_any_name_and_port_is_answered_since_a_tunnel_has_its_own(server, host):
    assert server.ask("/api/about", Host=host).status == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:1", "file://", "x", "http://["]
)
def test_another_pages_request_is_refused(server, origin):
    for ask in (server.ask, server.post):
        answer = ask("/api/about", Origin=origin)
        assert answer.status == 403
        assert "Origin" in answer.json()["error"]


def test_its_own_pages_request_is_answered(server):
    own = f"127.0.0.1:{server.port}"
    assert server.ask("/api/about", Origin=f"http://{own}").status == 200
    assert server.ask("/api/about", Host="localhost:4321", Origin="http://localhost:4321").status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_browser_that_says_that_another_page_asks_is_believed(server, site):
    assert server.ask("/api/runs", Sec_Fetch_Site=site).status == 403
    # A link from elsewhere to the page itself is fine.
    assert server.ask("/", Sec_Fetch_Site=site).status == 200
    assert server.ask("/api/runs", Sec_Fetch_Site="same-origin").status == 200


@pytest.mark.parametrize(
    "path", ["/", "/api/about", "/api/nothing", "/any/where", "/api/runs?page=x", "/assets/none.js"]
)
def test_every_answer_has_the_headers(server, path):
    headers = server.ask(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; ")
    assert "unsafe-eval" not in policy
    assert "unsafe-inline" not in policy.replace("style-src 'self' 'unsafe-inline'", "")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    if path.startswith("/api/"):
        assert headers["cache-control"] == "no-store"
    assert "server" not in headers


def test_refusals_have_the_headers_too(server):
    assert "content-security-policy" in server.ask("/", Host="evil.example").headers


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
def test_other_methods_are_refused(server, method):
    assert server.ask("/api/runs", method=method).status in (400, 405)


ACTIONS = (
    "/api/run/mlp-digits-0/delete",
    "/api/job/x/cancel",
    "/api/job/x/retry",
    "/api/sweep/digits-asha/stop",
    "/api/login",
)


@pytest.mark.parametrize("path", ACTIONS)
@pytest.mark.parametrize("token", ["", "wrong", "\xff"])
def test_what_changes_something_needs_the_token(server, made, path, token):
    headers = {"X_Headway_Token": token} if token else {}
    answer = server.ask(path, method="POST", **headers)
    assert answer.status == 401
    assert "token" in answer.json()["error"]
    assert (made / "mlp-digits-0" / "recipe.yaml").exists()


@pytest.mark.parametrize("path", ACTIONS[:-1])
def test_a_cookie_is_not_enough_to_change_something(server, path):
    # A browser sends it by itself, whoever asks; the header is only sent by the page.
    assert (
        server.ask(path, method="POST", Cookie=f"{access_for('127.0.0.1', server.token).cookie}={server.token}").status
        == 401
    )


@pytest.mark.parametrize("path", ACTIONS[:-1])
def test_looking_at_an_action_does_nothing(server, path):
    assert server.ask(path, X_Headway_Token=server.token).status in (404, 405)


def test_another_address_needs_the_token_for_everything(serve, made):
    with serve(made, "--host", "0.0.0.0") as server:
        for path in ("/api/about", "/api/runs", "/api/events?table=1", "/api/run/mlp-digits-0/file?path=media/x.png"):
            assert server.ask(path).status == 401
            assert server.ask(path, X_Headway_Token="wrong").status == 401
        assert server.ask("/").status == 200
        assert server.ask("/api/about", X_Headway_Token=server.token).json()["token_needed"] is True
        answer = server.post("/api/login")
        assert answer.status == 200
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert server.ask("/api/runs", Cookie=cookie.partition(";")[0]).status == 200
        name = cookie.partition("=")[0]
        assert server.ask("/api/runs", Cookie=f"{name}=wrong; a=b").status == 401
        assert server.ask("/api/runs", Cookie=f'x="; {name}').status == 401
        assert server.ask("/api/about", Host="evil.example", X_Headway_Token=server.token).status == 403
        own = socket.gethostname()
        assert server.ask("/api/about", Host=f"{own}:{server.port}", X_Headway_Token=server.token).status == 200


@pytest.mark.quick
def test_an_address_is_loopback_or_needs_the_token():
    for host in ("127.0.0.1", "localhost", "::1", "127.8.9.10"):
        assert is_loopback(host)
        assert not access_for(host, "x").token_needed
    for host in ("0.0.0.0", "::", "10.1.2.3", "my-node", "localhost.evil.example"):
        assert not is_loopback(host)
        assert access_for(host, "x").token_needed


@pytest.mark.quick
def test_two_servers_of_one_machine_do_not_take_each_others_cookie():
    """A browser gives the cookies of a name to every port of it."""
    first, second = (access_for("0.0.0.0", token).cookie for token in ("one", "other"))
    assert first != second


@pytest.mark.quick
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_that_is_nowhere_to_go_to_is_printed_as_this_machines_name(host):
    assert Address(host, 6007, "t").url == f"http://{socket.gethostname()}:6007/#token=t"
    assert socket.gethostname().lower() in access_for(host, "t").hosts


@pytest.mark.quick
def test_over_ssh_the_tunnel_is_told():
    environment = {"SSH_CONNECTION": "10.0.0.9 51234 10.0.0.2 22"}
    tunnel = Address("127.0.0.1", 6007, "t").tunnel(environment)
    assert tunnel is not None
    assert tunnel.startswith("ssh -N -L 6007:127.0.0.1:6007 ")
    assert tunnel.endswith("@10.0.0.2")
    assert Address("127.0.0.1", 6007, "t").tunnel({}) is None
    assert Address("10.0.0.2", 6007, "t").tunnel(environment) is None
    assert Address("::1", 6007, "t").url == "http://[::1]:6007/#token=t"


def test_over_ssh_the_command_prints_it(made):
    command = [sys.executable, "-m", "headway", "dash", "--runs", str(made), "--no-open"]
    environment = {**os.environ, "SSH_CONNECTION": "10.0.0.9 51234 10.0.0.2 22"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(4)]
    process.terminate()
    process.communicate(timeout=20)
    text = " ".join(told)
    assert "#token=" in text
    assert "ssh -N -L" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--runs", "nowhere"), "headway: --runs: nowhere is no folder; name the one that `headway fit` writes to\n"),
        (("--host", "no.such.host.invalid"), "headway: --host: no.such.host.invalid is no address"),
        (("--host", "203.0.113.7"), "headway: --host: 203.0.113.7: cannot be bound"),
        (("--port", "70000"), "headway: --port: 70000"),
    ],
)
def test_what_cannot_be_served_is_one_line(command, tmp_path, options, said):
    (tmp_path / "runs").mkdir()
    done = command("dash", "--no-open", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_told_and_none_given_is_found(command, serve, made, server):
    done = command("dash", "--no-open", "--runs", made, "--port", str(server.port))
    assert done.returncode == 2
    assert done.stderr == f"headway: --port: {server.port}: cannot be bound (Address already in use); choose another\n"
    with serve(made) as other:
        assert other.port != server.port


# ---- the log of what was done ----------------------------------------------------------------------


def test_what_was_asked_for_is_logged_for_its_owner_alone(serve, making, tmp_path):
    making.make_fit(tmp_path, "mlp-digits", "mine", lr=1e-3, started=1e9, draw=random.Random(0), num_rows=31)
    now = time.time()
    running = making.make_fit(
        tmp_path, "mlp-digits", "busy", lr=1e-3, started=now, draw=random.Random(0), num_rows=31, state="running"
    )
    with serve(tmp_path) as server:
        answer = server.post("/api/run/busy/delete")
        assert (answer.status, answer.json()) == (400, {"error": "busy: is running; stop it first"})
        assert running.recipe.exists()
        assert server.post("/api/run/nothing/delete").status == 404
        assert server.post("/api/run/..%2Fx/delete").status in (404, 405)
        assert server.post("/api/run/mine/delete").json() == {"result": "deleted"}
        assert not (tmp_path / "mine").exists()
        assert [row["id"] for row in server.get("/api/runs")["rows"]] == ["busy"]
        assert server.post("/api/job/none/cancel").status == 400
    log = tmp_path / ".dash.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(row["action"], row["subject"], row["result"]) for row in rows[:2]] == [
        ("delete-run", "busy", "asked"),
        ("delete-run", "busy", "failed: busy: is running; stop it first"),
    ]
    assert ("delete-run", "mine", "done: deleted") in [(row["action"], row["subject"], row["result"]) for row in rows]
    assert {row["address"] for row in rows} == {"127.0.0.1"}
    assert server.token not in log.read_text()


def test_read_only_changes_nothing(serve, making, tmp_path):
    run = making.make_fit(tmp_path, "mlp-digits", "mine", lr=1e-3, started=1e9, draw=random.Random(0), num_rows=31)
    with serve(tmp_path, "--read-only") as server:
        assert server.get("/api/about")["actions"] is False
        answer = server.post("/api/run/mine/delete")
        assert answer.status == 400
        assert "only looks" in answer.json()["error"]
    assert run.recipe.exists()
