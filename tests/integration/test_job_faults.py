"""The job plane in a failing world: the node killed at random moments, shims killed, a disk that is full."""
import http.client
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import struct
import threading
import time
import zlib

import pytest
from conftest import keep_full, slow
from jobs import ENDED, ENV, JOBS, Follower, Jobs, echo, marked
from node import Node, wait_until

KILLS = 5                               # tests/fault/kill does this at length; here it is done under sanitizers


def start(concurrency=4, env_more=None, **kw):
    return Node(env={**ENV, **(env_more or {})}, args=["--generic-job-max-concurrency", str(concurrency), "--no-mcoda", "--no-ollama", "--no-discovery"], **kw).start(
        limit=slow(20))


def start_on(disk, concurrency):
    """With its state on this disk."""
    state = disk / "state"
    state.mkdir(mode=0o700)
    (state / "config.json").write_text("{}")
    return start(concurrency, {"MSWARM_SELF_HOSTED_NODE_STATE_PATH": str(state / "config.json")})


class Client(threading.Thread):
    """Creates jobs as fast as it is answered, whatever happens to the node; remembers what was acknowledged."""

    def __init__(self, plane, number):
        super().__init__(daemon=True)
        self.plane, self.number, self.acknowledged, self.is_over = plane, number, {}, False

    def run(self):
        n = 0
        while not self.is_over:
            n += 1
            job_id, repeat = f"c{self.number}-{n}", n % 4 + 1
            try:
                status, body, _ = self.plane.create(echo(f"{job_id} line", tenant="AB"[n % 2], repeat=repeat, delay_ms=n % 3 * 20), job_id)
            except (OSError, http.client.HTTPException, ValueError):
                continue
            assert status in (200, 202), body
            self.acknowledged[job_id] = repeat
            if len(self.acknowledged) % 8 == 0:     # never so many that they do not end
                self.wait_for(job_id)

    def wait_for(self, job_id):
        while not self.is_over:
            try:
                if self.plane.state(job_id) in ENDED:
                    return
            except (OSError, http.client.HTTPException, ValueError):
                pass


def check(plane, job_id, repeat):
    """One outcome, every line once and in its place, sequences without a hole."""
    s = plane.ended(job_id, slow(60))
    job = s["job"]
    assert job["state"] == "succeeded", (job_id, job)
    assert [e["sequence"] for e in s["events"]] == list(range(len(s["events"]))), job_id
    ends = [e["type"] for e in s["events"] if e["type"] in ("completed", "failed", "cancelled")]
    assert ends[-1] == "completed" and ends.count("completed") == 1
    last = max(i for i, e in enumerate(s["events"]) if e["type"] == "started")
    assert [(e["data"]["index"], e["message"]) for e in s["events"][last:] if e["type"] == "stdout"] == [
        (i, f"{job_id} line") for i in range(repeat)], job_id
    assert [a["action"] for a in s["audit"]].count("job_completed") == 1, job_id


def test_nothing_acknowledged_is_lost_whenever_the_node_is_killed():
    rng = random.Random(4711)
    node = start()
    plane = Jobs(node)
    clients = [Client(plane, i) for i in range(4)]
    try:
        for c in clients:
            c.start()
        for _ in range(KILLS):
            end = time.monotonic() + rng.uniform(0.02, 0.7)
            wait_until(lambda: time.monotonic() > end, 5, "the moment")
            node.kill()
            node.start(limit=slow(20))
        for c in clients:
            c.is_over = True
            c.join(slow(30))
        acknowledged = {k: v for c in clients for k, v in c.acknowledged.items()}
        assert len(acknowledged) > KILLS
        for job_id, repeat in acknowledged.items():
            check(plane, job_id, repeat)
        wait_until(lambda: not marked(str(node.state_dir / "jobs")), slow(10), "all processes to be gone")
        wait_until(lambda: not list((node.state_dir / "jobs").iterdir()), slow(10), "all directories to be gone")
        ops = plane.ops()
        assert set(ops["queue"]["totals_by_state"]) == {"succeeded"} and ops["queue"]["terminal_jobs"] == ops["usage"]["total_jobs"]
        assert ops["usage"]["total_jobs"] >= len(acknowledged)
        node.stop(slow(20))
    except BaseException:
        node.show()
        raise
    finally:
        for c in clients:
            c.is_over = True
        node.close()


