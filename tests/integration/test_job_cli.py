"""mswarm gpu and mswarm job: the existing client's options and text, on the node's machine without any."""
import contextlib
import fcntl
import hashlib
import json
import os
import re
import struct
import subprocess
import termios
import threading

import pytest
from conftest import slow
from jobs import ENV, NODE, echo
from node import binary, clean_env, wait_until


@pytest.fixture
def plane(make_plane):
    return make_plane(1)


def job_file(plane, job, name="job.json"):
    path = plane.node.home / name
    path.write_text(json.dumps(job))
    return str(path)


def ok(plane, *words, code=0, **kw):
    done = plane.node.cli(*words, limit=slow(30), **kw)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout


def test_run_and_look(plane):
    path = job_file(plane, echo("hello there", repeat=2))
    out = ok(plane, "job", "run", "--job-file", path)
    job_id, state = out.split()
    assert state == "queued"
    plane.ended(job_id, slow(20))
    assert ok(plane, "job", "status", job_id) == f"{job_id} succeeded\n"
    assert ok(plane, "job", "logs", job_id) == "hello there\nhello there\n"
    assert [e["type"] for e in json.loads(ok(plane, "job", "events", job_id))["events"]] == ["started", "stdout", "stdout", "progress", "completed"]
    assert json.loads(ok(plane, "job", "artifacts", job_id)) == {"job_id": job_id, "artifacts": []}
    assert json.loads(ok(plane, "job", "status", job_id, "--json"))["job"]["state"] == "succeeded"
    assert ok(plane, "job", "list") == f"{job_id} succeeded tenant.test-echo priority=0 tenant=owner-local\n"
    done = plane.node.cli("job", "retry", job_id)
    assert done.returncode == 1 and done.stderr.startswith("mswarm request failed (400): ") and "job_retry_not_allowed" in done.stderr


def test_gpu(plane):
    plane.ended(plane.queue(echo()), slow(20))
    assert json.loads(ok(plane, "gpu", "list"))["job_types"] == ["tenant.test-echo"]
    lines = ok(plane, "gpu", "ops", "--audit-limit", "2").splitlines()
    assert lines[:4] == [f"{plane.node.node_id} generic-jobs-enabled", "queue active=0 queued=0 terminal=1",
                         "quota available=1/1 production_enforced=false", "usage total=1 succeeded=1 failed=0 cancelled=0 blocked=0 gpu_seconds=0"]
    assert lines[4] == "jobs:" and lines[6] == "audit offset=0 limit=2 total=12:" and len(lines) == 9
    assert json.loads(ok(plane, "gpu", "ops", "--json"))["usage"]["total_jobs"] == 1


