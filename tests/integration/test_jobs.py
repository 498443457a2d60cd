"""The durable job plane over HTTP: T1 to T17 of direct-api.md 5.5, states, audit, fairness, retries."""
import json
import pathlib
import resource
import urllib.parse

import pytest
from conftest import slow
from jobs import BASE, JOBS, NODE, OPS, SECRET, echo, marked, mint
from node import is_sanitized, wait_until
from wire import Wire


@pytest.fixture
def plane(make_plane):
    return make_plane()


def actions(snapshot):
    return [a["action"] for a in snapshot["audit"]]


def types(snapshot):
    return [e["type"] for e in snapshot["events"]]


BEGIN = ["job_created", "job_queued", "reservation_created", "envelope_issued", "job_scheduled", "job_started"]


def test_an_echo_from_create_to_end(plane):
    job_id = plane.queue(echo("hi"))
    s = plane.ended(job_id, slow(20))
    job = s["job"]
    assert job["state"] == "succeeded" and types(s) == ["started", "stdout", "progress", "completed"]
    assert [e["sequence"] for e in s["events"]] == [0, 1, 2, 3]
    assert s["events"][0]["message"] == "Running tenant.test-echo"
    assert s["events"][0]["data"] == {"runner": "test.echo", "sandbox_profile": "owner-local-process", "timeout_ms": 3600000}
    assert s["events"][1]["message"] == "hi" and s["events"][1]["data"] == {"runner": "test.echo", "index": 0, "repeat": 1}
    assert s["events"][3]["data"] == {"status": "succeeded", "exit_code": 0, "runner": "test.echo"}
    assert [(log["message"], log["sequence"], log["stream"], log["truncated"]) for log in s["logs"]] == [("hi", 1, "stdout", False)]
    assert s["artifacts"] == [] and job["artifacts"] == []
    result = job["result"]
    assert result["status"] == "succeeded" and result["exit_code"] == 0 and result["job_id"] == job_id
    assert result["metrics"] == {"runner": "test.echo", "echoed": 1, "message": "hi"}
    assert actions(s) == BEGIN + ["job_event_recorded"] * 4 + ["job_completed", "reservation_released"]
    assert [a["details"] for a in s["audit"] if a["action"] == "job_event_recorded"] == [
        {"type": e["type"], "sequence": e["sequence"]} for e in s["events"]]
    assert len({a["audit_id"] for a in s["audit"]}) == len(s["audit"])
    assert job["reservation"]["released_at"] and job["reservation"]["resources"] == {}
    assert job["tenant_id"] == "owner-local" and job["idempotency_key"] == f"owner-local:{job_id}" and job["priority"] == 0
    assert job["job"] == echo("hi")
    assert SECRET not in json.dumps(s) and "eyJ" not in json.dumps(s)


def test_the_sandbox_is_the_one_that_there_is(plane):
    job = echo()
    job["policy"] = {"trust_mode": "tenant-owned"}
    assert plane.ended(plane.queue(job), slow(20))["events"][0]["data"]["sandbox_profile"] == "owner-local-process"


def test_reads_ignore_the_request_id(plane):
    job_id = plane.queue(echo())
    plane.ended(job_id, slow(20))
    for rest, name in [("/events", "events"), ("/logs", "logs"), ("/artifacts", "artifacts"), ("/audit", "audit")]:
        body = plane.get(job_id, rest, request_id="another")
        assert body["job_id"] == job_id and isinstance(body[name], list) and set(body) == {"job_id", name}


def test_cancel_and_retry_of_an_ended_job(plane):
    job_id = plane.queue(echo())
    plane.ended(job_id, slow(20))
    status, body = plane.ask(job_id, "cancel")
    assert status == 202 and body["job"]["state"] == "succeeded" and actions(body)[-1] == "job_cancel_requested"
    status, body = plane.ask(job_id, "retry")
    assert status == 400 and body == {"error": "bad_request", "code": "validation_failed", "message": "job_retry_not_allowed_for_succeeded_jobs"}