@pytest.fixture
def plane():
    node = start(concurrency=1)
    yield Jobs(node)
    try:
        if node.process:
            node.stop(slow(20))
    finally:
        node.close()


def shims(node):
    """Pids of the shims of this node's attempts."""
    found = []
    for path in (node.state_dir / "jobs").glob("*/*/pid"):
        found.append(int(path.read_text().split()[0]))
    return found


def test_a_shim_that_is_killed_is_a_lost_job(plane):
    node = plane.node
    job_id = plane.queue(echo(delay_ms=30000, repeat=5))
    wait_until(lambda: shims(node) and plane.state(job_id) == "running" and len(marked(str(node.state_dir / "jobs"))) >= 2, slow(10), "it runs")
    os.kill(shims(node)[0], signal.SIGKILL)
    s = plane.ended(job_id, slow(20))
    assert s["job"]["state"] == "failed" and s["job"]["result"]["error"]["code"] == "node_lost"
    wait_until(lambda: not marked(str(node.state_dir / "jobs")), slow(10), "what it had started to be gone")
    again = plane.queue(echo("next"))
    assert plane.ended(again, slow(20))["job"]["state"] == "succeeded"


def test_a_shim_that_is_killed_while_the_node_is_away(plane):
    node = plane.node
    job_id = plane.queue(echo("x", delay_ms=200, repeat=20))
    wait_until(lambda: plane.get(job_id)["logs"], slow(10), "a line")
    node.kill()
    os.kill(shims(node)[0], signal.SIGKILL)
    node.start(limit=slow(20))
    s = plane.ended(job_id, slow(20))
    assert s["job"]["result"]["error"]["code"] == "node_lost" and s["logs"][0]["message"] == "x"
    wait_until(lambda: not marked(str(node.state_dir / "jobs")), slow(10), "what it had started to be gone")


def test_after_a_restart_of_the_machine_missing_files_prove_nothing(plane):
    """What was not synced is gone then: an attempt without a record is lost, though nothing says that it began."""
    node = plane.node
    job_id = plane.queue(echo("x", delay_ms=30000, repeat=5))
    wait_until(lambda: shims(node) and plane.state(job_id) == "running", slow(10), "it runs")
    node.kill()
    os.kill(shims(node)[0], signal.SIGKILL)
    shutil.rmtree(node.state_dir / "jobs")
    with sqlite3.connect(node.state_dir / "node.db") as db:
        db.execute("UPDATE attempts SET boot = boot + 1")
    node.start(limit=slow(20))
    job = plane.ended(job_id, slow(20))["job"]
    assert job["state"] == "failed" and job["result"]["error"]["code"] == "node_lost"


def test_a_cancel_that_the_node_did_not_live_to_carry_out(plane):
    node = plane.node
    job_id = plane.queue(echo(delay_ms=30000))
    wait_until(lambda: shims(node) and plane.state(job_id) == "running", slow(10), "it runs")
    shim = shims(node)[0]
    os.kill(shim, signal.SIGSTOP)               # so that it cannot obey before the node is gone
    assert plane.ask(job_id, "cancel")[0] == 202
    node.kill()
    os.kill(shim, signal.SIGCONT)
    node.start(limit=slow(20))
    assert plane.ended(job_id, slow(20))["job"]["state"] == "cancelled"


def test_the_end_is_read_after_a_restart(plane):
    node = plane.node
    job_id = plane.queue(echo("away", delay_ms=int(slow(300)), repeat=3))
    wait_until(lambda: shims(node) and plane.state(job_id) == "running", slow(10), "it runs")
    shim = shims(node)[0]
    node.kill()
    wait_until(lambda: not pathlib.Path(f"/proc/{shim}").exists() or pathlib.Path(f"/proc/{shim}/stat").read_text().split()[2] == "Z",
               slow(20), "the shim to end by itself")
    node.start(limit=slow(20))
    s = plane.ended(job_id, slow(20))
    assert s["job"]["state"] == "succeeded" and [log["message"] for log in s["logs"]] == ["away"] * 3
    assert [e["type"] for e in s["events"]].count("completed") == 1


