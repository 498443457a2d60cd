"""mswarm-shim alone, without a node: what it writes, and that nothing of a job is left when it says that it ended."""
import json
import os
import pathlib
import signal
import struct
import subprocess
import time
import zlib

import pytest
from conftest import slow
from node import binary, wait_until

OUT, ERR, NOTE = 1, 2, 3
ENV = ["PATH=/usr/bin:/bin"]


def shim():
    return str(pathlib.Path(binary()).with_name("mswarm-shim"))


class Attempt:
    def __init__(self, folder, argv, env=None, **keys):
        self.dir = pathlib.Path(folder)
        self.dir.mkdir(mode=0o700, exist_ok=True)
        entries = [f"arg={a}" for a in argv] + [f"env={e}" for e in (ENV if env is None else env)] + [f"{k}={v}" for k, v in keys.items()]
        (self.dir / "spec").write_bytes(b"".join(e.encode() + b"\0" for e in entries))
        self.process = None

    def start(self):
        self.process = subprocess.Popen([shim(), str(self.dir)])
        return self

    def wait(self, limit=20):
        assert self.process.wait(slow(limit)) == 0
        return self.record()

    def run(self):
        return self.start().wait()

    def record(self):
        return json.loads((self.dir / "exit").read_text())

    def frames(self):
        data, at, out = (self.dir / "journal").read_bytes(), 0, []
        while at < len(data):
            crc, n, ms, kind = struct.unpack("<IIqB3x", data[at:at + 20])
            assert zlib.crc32(data[at + 4:at + 20 + n]) == crc
            out.append((kind, ms, data[at + 20:at + 20 + n]))
            at += 20 + n
        return out

    def output(self, kind):
        return b"".join(data for k, _, data in self.frames() if k == kind)


@pytest.fixture
def attempt(tmp_path):
    made = []

    def make(*argv, **keys):
        made.append(Attempt(tmp_path / f"a{len(made)}", argv, **keys))
        return made[-1]
    yield make
    for a in made:
        if a.process and a.process.poll() is None:
            a.process.terminate()
            a.process.wait(slow(20))