def test_idempotency(plane):
    job_id = plane.queue(echo())
    plane.ended(job_id, slow(20))
    status, body, _ = plane.create(echo("other"), job_id)
    assert status == 200 and actions(body)[-1] == "job_idempotent_reused" and body["job"]["job"] == echo("hi")
    conflict = {"error": "conflict", "code": "idempotency_key_conflict", "message": "idempotency_key_conflict"}
    assert plane.create(echo(), job_id, "r2")[:2] == (409, conflict)
    keyed = {**echo(), "idempotency_key": "k1"}
    a = plane.queue(keyed)
    assert plane.create(keyed, "fresh")[:2] == (409, conflict)
    assert plane.create({**echo(), "idempotency_key": "k2"}, a)[:2] == (409, {"error": "conflict", "code": "job_id_conflict", "message": "job_id_conflict"})


def test_cancel_while_it_runs(plane):
    job_id = plane.queue(echo(delay_ms=int(slow(300)), repeat=10))
    wait_until(lambda: plane.get(job_id)["logs"], slow(10), "its first line")
    status, body = plane.ask(job_id, "cancel")
    assert status == 202 and body["job"]["state"] == "running"
    s = plane.ended(job_id, slow(20))
    assert s["job"]["state"] == "cancelled" and s["job"]["reservation"]["released_at"]
    assert s["job"]["result"]["error"] == {"code": "cancelled", "message": "generic job cancelled", "retryable": False}
    assert s["events"][-1]["type"] == "cancelled" and s["events"][-1]["data"] == {"code": "cancelled"}
    assert actions(s)[-3:] == ["job_event_recorded", "job_cancelled", "reservation_released"]


def test_cancel_while_it_waits(plane):
    first = plane.queue(echo(delay_ms=30000))
    job_id = plane.queue(echo())
    assert plane.get(job_id)["job"]["backpressure"] == {"reason": "node_at_capacity", "message": "Node is at generic job concurrency limit.",
                                                        "retry_after_ms": 1000}
    status, body = plane.ask(job_id, "cancel")
    assert status == 202 and body["job"]["state"] == "cancelled" and actions(body)[-2:] == ["job_cancel_requested", "job_cancelled"]
    assert body["job"]["result"]["error"] == {"code": "cancelled", "message": "generic job cancelled before dispatch"}
    plane.ask(first, "cancel")
    assert plane.ended(first, slow(20))["job"]["state"] == "cancelled"


def test_blocked_and_retried(plane):
    job = {**echo(), "job_type": "render.blender"}
    status, _, job_id = plane.create(job)
    assert status == 202
    token = {"job_type": "render.blender"}
    wait_until(lambda: plane.get(job_id, **token)["job"]["state"] == "blocked", slow(10), "blocked")
    s = plane.get(job_id, **token)
    assert s["job"]["backpressure"] == {"reason": "no_capable_node", "message": "Blender is not available on this node."}
    assert s["job"]["result"]["error"] == {"code": "no_capable_node", "message": "Blender is not available on this node.", "retryable": True}
    assert actions(s) == ["job_created", "job_queued", "job_blocked"] and s["events"] == []
    status, body = plane.ask(job_id, "retry", **token)
    assert status == 202 and body["job"]["retry"]["retry_count"] == 1 and "result" not in body["job"] and body["job"]["state"] == "queued"


def test_tenants_wait_for_each_other_and_none_starves(make_plane):
    plane = make_plane(concurrency=2)
    a = plane.queue(echo(tenant="A", delay_ms=int(slow(1500))))
    wait_until(lambda: plane.state(a) == "running", slow(10), "A runs")
    b = plane.queue(echo(tenant="B"))
    assert plane.get(b)["job"]["backpressure"] == {"reason": "tenant_reserved",
                                                   "message": "Node is reserved for another tenant until active jobs finish."}
    c = plane.queue(echo(tenant="A"))
    ended = {name: plane.ended(job_id, slow(20))["job"] for name, job_id in (("a", a), ("b", b), ("c", c))}
    assert {j["state"] for j in ended.values()} == {"succeeded"}
    assert ended["c"]["started_at"] < ended["a"]["finished_at"], "A's own job uses A's free place"
    assert max(ended["a"]["finished_at"], ended["c"]["finished_at"]) <= ended["b"]["started_at"]