def test_a_full_disk_refuses_creates_and_loses_nothing(small_disk):
    """What runs waits with its output, what is asked is refused by name, and it heals without hands."""
    node = start_on(small_disk, 1)
    plane = Jobs(node)
    try:
        job_id = plane.queue(echo("y" * 3000, repeat=20, delay_ms=100))
        wait_until(lambda: plane.get(job_id)["logs"], slow(10), "a line")
        with keep_full(small_disk / "fill"):
            fitted = []                     # as many as the log file has room for that it had taken before
            while (got := plane.create(echo(), f"during{len(fitted)}"))[0] == 202 and len(fitted) < 100:
                fitted.append(got[2])
            status, body, refused = got
            assert status == 503 and body["code"] == "store_read_only" and "disk full" in body["message"]
            assert plane.state(job_id) == "running", "reads go on"
            end = time.monotonic() + 2
            wait_until(lambda: time.monotonic() > end, 5, "the job to have met the full disk")
        wait_until(lambda: plane.create(echo("after"), "after")[0] in (200, 202), slow(30), "the store to heal")
        s = plane.ended(job_id, slow(60))
        assert s["job"]["state"] == "succeeded" and [e["data"]["index"] for e in s["events"] if e["type"] == "stdout"] == list(range(20))
        assert plane.ended("after", slow(20))["job"]["state"] == "succeeded"
        for acknowledged in fitted:
            assert plane.ended(acknowledged, slow(20))["job"]["state"] == "succeeded"
        status, _ = plane.call("GET", f"{JOBS}/{refused}", plane.token(refused))
        assert status == 404, "what was refused is not there"
        node.stop(slow(20))
    except BaseException:
        node.show()
        raise
    finally:
        node.close()


def test_jobs_wait_for_room_on_the_disk(small_disk):
    """The log has room, the disk has none: what waits does not begin only to fail, and begins by itself when there is room."""
    node = start_on(small_disk, 2)
    plane = Jobs(node)
    try:
        log = small_disk / "state/node.db-wal"
        # So that the log is long and is written over; from 64 pages on it is given back on so small a disk.
        wait_until(lambda: plane.ended(plane.queue(echo("a line")), slow(20)) and 150_000 < log.stat().st_size < 255_000, slow(40), "a log of 40 to 60 pages")
        end = time.monotonic() + 2      # it is emptied when nothing happens for a second; its length stays
        wait_until(lambda: time.monotonic() > end, 5, "a checkpoint")
        with keep_full(small_disk / "fill"):
            waiting = []
            while len(waiting) < 20 and plane.create(echo("late"), f"w{len(waiting)}")[0] == 202:
                waiting.append(f"w{len(waiting)}")
            assert len(waiting) > 2
            # what the log gave back may have let two begin; they wait with their records, or go back into the queue
            held = plane.get(waiting[-1])["job"]
            assert held["state"] == "queued" and held["backpressure"]["reason"] == "node_at_capacity", held
        for job_id in waiting:
            s = plane.ended(job_id, slow(30))
            assert s["job"]["state"] == "succeeded" and [log["message"] for log in s["logs"]] == ["late"], s
        node.stop(slow(20))
    except BaseException:
        node.show()
        raise
    finally:
        node.close()


def test_a_failed_sync_loses_nothing_that_was_acknowledged(preload):
    """The store trusts its disk no more: no create is acknowledged from there on, the node ends, the next start has all the others."""
    node = Node(env=ENV, args=["--no-mcoda", "--no-ollama", "--no-discovery"])
    trigger = node.home / "fail"
    plane = Jobs(node.start(env={"LD_PRELOAD": preload("fail_sync"), "FAIL_SYNC_WHEN": str(trigger)}))
    try:
        acknowledged = [plane.queue(echo(f"n{i}", repeat=3, delay_ms=200)) for i in range(5)]
        wait_until(lambda: plane.get(acknowledged[0])["logs"], 10, "a line")
        trigger.touch()
        try:
            status, body, refused = plane.create(echo(), "refused")
            assert (status, body["code"]) in ((500, "outcome_unknown"), (503, "store_read_only")), body
        except (OSError, http.client.HTTPException):
            refused = None              # it was faster at ending
        assert node.wait(limit=30) == 1
        assert "store.broken" in node.log()
        trigger.unlink()
        node.start()
        for job_id in acknowledged:
            s = plane.ended(job_id, 30)
            assert s["job"]["state"] == "succeeded" and len(s["logs"]) == 3
        if refused:                     # not acknowledged: once or not at all
            assert plane.call("GET", f"{JOBS}/{refused}", plane.token(refused))[0] in (200, 404)
        wait_until(lambda: not marked(str(node.state_dir / "jobs")), 10, "every process to be gone")
        node.stop()
    except BaseException:
        node.show()
        raise
    finally:
        node.close()