class Screen:
    """A command on a terminal of its own; what it has drawn last."""

    def __init__(self, words, env, rows, columns):
        try:
            self.master, slave = os.openpty()
        except OSError:
            pytest.skip("no pseudo-terminal can be had here")
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave)
        os.close(slave)
        os.set_blocking(self.master, False)
        self.text = ""

    def frame(self):
        with contextlib.suppress(BlockingIOError):
            self.text += os.read(self.master, 65536).decode()
        whole = re.findall(r"\x1b\[H(.*?)\x1b\[J", self.text, re.S)
        return whole[-1].replace("\x1b[K", "").replace("\r", "") if whole else ""

    def wait(self, *texts):
        return wait_until(lambda: all(t in self.frame() for t in texts) and self.frame(), slow(20), f"{texts} on the screen")

    def end(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def test_watched_on_a_terminal(plane):
    """A table, cut to the terminal, that a node's end and new start does not end."""
    node = plane.node
    port = node.port
    done = plane.queue(echo(), "first")
    plane.ended(done, slow(20))
    screen = Screen([binary(), "gpu", "ops", "--watch", "--node-base-url", node.url], clean_env(node.home, ENV), 9, 60)
    try:
        lines = screen.wait("succeeded", "first").split("\n")
        assert lines[0].startswith(f"{node.node_id}  20") and lines[1] == "0 of 1 at work, 0 waiting, 1 ended"
        assert re.fullmatch(r"STATE +PRIO +SINCE +JOB +TENANT +TYPE *", lines[5]) and lines[6].split()[0] == "succeeded", lines
        for n in range(4):
            plane.queue(echo(delay_ms=200), f"more-{n}")
        lines = screen.wait("5 ended").split("\n")
        assert len(lines) == 9 and lines[-1] == "" and all(len(line) <= 60 for line in lines), "two jobs fit"
        node.kill()
        assert "5 ended" in screen.wait("asking again: "), "what was heard last stays"
        node.start(env={"MSWARM_SELF_HOSTED_LISTEN_PORT": str(port)}, limit=slow(20))
        wait_until(lambda: "asking again" not in screen.frame(), slow(20), "it is heard again")
        assert screen.process.poll() is None
    finally:
        screen.end()


@pytest.mark.parametrize("job, code, state", [
    (echo("x"), 0, "succeeded"), (echo("no", fail=True), 2, "failed"), ({**echo(), "job_type": "render.blender"}, 4, "blocked"),
    (echo(scheduling={"deadline_at": "2020-01-01T00:00:00Z"}), 5, "expired"),
])
def test_exit_codes_tell_the_outcome(plane, job, code, state):
    path = job_file(plane, job)
    out = ok(plane, "job", "run", "--job-file", path, "--wait", "--interval-ms", "20", code=code)
    assert out.split("\n")[0].endswith(f" {state}")
    done = plane.node.cli("job", "run", "--payload-file", path, "--follow", limit=slow(30))
    assert done.returncode == code and done.stderr.splitlines()[-1].endswith(f" {state}")
    assert done.stdout == ("x\n" if state == "succeeded" else "")


def test_follow_tells_why(plane):
    """What went wrong, with its place, before the last line."""
    path = job_file(plane, {**echo(), "tenant": {"tenant_id": "me"}, "args": {"message": "x", "repeat": -1}})
    done = plane.node.cli("job", "run", "--job-file", path, "--follow", limit=slow(30))
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and lines[1] == "generic job request failed validation" and lines[-1].endswith(" failed"), lines
    assert "  tenant: Unknown generic job request field." in lines[2:-1], lines
    done = plane.node.cli("job", "run", "--job-file", job_file(plane, {**echo(), "job_type": "render.blender"}), "--follow", limit=slow(30))
    lines = done.stderr.splitlines()
    assert done.returncode == 4 and len(lines) == 3 and " " in lines[1] and lines[2].endswith(" blocked"), lines


def test_cancel(plane):
    path = job_file(plane, echo(delay_ms=30000))
    job_id = ok(plane, "job", "run", "--job-file", path).split()[0]
    wait_until(lambda: plane.state(job_id) == "running", slow(10), "it runs")
    assert ok(plane, "job", "cancel", job_id) == f"{job_id} running\n"
    assert plane.ended(job_id, slow(20))["job"]["state"] == "cancelled"
    ok(plane, "job", "logs", job_id, "--follow", code=3)


def test_run_follow_over_a_kill(plane):
    """The issue's last word: its whole output and its right end, with the node killed and started again in between."""
    node = plane.node
    port = node.port
    path = job_file(plane, echo("line", repeat=20, delay_ms=150))
    process = subprocess.Popen([binary(), "job", "run", "--job-file", path, "--follow", "--node-base-url", node.url], cwd=node.home,
                               env=clean_env(node.home, ENV), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout))
    reader.start()
    for n in (3, 9):
        wait_until(lambda n=n: len(lines) >= n, slow(20), f"{n} lines")
        node.kill()
        node.start(args=["--listen-port", str(port)], env={"MSWARM_SELF_HOSTED_LISTEN_PORT": str(port)}, limit=slow(20))
    reader.join(slow(30))
    assert process.wait(slow(20)) == 0, process.stderr.read()
    assert lines == ["line\n"] * 20


def test_what_cannot_be(plane):
    for words, text in [(("job", "status"), "jobId is required"), (("job", "run"), "--job-file or --payload-file is required"),
                        (("job", "run", "--job-file", "/no/such"), "/no/such"), (("job", "status", "nobody"), "job_not_found"),
                        (("job", "status", "x", "--node-base-url", "http://127.0.0.1:1"), "127.0.0.1"),
                        (("job", "logs", "x", "--token", "a.b.c"), "401")]:
        done = plane.node.cli(*words, limit=slow(30))
        assert done.returncode == 1 and text in done.stderr and done.stdout == "", (words, done.stderr)
        assert len(done.stderr.splitlines()) == (3 if "--token" in words else 1), "a token as an argument is warned of"


# ---- files ----