def marked(mark):
    """Living processes that have this word in their arguments."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if mark.encode() in f.read():
                    found.append(int(pid))
        except OSError:
            pass
    return found


def test_output_and_end(attempt):
    before = time.time() * 1000
    a = attempt("sh", "-c", "echo out; echo err >&2; exit 3")
    r = a.run()
    assert (r["reason"], r["code"], r["signal"], r["error"]) == ("exited", 3, 0, "")
    assert a.output(OUT) == b"out\n" and a.output(ERR) == b"err\n" and (r["out_bytes"], r["err_bytes"], r["lost_bytes"]) == (4, 4, 0)
    assert before - 1 <= r["started_ms"] <= r["ended_ms"] <= time.time() * 1000 + 1
    assert r["journal_bytes"] == (a.dir / "journal").stat().st_size
    assert sorted(f.name for f in a.dir.iterdir()) == ["exit", "journal", "pid", "spec"]


def test_signal_is_no_exit_code(attempt):
    r = attempt("sh", "-c", "kill -SEGV $$").run()
    assert (r["reason"], r["code"], r["signal"]) == ("exited", -1, signal.SIGSEGV)


@pytest.mark.parametrize("argv, keys, error", [
    (["no-such-program"], {}, "exec: no-such-program: No such file or directory"),
    (["/"], {}, "exec: /: Permission denied"),
    (["true"], {"cwd": "/no/such"}, "cwd: /no/such: No such file or directory"),
    ([], {}, "spec: nothing to run"),
    (["true"], {"limit_ms": "soon"}, "spec: limit_ms is no number"),
    (["true"], {"colour": "red"}, "spec: unknown key colour"),
])
def test_not_started(attempt, argv, keys, error):
    r = attempt(*argv, **keys).run()
    assert (r["reason"], r["error"]) == ("not_started", error)


def test_a_spec_that_is_not_whole(attempt):
    a = attempt("true")
    (a.dir / "spec").write_bytes(b"arg=true\0arg=x")
    assert a.run()["error"] == "spec: not whole"
    b = attempt("true")
    (b.dir / "spec").unlink()
    assert b.run()["error"] == "spec: No such file or directory"


def test_an_attempt_has_one_shim(attempt):
    a = attempt("sh", "-c", "echo mine; sleep 600").start()
    wait_until(lambda: (a.dir / "journal").exists() and a.output(OUT), slow(5), "the output")
    before = sorted(f.name for f in a.dir.iterdir())
    second = subprocess.run([shim(), str(a.dir)], capture_output=True, text=True, check=False)
    assert second.returncode == 3 and "another's" in second.stderr and sorted(f.name for f in a.dir.iterdir()) == before
    (a.dir / "stop").touch()
    assert a.wait()["reason"] == "stopped" and a.output(OUT) == b"mine\n"


def test_an_attempt_that_was_given_up_does_not_start(attempt):
    a = attempt("true")
    (a.dir / "pid").write_text("0 0\n")
    assert a.start().process.wait(slow(5)) == 3
    assert sorted(f.name for f in a.dir.iterdir()) == ["pid", "spec"]


def test_environment_is_only_what_was_given(attempt):
    a = attempt("env", env=["PATH=/usr/bin", "A=b=c", "E="])
    a.run()
    assert sorted(a.output(OUT).decode().split("\n")) == ["", "A=b=c", "E=", "PATH=/usr/bin"]


def test_nothing_is_inherited(attempt):
    r, w = os.pipe()
    os.set_inheritable(w, True)
    a = attempt("sh", "-c", "ls /proc/self/fd; ps -o sid= -p $$; cat")
    a.process = subprocess.Popen([shim(), str(a.dir)], close_fds=False)
    a.wait()
    os.close(w)
    os.close(r)
    words = a.output(OUT).decode().split()
    assert words[:3] == ["0", "1", "2"] and len(words) <= 5
    assert int(words[-1]) != os.getsid(0)


def test_time_limit(attempt):
    r = attempt("sleep", "60", limit_ms=200).run()
    assert (r["reason"], r["signal"]) == ("timeout", signal.SIGTERM)
    assert 190 <= r["ended_ms"] - r["started_ms"] < 1000 * slow(1)


def test_a_job_that_ignores_term(attempt):
    a = attempt("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done", grace_ms=200).start()
    wait_until(lambda: (a.dir / "journal").exists() and a.output(OUT) == b"ready\n", slow(5), "the trap")
    (a.dir / "stop").touch()
    r = a.wait()
    assert (r["reason"], r["signal"]) == ("stopped", signal.SIGKILL)


def test_what_is_forked_while_it_is_stopped(attempt):
    """Who has lost its parent is told to end as well, and not killed only after the whole grace."""
    mark = f"forked-{os.getpid()}"
    a = attempt("bash", "-c", f"trap 'sh -c \"sleep 600\" {mark} & exit 0' TERM; echo ready; while :; do sleep 0.05; done", grace_ms=60000).start()
    wait_until(lambda: (a.dir / "journal").exists() and a.output(OUT) == b"ready\n", slow(5), "the trap")
    (a.dir / "stop").touch()
    began = time.monotonic()
    assert a.wait()["reason"] == "stopped" and time.monotonic() - began < slow(10)
    assert marked(mark) == []


def test_a_job_may_clean_up_when_it_is_stopped(attempt):
    """What a living one starts for that is left alone."""
    a = attempt("bash", "-c", "trap 'sleep 0.7; echo cleaned; exit 3' TERM; echo ready; while :; do sleep 0.05; done", grace_ms=20000).start()
    wait_until(lambda: (a.dir / "journal").exists() and a.output(OUT) == b"ready\n", slow(5), "the trap")
    (a.dir / "stop").touch()
    r = a.wait()
    assert (r["reason"], r["code"]) == ("stopped", 3) and a.output(OUT) == b"ready\ncleaned\n"


@pytest.mark.parametrize("how", ["child", "setsid", "double fork", "stopped", "forks"])
def test_nothing_is_left(attempt, how):
    """The whole tree ends, also what detached itself, ignores TERM, stands still, or forks on and on."""
    mark = f"left-{how.replace(' ', '-')}-{os.getpid()}"
    lines = {
        "child": f"sleep 60 {mark} & wait",
        "setsid": f"setsid sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' {mark} & wait",
        "double fork": f"(setsid sh -c 'trap \"\" TERM; (sh -c \"while :; do sleep 0.1; done\" {mark} &); exit' &); exit 0",
        "stopped": f"sh -c 'kill -STOP $$' {mark} & wait",
        "forks": f"f() {{ sh -c 'sleep 0.02' {mark} & sleep 0.01; f; }}; f & f & wait",
    }
    text = lines[how].replace("sleep 60 ", "exec -a ").replace("exec -a " + mark, f"sh -c 'sleep 60' {mark}")
    a = attempt("bash", "-c", text, grace_ms=150).start()
    wait_until(lambda: marked(mark) or a.process.poll() is not None, slow(5), "the tree")    # its own process has ended: it may be over
    (a.dir / "stop").touch()
    a.wait()
    assert marked(mark) == []


def test_what_a_job_leaves_behind_ends_with_it(attempt):
    mark = f"behind-{os.getpid()}"
    a = attempt("bash", "-c", f"sh -c 'sleep 60' {mark} & echo done")
    r = a.run()
    assert (r["reason"], r["code"]) == ("exited", 0) and a.output(OUT) == b"done\n" and a.output(NOTE) == b"left_behind"
    assert marked(mark) == []


def test_output_is_bytes(attempt):
    """Half a character stays half a character, in its place."""
    a = attempt("bash", "-c", r"printf '\xe2\x82'; sleep 0.05; printf '\xac\0\xff'")
    a.run()
    assert a.output(OUT) == b"\xe2\x82\xac\0\xff"


def test_streams_are_cut_at_their_limit(attempt):
    a = attempt("sh", "-c", "head -c 50000000 /dev/zero; echo err >&2", out_max=100000)
    r = a.run()
    assert len(a.output(OUT)) == 100000 and a.output(ERR) == b"err\n" and r["out_bytes"] == 50000000
    assert a.output(NOTE) == b"log_truncated stdout 100000"
    a = attempt("sh", "-c", "head -c 5000 /dev/zero >&2; echo out", err_max=100)
    a.run()
    assert (len(a.output(ERR)), a.output(OUT), a.output(NOTE)) == (100, b"out\n", b"log_truncated stderr 100")


def test_it_is_small(attempt):
    a = attempt("sleep", "60").start()
    wait_until(lambda: (a.dir / "journal").exists(), slow(5), "the start")
    with open(f"/proc/{a.process.pid}/smaps_rollup", encoding="ascii") as f:
        private = sum(int(line.split()[1]) for line in f if line.startswith("Private_"))
    if not os.environ.get("MSWARM_SANITIZED"):
        assert private < 300, f"{private} KB"
    pid, started = (a.dir / "pid").read_text().split()
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        assert int(pid) == a.process.pid and f.read().rsplit(")", 1)[1].split()[19] == started
    a.process.terminate()
    assert a.wait()["reason"] == "stopped"


def mounted(tmp_path, size):
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no tmpfs can be mounted here")
    return folder


def test_full_disk_makes_the_job_wait_and_loses_nothing(tmp_path):
    small = mounted(tmp_path, "256k")
    try:
        filler = small / "filler"
        a = Attempt(small / "a", ["sh", "-c", "head -c 150000 /dev/zero | tr '\\0' x; echo end"])
        filler.write_bytes(b"x" * 150000)
        a.start()
        wait_until(lambda: (a.dir / "journal").exists() and (a.dir / "journal").stat().st_size > 20000, slow(5), "some output")
        assert a.process.poll() is None and (a.dir / "exit").stat().st_size == 0
        filler.unlink()
        r = a.wait()
        assert r["lost_bytes"] == 0 and a.output(OUT) == b"x" * 150000 + b"end\n"
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def test_no_room_for_its_files_is_told_apart(tmp_path):
    """Nothing was begun, and no record says otherwise: the node lets it begin later."""
    small = mounted(tmp_path, "64k")
    try:
        a = Attempt(small / "a", ["touch", str(tmp_path / "began")])
        with open(small / "filler", "wb", buffering=0) as f:
            try:
                while f.write(b"x" * 512):
                    pass
            except OSError:
                pass
        assert a.start().process.wait(slow(20)) == 4
        assert not (tmp_path / "began").exists() and not ((a.dir / "exit").exists() and (a.dir / "exit").stat().st_size)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def test_full_disk_cannot_hide_how_it_ended(tmp_path):
    small = mounted(tmp_path, "64k")
    try:
        a = Attempt(small / "a", ["sh", "-c", "head -c 150000 /dev/zero; exit 7"], limit_ms=300, grace_ms=100)
        r = a.run()
        assert r["reason"] == "timeout" and len(a.output(OUT)) + r["lost_bytes"] <= r["out_bytes"]
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def test_memory_limit_is_told_apart(attempt):
    hog = "x = bytearray(200 << 20); print(len(x))"
    r = attempt("python3", "-c", hog, cgroup=f"mswarm-test-{os.getpid()}", memory_max=50 << 20).run()
    if r["cgroup"] == "none":
        pytest.skip("no cgroup can be made here")
    assert r["signal"] == signal.SIGKILL and r["peak_memory_bytes"] > 40 << 20
    if r["is_oom"] is False:
        pytest.skip("this kernel does not tell who was killed for memory")


def test_files_as_the_node_was_given_them(attempt):
    a = attempt("sh", "-c", "ulimit -Sn; ulimit -Hn", nofile=77)
    assert a.run()["code"] == 0
    soft, hard = a.output(OUT).split()
    assert soft == b"77" and (hard == b"unlimited" or int(hard) > 77)


def test_a_gigabyte_of_output(attempt):
    """Kept up to the cap, said once, the job not held up; the shim no larger for it."""
    a = attempt("sh", "-c", "head -c 1073741824 /dev/zero | tr '\\0' x; echo end >&2", out_max=50 << 20)
    a.start()
    most = 0
    while a.process.poll() is None:
        try:
            with open(f"/proc/{a.process.pid}/smaps_rollup", encoding="ascii") as f:
                most = max(most, sum(int(line.split()[1]) for line in f if line.startswith("Private_")))
        except OSError:
            pass
    r = a.wait(60)
    assert (r["reason"], r["code"], r["out_bytes"], r["lost_bytes"]) == ("exited", 0, 1 << 30, 0)
    assert sum(len(data) for kind, _, data in a.frames() if kind == OUT) == 50 << 20
    assert a.output(NOTE) == b"log_truncated stdout 52428800" and a.output(ERR) == b"end\n"
    if not os.environ.get("MSWARM_SANITIZED"):
        assert 0 < most < 300, f"{most} KB"