def test_priority_and_deadline(plane):
    first = plane.queue(echo(delay_ms=int(slow(700))))
    wait_until(lambda: plane.state(first) == "running", slow(10), "the first runs")
    late = plane.queue(echo(scheduling={"deadline_at": "2020-01-01T00:00:00Z"}))
    low = plane.queue(echo("low", scheduling={"priority": 5}))
    high = plane.queue(echo("high", scheduling={"priority": -5}))
    assert plane.ended(late, slow(20))["job"]["state"] == "expired"
    assert plane.ended(low, slow(20))["job"]["started_at"] >= plane.ended(high, slow(20))["job"]["finished_at"]
    assert plane.get(high)["job"]["scheduling"] == {"priority": -5}


def test_timeout_is_tried_again_as_often_as_allowed(plane):
    job = {**echo(delay_ms=30000, metadata={"retry": {"max_retries": 1}}), "limits": {"timeout_sec": 1}}
    job_id = plane.queue(job)
    s = plane.ended(job_id, slow(30))
    assert s["job"]["state"] == "failed" and s["job"]["retry"]["retry_count"] == 1
    assert s["job"]["result"]["error"] == {"code": "timeout", "message": "generic job timed out", "retryable": True}
    assert types(s) == ["started", "failed"] * 2 and [e["sequence"] for e in s["events"]] == [0, 1, 2, 3]
    middle = actions(s)[len(BEGIN):]
    assert middle == (["job_event_recorded"] * 2 + ["job_retry_scheduled", "reservation_released"] + BEGIN[2:] + ["job_event_recorded"] * 2
                      + ["job_completed", "reservation_released"])


def test_a_request_that_is_not_sound_fails_with_its_issues(plane):
    job = {**echo(), "surprise": 1, "policy": {"trust_mode": "nobody"}}
    job_id = plane.queue(job)
    s = plane.ended(job_id, slow(20))
    assert s["job"]["state"] == "failed" and s["job"]["result"]["error"]["code"] == "validation_failed"
    assert [i["code"] for i in s["job"]["validation_issues"]] == ["unknown_field", "invalid_policy"]
    assert types(s) == ["failed"] and s["events"][0]["data"] == {"code": "validation_failed"}


def test_an_echo_that_fails(plane):
    s = plane.ended(plane.queue(echo("upstream timeout", fail=True)), slow(20))
    assert s["job"]["state"] == "failed" and s["job"]["result"]["error"] == {"code": "runner_error", "message": "upstream timeout", "retryable": False}


@pytest.mark.parametrize("message", ["two\nlines", 'a "quoted" \\ one', "\u00fc\u20ac\U0001f600", "  blanks  "])
def test_what_is_said_is_said_exactly(plane, message):
    s = plane.ended(plane.queue(echo(message, repeat=3)), slow(20))
    assert [log["message"] for log in s["logs"]] == [message.strip()] * 3