def test_a_clock_that_jumps(preload):
    """A day ahead and two back: jobs run, end and keep their order; limits of time do not hear of it."""
    node = Node(env=ENV, args=["--no-mcoda", "--no-ollama", "--no-discovery", "--generic-job-max-concurrency", "1"])
    clock = node.home / "clock"
    clock.write_text("0")
    plane = Jobs(node.start(env={"LD_PRELOAD": preload("clock_jump"), "CLOCK_JUMP_BY": str(clock)}))
    token = plane.token
    plane.token = lambda *a, **kw: token(*a, **{"ttl": 400000, **kw})
    try:
        long = plane.queue({**echo("x", repeat=10, delay_ms=200), "limits": {"timeout_sec": 60}})
        made = []
        for by in (86400, -86400, 0):
            clock.write_text(str(by))
            made += [plane.queue(echo(str(by))) for _ in range(3)]
        s = plane.ended(long, 30)
        assert s["job"]["state"] == "succeeded" and [log["message"] for log in s["logs"]] == ["x"] * 10, "nothing timed out"
        for job_id in made:
            s = plane.ended(job_id, 30)
            assert s["job"]["state"] == "succeeded" and [e["sequence"] for e in s["events"]] == list(range(len(s["events"])))
        with sqlite3.connect(node.state_dir / "node.db") as db:
            assert [row[0] for row in db.execute("SELECT job_id FROM jobs ORDER BY key")] == [long, *made], "keys grow, whatever the clock says"
        node.kill()
        clock.write_text("-86400")
        node.start(env={"LD_PRELOAD": preload("clock_jump"), "CLOCK_JUMP_BY": str(clock)})
        assert plane.ended(plane.queue(echo()), 30)["job"]["state"] == "succeeded"
        node.stop()
    except BaseException:
        node.show()
        raise
    finally:
        node.close()


def frame(text, stream=1):
    """As the shim writes it: crc, length, time, stream, bytes."""
    body = struct.pack("<IqBxxx", len(text), int(time.time() * 1000), stream) + text
    return struct.pack("<I", zlib.crc32(body)) + body


def test_half_a_character_and_bytes_that_are_none(plane):
    """Output is bytes: what is cut by a frame is put together, what is no UTF-8 is shown as such, and JSON stays JSON."""
    job_id = plane.queue(echo("x", delay_ms=3000, repeat=1))
    journal = wait_until(lambda: next(iter((plane.node.state_dir / "jobs").glob("*/*/journal")), None), slow(10), "the journal")
    euro = "\u20ac".encode()
    with open(journal, "ab", buffering=0) as f:
        for part in (b"whole " + euro[:1], euro[1:] + b"\n", b"half " + euro[:2] + b"\n", b"\xff\xfe\x00\x01\n", b"\xed\xa0\x80\n", b"cut " + euro[:2]):
            f.write(frame(part, 2))
    s = plane.ended(job_id, slow(20))
    got = [log["message"] for log in s["logs"] if log["stream"] == "stderr"]
    assert got[0] == "whole \u20ac" and got[1].startswith("half \ufffd") and got[3].startswith("\ufffd") and got[4].startswith("cut \ufffd"), got
    assert "\x01" in got[2] and "\x00" not in got[2], got
    heard = [d["message"] for _, event, d in Follower(plane, job_id, "logs") if event == "stderr"]
    assert heard == got
