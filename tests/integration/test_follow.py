"""?follow=1: events and logs as they happen, resumed exactly, across clients that drop and nodes that die."""
import http.client
import json
import os
import sqlite3
import time

import pytest
from conftest import slow
from jobs import JOBS, Follower, echo
from node import wait_until


@pytest.fixture
def plane(make_plane):
    return make_plane(2)


def test_a_job_is_followed_to_its_end(plane):
    job_id = plane.queue(echo(repeat=5, delay_ms=50))
    got = list(Follower(plane, job_id))
    assert got[-1] == (None, "end", {"job_id": job_id, "state": "succeeded"})
    assert [d for _, _, d in got[:-1]] == plane.get(job_id)["events"]
    assert len({i for i, _, _ in got[:-1]}) == len(got) - 1 and all(e == d["type"] for _, e, d in got[:-1])
    logs = list(Follower(plane, job_id, "logs"))
    assert [d for _, _, d in logs[:-1]] == plane.get(job_id)["logs"] and logs[-1][1] == "end"


def test_lines_come_as_they_are_said(plane):
    job_id = plane.queue(echo(repeat=3, delay_ms=int(slow(400))))
    at = [time.monotonic() for _, event, _ in Follower(plane, job_id) if event == "stdout"]
    assert len(at) == 3 and at[1] - at[0] > 0.3 and at[2] - at[1] > 0.3


def test_it_goes_on_exactly_behind_any_entry(plane):
    job_id = plane.queue(echo(repeat=6))
    whole = list(Follower(plane, job_id))
    for i, (where, _, _) in enumerate(whole[:-1]):
        assert list(Follower(plane, job_id, last=where)) == whole[i + 1:]
        assert list(Follower(plane, job_id, query=f"&after={where}")) == whole[i + 1:]


def test_a_sign_of_life_while_nothing_is_said(make_plane):
    plane = make_plane(2, env={"MSWARM_KEEP_ALIVE_MS": "100"})
    job_id = plane.queue(echo(delay_ms=int(slow(1000))))
    c = http.client.HTTPConnection(plane.node.host, plane.node.port, timeout=slow(10))
    c.request("GET", f"{JOBS}/{job_id}/logs?follow=1", headers={"authorization": f"Bearer {plane.token(job_id)}"})
    text = c.getresponse().read().decode()
    c.close()
    before = text.split("event: stdout")[0]
    assert before.count(": keep-alive\n\n") >= 3 and "event: end" in text, text


@pytest.mark.parametrize("state", ["waiting", "running"])
def test_a_job_that_is_cancelled(plane, state):
    blocker = [plane.queue(echo(delay_ms=30000)) for _ in range(2 if state == "waiting" else 0)]
    job_id = plane.queue(echo(delay_ms=30000))
    if state == "running":
        wait_until(lambda: plane.get(job_id)["events"], slow(10), "its start")
    f = Follower(plane, job_id)
    plane.ask(job_id, "cancel")
    got = list(f)
    assert got[-1][1:] == ("end", {"job_id": job_id, "state": "cancelled"})
    for b in blocker:
        plane.ask(b, "cancel")


def sockets(node):
    found = 0
    for fd in os.listdir(f"/proc/{node.pid}/fd"):
        try:
            found += os.readlink(f"/proc/{node.pid}/fd/{fd}").startswith("socket:")
        except OSError:
            pass
    return found


def test_a_client_that_leaves_costs_nothing(plane):
    job_id = plane.queue(echo(repeat=10, delay_ms=100))
    before = sockets(plane.node)
    for _ in range(20):
        f = Follower(plane, job_id)
        next(iter(f))
        f.close()
    assert plane.ended(job_id, slow(20))["job"]["state"] == "succeeded"
    wait_until(lambda: sockets(plane.node) <= before, slow(10), "connections to be gone")


def test_what_was_heard_stands_when_the_node_dies(plane):
    node = plane.node
    job_id = plane.queue(echo("line", repeat=20, delay_ms=100))
    heard, kills = [], 0
    while not heard or heard[-1][1] != "end":
        f = Follower(plane, job_id, last=next((i for i, _, _ in reversed(heard) if i), None))
        try:
            for n, entry in enumerate(f):
                heard.append(entry)
                if n == 4 and kills < 3:
                    kills += 1
                    node.kill()
                    break
        except (OSError, http.client.HTTPException):
            pass
        f.close()
        if node.process is None:
            node.start(limit=slow(20))
    assert kills == 3 and [d for _, _, d in heard[:-1]] == plane.get(job_id)["events"]
    assert [d["data"]["index"] for _, e, d in heard if e == "stdout"] == list(range(20))


def test_refusals(plane):
    job_id = plane.queue(echo(delay_ms=500))
    status, _, data = plane.node.request("HEAD", f"{JOBS}/{job_id}/logs?follow=1", headers={"authorization": f"Bearer {plane.token(job_id)}"})
    assert (status, data) == (200, b"")
    for head in ({"last-event-id": "x"}, {"last-event-id": "1"}, {"last-event-id": "1.x"}):
        status, _, data = plane.node.request("GET", f"{JOBS}/{job_id}/events?follow=1", headers={"authorization": f"Bearer {plane.token(job_id)}", **head})
        assert status == 400 and "last-event-id" in json.loads(data)["message"]
    status, _, _ = plane.node.request("GET", f"{JOBS}/nobody/events?follow=1", headers={"authorization": f"Bearer {plane.token('nobody')}"})
    assert status == 404


def test_a_line_is_heard_before_it_is_stored(plane, tmp_path):
    """The store stands still (another process has its lock): lines come all the same, and once it goes on nothing comes twice."""
    lock = sqlite3.connect(plane.node.state_dir / "node.db", isolation_level=None, timeout=30)
    job_id = plane.queue(echo(repeat=4, delay_ms=int(slow(700))))
    f = Follower(plane, job_id)
    got = []
    for entry in f:
        got.append(entry)
        if entry[1] == "stdout" and len(got) == 2:
            lock.execute("BEGIN IMMEDIATE")        # from here on no record can be written
        if len(got) == 4:
            assert len(plane.get(job_id)["logs"]) < 3, "not stored yet"
            lock.execute("ROLLBACK")
            lock.close()
    assert [e for _, e, _ in got] == ["started"] + ["stdout"] * 4 + ["progress", "completed", "end"]
    assert [d for _, _, d in got[:-1]] == plane.get(job_id)["events"]
    assert list(Follower(plane, job_id)) == got