def test_ops(plane):
    ids = [plane.queue(echo(str(i))) for i in range(3)]
    for i in ids:
        plane.ended(i, slow(20))
    ops = plane.ops("?audit_limit=2")
    assert ops["node"]["node_id"] == NODE and ops["node"]["owner_local"] is True and ops["node"]["listen_port"] == plane.node.port
    assert [j["job_id"] for j in ops["queue"]["jobs"]] == ids[::-1] and ops["queue"]["jobs"][0]["priority"] == 0
    assert ops["queue"]["totals_by_state"] == {"succeeded": 3} and ops["queue"]["terminal_jobs"] == 3
    assert ops["quota"]["available_slots"] == 1 and ops["quota"]["production_enforced"] is False
    assert ops["usage"]["total_jobs"] == 3 and ops["usage"]["succeeded_jobs"] == 3 and ops["usage"]["gpu_seconds"] == 0
    assert ops["usage"]["event_count"] == 12 and ops["usage"]["stdout_bytes"] == 3
    assert ops["audit"]["limit"] == 2 and ops["audit"]["total"] == 36 and len(ops["audit"]["events"]) == 2
    assert ops["queue"]["jobs"][0]["last_event_type"] == "completed" and ops["queue"]["jobs"][0]["log_bytes"] == 1
    assert ops["capabilities"]["job_types"] == ["tenant.test-echo"]
    assert plane.ops("?limit=0")["queue"]["jobs"] == [] and plane.ops("?audit_limit=999")["audit"]["limit"] == 250
    everything = plane.ops("?audit_limit=250")["audit"]["events"]
    assert len(everything) == 36 and [e["timestamp"] for e in everything] == sorted((e["timestamp"] for e in everything), reverse=True)
    assert plane.ops("?audit_limit=5&audit_offset=3")["audit"]["events"] == everything[3:8]


def test_capabilities(plane):
    status, body = plane.call("GET", f"{BASE}/capabilities", mint("capabilities", nonce="n"))
    assert status == 200 and body["job_types"] == ["tenant.test-echo"] and body["generic_jobs_enabled"] is True
    assert body["accelerators"]["gpu"] == {"available": False, "count": 0, "vendors": [], "cuda": False, "vram_tier": "none"}
    assert body["capabilities"] == ["generic_jobs", "job_type:tenant.test-echo"]
    assert plane.call("GET", f"{BASE}/capabilities", mint("capabilities", node_id="x"))[0] == 400


def test_lists_go_on_where_they_were_cut(plane):
    job_id = plane.queue(echo(repeat=20))
    whole = plane.ended(job_id, slow(20))
    for name in ("events", "logs", "audit"):
        got, after = [], ""
        while True:
            body = plane.get(job_id, f"/{name}?limit=3{after}")
            assert len(body[name]) <= 3
            got += body[name]
            if "next_after" not in body:
                break
            after = f"&after={body['next_after']}"
        assert got == whole[name], name


def test_gates(make_plane, plane):
    job_id = plane.queue(echo())
    flat = {"error": "unauthorized", "code": "unauthorized"}
    assert plane.call("GET", OPS, plane.token(job_id)) == (401, {**flat, "message": "self_hosted_generic_job_ops_token_scope_denied"})
    assert plane.call("GET", f"{JOBS}/{job_id}", plane.token("other"))[1]["message"] == "generic job token does not match this node or job"
    assert plane.call("GET", f"{JOBS}/nobody", plane.token("nobody")) == (
        404, {"error": "not_found", "code": "job_not_found", "message": "Generic lifecycle job was not found"})
    status, _, data = plane.node.request("GET", f"{JOBS}/{job_id}")
    assert (status, json.loads(data)["message"]) == (401, "Missing generic job token")
    assert plane.ask(job_id, "cancel", request_id="r9")[1]["message"] == "generic cancellation token does not match the lifecycle job"
    off = make_plane(env={"MSWARM_SELF_HOSTED_GENERIC_JOBS_ENABLED": "false"})
    assert off.call("POST", JOBS, "x", {}) == (404, {"error": "not_found", "code": "feature_disabled",
                                                    "message": "Generic node jobs are disabled on this node"})


@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "Via", "CF-Connecting-IP"])
def test_who_comes_through_a_proxy_is_not_the_owner(plane, name):
    head = {"authorization": f"Bearer {mint('ops', nonce='n')}", name: "1.2.3.4"}
    status, _, data = plane.node.request("GET", OPS, headers=head)
    assert (status, json.loads(data)["code"]) == (403, "owner_local_required")