def test_upload_and_download(plane, tmp_path):
    data = os.urandom(20 << 20)                        # three pieces
    (tmp_path / "scene.blend").write_bytes(data)
    out = json.loads(ok(plane, "job", "artifact", "upload", str(tmp_path / "scene.blend"), "--job-id", "j 1", "--artifact-path", "in/s é.blend",
                        "--artifact-name", "a scene", "--content-type", "application/x-blend"))
    assert out["artifact"]["uri"] == "artifact://local/j_1/in/s é.blend" and out["artifact"]["name"] == "a scene"
    assert out["artifact"]["size_bytes"] == len(data) and out["artifact"]["content_type"] == "application/x-blend"
    back = tmp_path / "deep" / "back"
    assert ok(plane, "job", "download", "j 1", "in/s é.blend", "--output", str(back)) == f"{back}\n" and back.read_bytes() == data
    assert not list(back.parent.glob("*.part"))
    (tmp_path / "empty").write_bytes(b"")
    assert json.loads(ok(plane, "job", "artifact", "upload", str(tmp_path / "empty"), "--job-id", "j 1"))["artifact"]["size_bytes"] == 0
    for words, text in ((("artifact", "upload", "/none", "--job-id", "j"), "No such file"), (("artifact", "upload", str(back)), "jobId is required"),
                        (("artifact", "upload", str(tmp_path), "--job-id", "j"), "not a regular file"), (("download", "j 1", "none"), "(404)"),
                        (("artifact", "upload", str(back), "--job-id", "j 1", "--artifact-path", "in/s é.blend"), "target_exists"),
                        (("download", "j 1", "in/s é.blend", "--output", "/proc/none"), "/proc/none")):
        done = plane.node.cli("job", *words)
        assert done.returncode == 1 and text in done.stderr, done.stderr


def test_all_that_a_job_left(plane, tmp_path):
    job = echo("hi", delay_ms=int(slow(2) * 1000))
    job["outputs"] = [{"name": "o", "path": "o"}]
    job_id = plane.queue(job)
    work = wait_until(lambda: next((plane.node.state_dir / "artifacts" / "@work").glob("*"), None), slow(20), "its directory")
    wait_until(lambda: plane.state(job_id) == "running", slow(20), "it runs")
    (work / "outputs" / "o").mkdir()
    for name in "ab":
        (work / "outputs" / "o" / name).write_bytes(name.encode())
    plane.ended(job_id, slow(30))
    assert ok(plane, "job", "download", job_id, "--output", str(tmp_path)).splitlines() == [f"{tmp_path}/o/a", f"{tmp_path}/o/b"]
    assert (tmp_path / "o" / "b").read_bytes() == b"b"
    empty = plane.queue(echo())
    plane.ended(empty, slow(20))
    assert "left no files" in plane.node.cli("job", "download", empty).stderr


def test_an_upload_over_a_killed_node(plane, tmp_path):
    """The node goes away in the middle and comes back: the upload goes on, and is whole."""
    data = os.urandom(40 << 20)
    (tmp_path / "big").write_bytes(data)
    command = subprocess.Popen([binary(), "job", "artifact", "upload", str(tmp_path / "big"), "--job-id", "j", "--node-base-url",
                                f"http://{plane.node.host}:{plane.node.port}", "--node-id", NODE], env=clean_env(plane.node.home, ENV),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    port = plane.node.port
    wait_until(lambda: [p for p in (plane.node.state_dir / "artifacts" / "@files").glob("*/*") if p.stat().st_size > (4 << 20)], slow(20), "it is under way")
    plane.node.kill()
    plane.node.start(env={"MSWARM_SELF_HOSTED_LISTEN_PORT": str(port)})
    out, err = command.communicate(timeout=slow(60))
    assert command.returncode == 0, err
    assert json.loads(out)["artifact"]["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_bar_on_a_terminal(plane, tmp_path):
    (tmp_path / "f").write_bytes(b"x" * 1000000)
    try:
        master, slave = os.openpty()
    except OSError:
        pytest.skip("no pseudo-terminal can be had here")
    command = subprocess.run([binary(), "job", "artifact", "upload", str(tmp_path / "f"), "--job-id", "j"], env=clean_env(plane.node.home, ENV),
                             stdout=subprocess.PIPE, stderr=slave, timeout=slow(30))
    os.close(slave)
    shown = os.read(master, 4096).decode()
    os.close(master)
    assert command.returncode == 0 and "[##############################] 1.0 of 1.0 MiB" in shown
