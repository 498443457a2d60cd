"""What the benchmarks share: programs under test, their processor time and memory."""
import atexit
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")


def sh(*args, **kw):
    return subprocess.run([str(a) for a in args], check=True, **kw)


def wait_until(what, limit_s=10.0):
    end = time.monotonic() + limit_s
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            sys.exit(f"bench: gave up waiting for {what.__name__}")
        time.sleep(0.001)  # lint: wait_until


def cpu_s(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def pss_kb(pid):
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


class Proc:
    """A process under test: its port, its processor time, its memory."""

    def __init__(self, args, env=None, ready=None):
        self.out = tempfile.TemporaryFile("w+b")
        self.p = subprocess.Popen([str(a) for a in args], stdout=self.out, stderr=subprocess.DEVNULL, env=env)
        self.pid = self.p.pid
        atexit.register(self.p.kill)    # nothing is left when a part fails; of one that has ended nothing is done
        self.port = wait_until(lambda: self.find(ready)) if ready else 0

    def find(self, ready):
        self.out.seek(0)
        for line in self.out.read().decode().splitlines():
            if ready in line:
                return int(line.split(ready, 1)[1].split()[0])
        return 0

    def stop(self):
        self.p.send_signal(signal.SIGTERM)
        self.p.wait(20)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def build(tmp, given=None):
    """The node in tmp/build: built here with preset release, or the folder given."""
    if given:
        (tmp / "build").symlink_to(pathlib.Path(given).resolve())
        return
    sh("cmake", "--preset", "release", "-B", tmp / "build", cwd=TOP, stdout=subprocess.DEVNULL)
    sh("cmake", "--build", tmp / "build", "--target", "mswarm", stdout=subprocess.DEVNULL)