def test_create_checks_what_the_token_says(plane):
    right = {"job_id": "j", "request_id": "r1", "node_id": NODE, "job": echo()}
    for member, text in [("node_id", "generic job node_id"), ("job_id", "generic job_id"), ("request_id", "generic request_id")]:
        status, body = plane.call("POST", JOBS, plane.token("j"), {**right, member: "x"})
        assert (status, body.get("message", body)) == (400, f"{text} does not match invocation token")
    for member, text in [("schema_version", "generic schema_version"), ("job_type", "generic job_type")]:
        status, body = plane.call("POST", JOBS, plane.token("j"), {**right, "job": {**echo(), member: "x"}})
        assert (status, body.get("message", body)) == (400, f"{text} does not match invocation token")
    assert plane.call("POST", JOBS, plane.token("j"), "[]")[0] in (400, 415)


def test_drain_keeps_what_is_created(plane):
    assert plane.node.cli("drain", "on").returncode == 0
    job_id = plane.queue(echo())
    assert plane.get(job_id)["job"]["backpressure"]["reason"] == "node_draining"
    assert plane.node.cli("drain", "off").returncode == 0
    assert plane.ended(job_id, slow(20))["job"]["state"] == "succeeded"


def test_jobs_survive_a_restart_and_a_kill(plane):
    node = plane.node
    done = plane.queue(echo("done"))
    before = plane.ended(done, slow(20))
    running = plane.queue(echo("line", repeat=20, delay_ms=150))
    waiting = plane.queue(echo("waiting"))
    wait_until(lambda: len(plane.get(running)["logs"]) >= 2, slow(10), "two lines")
    node.kill()
    node.start()
    assert plane.get(done) == before
    s = plane.ended(running, slow(30))
    assert s["job"]["state"] == "succeeded" and types(s) == ["started"] + ["stdout"] * 20 + ["progress", "completed"]
    assert [e["sequence"] for e in s["events"]] == list(range(23)) and [e["data"]["index"] for e in s["events"][1:21]] == list(range(20))
    assert plane.ended(waiting, slow(20))["job"]["state"] == "succeeded"
    running = plane.queue(echo("line", repeat=10, delay_ms=150))
    wait_until(lambda: plane.get(running)["logs"], slow(10), "a line")
    node.stop()
    node.start()
    s = plane.ended(running, slow(30))
    assert [e["data"]["index"] for e in s["events"] if e["type"] == "stdout"] == list(range(10)) and s["job"]["state"] == "succeeded"
    wait_until(lambda: not list((node.state_dir / "jobs").iterdir()), slow(10), "directories of ended jobs to be gone")


ODD_IDS = ["..", ".", "a/b", "a_b", "%2f", "\u00fc\u20ac", "a b", "a;b?c#d", "'; DROP TABLE jobs; --", "x" * 2000, "~", "\u202eevil", "a\\b"]


def test_no_two_ids_meet(make_plane):
    plane = make_plane(concurrency=4)
    for job_id in ODD_IDS:
        plane.queue(echo(f"this is {job_id[:20]}"), job_id)
    for job_id in ODD_IDS:
        path = urllib.parse.quote(job_id, safe="")
        seen = {}

        def is_ended():
            status, body = plane.call("GET", f"{JOBS}/{path}", plane.token(job_id))
            assert status == 200, body
            seen.update(body)
            return body["job"]["state"] == "succeeded"
        wait_until(is_ended, slow(20), job_id)
        assert seen["job"]["job_id"] == job_id and [log["message"] for log in seen["logs"]] == [f"this is {job_id[:20]}".strip()]
    assert len(plane.ops()["queue"]["jobs"]) == len(ODD_IDS)
    inside = {p.name for p in plane.node.state_dir.iterdir()}
    assert inside <= {"jobs", "artifacts", "node.db", "node.db-wal", "node.db-shm", "lock", "control.sock", "signing.key", "machine.id",
                      "config.json", "node.key"}, inside


