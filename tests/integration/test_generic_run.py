"""R4 and R5: one generic job inside the request, and its cancel. direct-api.md 2.8, 2.9."""
import http.client
import json
import threading

import pytest
from conftest import slow
from jobs import BASE, NODE, echo
from node import wait_until

RUN = f"{BASE}/generic-jobs"


@pytest.fixture
def plane(make_plane):
    return make_plane(2)


def run(plane, job, job_id="d1", request_id="r1", accept=None, limit=30):
    envelope = {"job_id": job_id, "request_id": request_id, "node_id": NODE, "job": job}
    head = {"authorization": f"Bearer {plane.token(job_id, request_id, job.get('job_type', ''))}", **({"accept": accept} if accept else {})}
    return plane.node.request("POST", RUN, envelope, head, limit=slow(limit))


def later(plane, job, **kw):
    """Runs it in a thread; the answer is in the list at the end."""
    got = []
    t = threading.Thread(target=lambda: got.append(run(plane, job, **kw)))
    t.start()
    return t, got


def entries(data):
    """[(event, data)] of a stream, its last data as it stands."""
    out = []
    for block in data.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if lines:
            out.append((lines.get("event"), lines["data"]))
    return out


def is_running(plane, n=1):
    return plane.ops()["queue"]["active_jobs"] >= n


def test_plain(plane):
    status, head, data = run(plane, echo("hi", repeat=2))
    body = json.loads(data)
    assert status == 200 and set(body) == {"job_id", "request_id", "status", "result", "events", "timing"}
    assert body["status"] == "succeeded" and [e["type"] for e in body["events"]] == ["started", "stdout", "stdout", "progress", "completed"]
    assert body["result"]["metrics"]["echoed"] == 2 and isinstance(body["timing"]["local_latency_ms"], int)
    assert head["content-type"] == "application/json; charset=utf-8"
    assert json.loads(run(plane, echo("again"))[2])["events"][1]["message"] == "again", "the id may be used again"


@pytest.mark.parametrize("job, status, code", [
    ({**echo(), "surprise": 1}, 400, "validation_failed"),
    ({**echo(delay_ms=20000), "limits": {"timeout_sec": 1}}, 408, "timeout"),
    (echo("no", fail=True), 502, "runner_error"),
    ({**echo(), "job_type": "python.gpu", "args": {}}, 502, "runner_unavailable"),
])
def test_failures(plane, job, status, code):
    got, _, data = run(plane, job)
    body = json.loads(data)
    assert (got, body["status"], body["result"]["error"]["code"]) == (status, "failed", code)
    assert ("validation_issues" in body) == (code == "validation_failed")
    assert body["events"][-1]["type"] == "failed"


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json, TEXT/event-stream;q=0"])
def test_as_a_stream(plane, accept):
    status, head, data = run(plane, echo("hi"), accept=accept)
    got = entries(data)
    assert status == 200 and head["content-type"] == "text/event-stream; charset=utf-8" and head["cache-control"] == "no-cache, no-transform"
    assert [e for e, _ in got] == ["started", "stdout", "progress", "completed", None] and got[-1][1] == "[DONE]"
    assert all(json.loads(d)["type"] == e for e, d in got[:-1]) and b"id:" not in data
    got = entries(run(plane, {**echo(), "surprise": 1}, accept=accept)[2])
    assert [e for e, _ in got] == ["failed", None] and json.loads(got[0][1])["data"] == {"code": "validation_failed"}


def test_cancel(plane):
    t, got = later(plane, echo(delay_ms=20000))
    wait_until(lambda: is_running(plane), slow(10), "it runs")
    flat = {"error": "conflict", "code": "job_already_running", "message": "Generic job is already running on this node"}
    status, _, data = run(plane, echo())
    assert (status, json.loads(data)) == (409, flat)

    def cancel(**claims):
        return plane.call("POST", f"{RUN}/d1/cancel", plane.token("d1", **claims))
    assert cancel(request_id="r2") == (400, {"error": "bad_request", "code": "validation_failed",
                                             "message": "generic cancellation token does not match the active request"})
    assert cancel() == (202, {"job_id": "d1", "request_id": "r1", "status": "cancelling"})
    t.join(slow(20))
    status, _, data = got[0]
    assert status == 409 and json.loads(data)["status"] == "cancelled"
    assert cancel() == (404, {"error": "not_found", "code": "job_not_running", "message": "Generic job is not running on this node"})
    assert plane.call("POST", f"{RUN}/%20/cancel", plane.token("d1"))[1]["message"] == "generic job_id is required"
    assert plane.call("POST", f"{RUN}/d2/cancel", plane.token("d1"))[1]["message"] == "generic cancellation token does not match this node or job"


def leave(plane, accept):
    connection = http.client.HTTPConnection(plane.node.host, plane.node.port)
    body = json.dumps({"job_id": "d1", "request_id": "r1", "node_id": NODE, "job": echo("x", repeat=3, delay_ms=int(slow(400)))})
    connection.request("POST", RUN, body, {"authorization": f"Bearer {plane.token('d1')}", "content-type": "application/json", "accept": accept})
    wait_until(lambda: is_running(plane), slow(10), "it runs")
    connection.close()


def test_who_leaves_a_stream_ends_the_job_and_plain_it_runs_on(plane):
    leave(plane, "text/event-stream")
    wait_until(lambda: plane.ops()["usage"]["cancelled_jobs"] == 1, slow(10), "cancelled")
    leave(plane, "application/json")
    wait_until(lambda: plane.ops()["usage"]["succeeded_jobs"] == 1, slow(10), "succeeded")


def test_it_keeps_the_queue(plane):
    """Weakness 8: it counts among the jobs that run, and waits its turn."""
    blockers = [plane.queue(echo(delay_ms=1200)) for _ in range(2)]
    wait_until(lambda: is_running(plane, 2), slow(10), "two run")
    status, _, data = run(plane, echo())
    assert status == 200
    ended = [plane.ended(b, slow(20))["job"]["finished_at"] for b in blockers]
    assert json.loads(data)["result"]["started_at"] >= min(ended)
    # and the same id as a lifecycle job's is another job, in another directory
    both = plane.queue(echo("lifecycle", delay_ms=500, repeat=2), "same")
    status, _, data = run(plane, echo("direct"), job_id="same")
    assert status == 200 and [e["message"] for e in json.loads(data)["events"] if e["type"] == "stdout"] == ["direct"]
    assert [log["message"] for log in plane.ended(both, slow(20))["logs"]] == ["lifecycle"] * 2