def test_an_id_of_ten_thousand_characters(plane):
    """Taken, as its head is within 16 KiB; whoever asks for it by target and token together is told that this is too long."""
    job_id = "x" * 10000
    assert plane.queue(echo(), job_id) == job_id
    wait_until(lambda: [j["state"] for j in plane.ops()["queue"]["jobs"]] == ["succeeded"], slow(20), "its end")
    status, _, data = plane.node.request("GET", f"{JOBS}/{job_id}", headers={"authorization": f"Bearer {plane.token(job_id)}"})
    assert status == 431, data
    status, body = plane.call("GET", f"{JOBS}/{job_id}", plane.token("j"))
    assert status == 400 and body["message"] == "generic job token does not match this node or job"
    job_id += "y"
    status, body = plane.call("POST", JOBS, plane.token(job_id), {"job_id": job_id, "request_id": "r1", "node_id": NODE, "job": echo()})
    assert (status, body.get("message", body)) == (400, "job_id: 10001 of at most 10000 bytes")
    token = plane.token("x" * 12000)
    status, body = plane.call("POST", JOBS, token, {})
    assert status == 431 and body["message"].startswith("target and headers: ") and body["message"].endswith(" of at most 16384 bytes")


def test_an_id_with_a_null_byte(plane):
    status, body = plane.call("POST", JOBS, plane.token("a\0b"), {"job_id": "a\0b", "request_id": "r1", "node_id": NODE, "job": echo()})
    assert status == 400, body
    assert plane.call("GET", f"{JOBS}/a%00b", plane.token("a\0b"))[0] == 400 and plane.call("GET", f"{JOBS}/a%00b", plane.token("a"))[0] == 400
    assert not plane.ops()["queue"]["jobs"]


def test_bad_bodies(plane):
    token = plane.token("j")
    for body, status in [("{", 400), ("", 400), ("[1]", 400), ("null", 400), ("\"x\"", 400), ("{}" + " " * (1 << 20), 413), ("[" * 5000, 400)]:
        got, _, data = plane.node.request("POST", JOBS, body, {"authorization": f"Bearer {token}", "content-type": "application/json"})
        assert got == status, (body[:20], data)
        assert json.loads(data)["message"]
    status, _, data = plane.node.request("POST", JOBS, b"x", {"authorization": f"Bearer {token}", "content-type": "text/csv"})
    assert status == 415
    status, _, data = plane.node.request("POST", JOBS, None, {"authorization": f"Bearer {token}"})
    assert (status, json.loads(data)["message"]) == (400, "generic job node_id does not match invocation token")
    for wish, want in (("limit=1", 404), ("after=1.2", 404), ("limit=1001", 400), ("limit=0", 400), ("limit=-1", 400), ("limit=x", 400), ("after=1", 400),
                       ("after=99999999999999999999.1", 400), ("after=-1.0", 400)):
        status, _, data = plane.node.request("GET", f"{JOBS}/nobody/events?{wish}", headers={"authorization": f"Bearer {plane.token('nobody')}"})
        assert status == want and (want == 404 or wish.split("=")[0] in json.loads(data)["message"]), (wish, data)


@pytest.mark.parametrize("tenant", ["x" * 5000, "a:b", "\u00fc"])
def test_odd_tenants(plane, tenant):
    s = plane.ended(plane.queue(echo(tenant=tenant)), slow(20))
    assert s["job"]["state"] == "succeeded" and s["job"]["tenant_id"] == tenant


def test_a_message_as_long_as_a_line_and_one_more(plane):
    s = plane.ended(plane.queue(echo("m" * 65533, repeat=2)), slow(20))
    assert s["job"]["state"] == "succeeded" and [log["message"] for log in s["logs"]] == ["m" * 65533] * 2
    s = plane.ended(plane.queue(echo("m" * 65534)), slow(20))
    assert s["job"]["state"] == "failed" and s["job"]["result"]["error"]["code"] == "validation_failed"
    assert s["job"]["result"]["error"]["message"] == "args.message: 65536 bytes as JSON, at most 65535"


def test_a_job_has_as_many_files_as_the_node_was_given(plane):
    job_id = plane.queue(echo(delay_ms=30000))
    pid = wait_until(lambda: next((p for p in marked(str(plane.node.state_dir / "jobs")) if b"mswarm-shim" not in pathlib.Path(f"/proc/{p}/cmdline").read_bytes()),
                                  None), slow(10), "its process")
    limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
    soft = next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3]
    assert soft == str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    plane.ask(job_id, "cancel")


def test_output_beyond_its_limit_is_told_of_once(plane):
    job = echo("hi", repeat=20)
    job["limits"] = {"max_stdout_bytes": 20, "max_stderr_bytes": 1}
    s = plane.ended(plane.queue(job), slow(20))
    assert s["job"]["state"] == "succeeded" and [log["message"] for log in s["logs"]] == ["hi"] * 4
    cut = [e for e in s["events"] if e["type"] == "log_truncated"]
    assert len(cut) == 1 and cut[0]["data"] == {"stream": "stdout", "max_bytes": 20}, cut


def test_the_memory_that_was_asked_for_is_a_limit(plane):
    job = echo(delay_ms=30000)
    job["resources"] = {"memory_gb": 1}
    job_id = plane.queue(job)
    attempt = wait_until(lambda: next(iter((plane.node.state_dir / "jobs").glob("*/*/pid")), None), slow(10), "its process").parent
    group = f"mswarm-{attempt.parent.name}-{attempt.name}"

    def limits():
        try:
            root = pathlib.Path("/sys/fs/cgroup")
            return [*root.glob(f"**/{group}/memory.max"), *root.glob(f"memory/**/{group}/memory.limit_in_bytes"), None]
        except FileNotFoundError:
            return []                  # the group of another test, just removed

    found = wait_until(limits, slow(10), "its group")[0]
    if not found:
        pytest.skip("no cgroup can be made here")
    wait_until(lambda: found.read_text().strip() == str(1 << 30), slow(10), "the limit")
    plane.ask(job_id, "cancel")
    assert plane.ended(job_id, slow(20))["job"]["state"] == "cancelled"
    wait_until(lambda: not found.exists(), slow(10), "the group to be removed")


def test_large_request(make_plane):
    """Kept as it came, also when it is read on the pool."""
    plane = make_plane(is_stall_checked=False)  # three copies of it into fresh memory, in one turn
    job = {**echo(), "metadata": {"note": "n" * 600000, "big": 12345678901234567890, "f": 1.0}}
    text = json.dumps({"job_id": "big", "request_id": "r1", "node_id": NODE, "job": job})
    status, body = plane.call("POST", JOBS, plane.token("big"), json.loads(text))
    assert status == 202 and body["job"]["job"]["metadata"]["note"] == "n" * 600000
    assert "12345678901234567890" in plane.node.request("GET", f"{JOBS}/big", headers={"authorization": f"Bearer {plane.token('big')}"})[2].decode()
    assert plane.ended("big", slow(20))["job"]["state"] == "succeeded"


def test_many_tenants_and_many_jobs(make_plane):
    """300 jobs of 30 tenants, four at a time: all end, each once."""
    plane = make_plane(concurrency=4)
    count = 60 if is_sanitized() else 300
    ids = [plane.queue(echo(str(n), tenant=f"t{n % 30}")) for n in range(count)]
    wait_until(lambda: plane.ops("?limit=0&audit_limit=0")["queue"]["totals_by_state"] == {"succeeded": count}, slow(60), "all to end")
    ops = plane.ops("?limit=0&audit_limit=0")
    assert ops["usage"]["event_count"] == 4 * count and ops["usage"]["total_jobs"] == count and ops["queue"]["jobs"] == []
    for job_id in ids[::50]:
        assert [e["type"] for e in plane.get(job_id)["events"]] == ["started", "stdout", "progress", "completed"]


def test_ended_jobs_are_forgotten_beyond_the_limits(make_plane):
    plane = make_plane(concurrency=4, env={"MSWARM_JOB_KEEP_MAX": "5"})
    ids = [plane.queue(echo(str(n), repeat=20)) for n in range(20)]
    wait_until(lambda: plane.ops("?limit=0&audit_limit=0")["usage"]["succeeded_jobs"] == 20, slow(30), "all to end")
    running = plane.queue(echo(delay_ms=20000))
    plane.node.kill()
    plane.node.start(limit=slow(20))            # at the start, then each 20 s
    wait_until(lambda: plane.ops("?limit=0")["queue"]["totals_by_state"].get("succeeded") == 5, slow(20), "the oldest to be forgotten")
    ops = plane.ops("?audit_limit=250")
    assert ops["usage"]["total_jobs"] == 21 and ops["usage"]["succeeded_jobs"] == 20, "the sums of all time stay"
    left = [j["job_id"] for j in ops["queue"]["jobs"]]
    assert running in left and len(left) == 6 and {a["job_id"] for a in ops["audit"]["events"]} <= set(left)
    gone = [i for i in ids if i not in left]
    for job_id in gone:
        assert plane.call("GET", f"{JOBS}/{job_id}", plane.token(job_id))[0] == 404
    assert plane.queue(echo(), gone[0]) == gone[0], "its id may be used again"
    plane.ask(running, "cancel")


def create_text(plane, job_id, padding=0):
    """A create as it goes over the wire."""
    body = json.dumps({"job_id": job_id, "request_id": "r1", "node_id": NODE, "job": echo()})
    return (f"POST {JOBS} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {plane.token(job_id)}\r\ncontent-type: application/json\r\n"
            f"x-padding: {'p' * padding}\r\ncontent-length: {len(body)}\r\n\r\n{body}")


def test_creates_that_wait_together(make_plane):
    """More at once than a loop lets wait; a second one behind each, and a head that takes more than one read: all are answered."""
    plane = make_plane(args=["--loops", "1"])
    wires = [Wire(plane.node, limit=slow(20)) for _ in range(150)]
    for i, w in enumerate(wires):
        w.send(create_text(plane, f"a{i}", 6500 if i % 3 == 0 else 0) + create_text(plane, f"b{i}"))
    for i, w in enumerate(wires):
        for name in "ab":
            assert w.head()[0] == 202 and json.loads(w.body())["job"]["job_id"] == f"{name}{i}"
        w.close()
    assert plane.node.request("GET", "/healthz")[0] == 200
    plane.node.stop(slow(20))           # with 300 of them queued


def test_creates_whose_clients_do_not_wait(make_plane):
    """They leave at every stage of a create, by an end and by a reset: each stands once or not at all, and the node goes on."""
    plane = make_plane(args=["--loops", "1"])
    for i in range(60):
        w = Wire(plane.node, limit=slow(20))
        w.send(create_text(plane, f"gone{i}"))
        if i % 2:
            w.reset()
        else:
            w.close()
    assert plane.ended(plane.queue(echo("after")), slow(60))["job"]["state"] == "succeeded"
    begun = [i for i in range(60) if plane.call("GET", f"{JOBS}/gone{i}", plane.token(f"gone{i}"))[0] == 200]
    assert plane.ops("?limit=0&audit_limit=0")["usage"]["total_jobs"] == len(begun) + 1


@pytest.mark.parametrize("job_id", [":job_id", ":jZ", "*", ":"])
def test_an_id_that_looks_like_a_pattern(plane, job_id):
    plane.queue(echo(), job_id)
    status, _, data = plane.node.request("GET", f"{JOBS}/{job_id}", headers={"authorization": f"Bearer {plane.token(job_id)}"})
    assert status == 200 and json.loads(data)["job"]["job_id"] == job_id
