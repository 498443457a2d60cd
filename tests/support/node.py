"""A real node under test: one process, a home folder of its own, its ready line, its log.

    with Node(config={"demo": True}) as node:          # starts; stops and checks the log at the end
        status, headers, body = node.request("GET", "/healthz")
        done = node.cli("keys", "add", "laptop")       # a command in the same home
        node.kill(); node.start()                      # the same state folder again

The program comes from MSWARM_BIN, else build/mswarm of this checkout. Nothing of the caller's MSWARM_*, proxy or
OLLAMA_HOST environment reaches it, and the sources that look at the machine are off unless env switches them on.
"""
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
READY = re.compile(r"^mswarm self-hosted node (?:serving direct jobs|foreground run active|daemon active) for (\S+)(?: on (\S+):(\d+))?$",
                   re.M)
STARTED = re.compile(r" node\.started addr=(\S+):(\d+)")
SANITIZER = re.compile(r"(ERROR|WARNING): (Address|Leak|Thread|Memory)Sanitizer|runtime error:|SUMMARY: \w+Sanitizer")
STALLED = re.compile(r"loop\.stalled loop=\S+ count=(\d+) max_us=(\d+)")
# Sources that would make a test depend on what runs on this machine.
QUIET = {"MSWARM_MCODA_SOURCE": "0", "MSWARM_OLLAMA_SOURCE": "0", "MSWARM_DISCOVERY_SOURCE": "0",
         "MSWARM_CAPABILITY_PROBES": "0"}


def wait_until(what, limit=10.0, why="the condition"):
    """Ask what() until it gives something true and return that. The only place in the tests that polls."""
    end = time.monotonic() + limit
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{why}: not within {limit} s")
        time.sleep(0.01)  # lint: wait_until is this


def binary():
    return os.environ.get("MSWARM_BIN") or str(ROOT / "build" / "mswarm")


def is_sanitized():
    """True when the program under test was built with a sanitizer: its timings say little."""
    with open(binary(), "rb") as f:
        return re.search(rb"__(asan|tsan)_init", f.read()) is not None


def clean_env(home, extra=None):
    """The environment of a node or command: the caller's without everything that would steer it, plus extra (None unsets)."""
    drop = re.compile(r"MSWARM_|MCODA_|OLLAMA_|(http|https|all|no)_proxy$", re.I)
    env = {k: v for k, v in os.environ.items() if not drop.match(k)}
    env.pop("NOTIFY_SOCKET", None)
    env.update(QUIET, HOME=str(home))
    for k, v in (extra or {}).items():
        if v is None:
            env.pop(k, None)
        else:
            env[k] = str(v)
    return env


class Node:
    """env, args: added to every start. config: the content of config.json (object or text). command: words before args."""

    def __init__(self, env=None, args=(), config=None, command=("serve",), home=None, is_stall_checked=False):
        self.env, self.args, self.command = dict(env or {}), list(args), list(command)
        self.is_home_ours = home is None
        self.home = pathlib.Path(home or tempfile.mkdtemp(prefix="mswarm-test-"))
        self.state_dir = self.home / ".mswarm" / "self-hosted-node"
        self.is_stall_checked = is_stall_checked
        self.process = self.port = self.host = self.node_id = None
        if config is not None:
            self.write_config(config)

    # -- life --

    def write_config(self, config):
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = config if isinstance(config, str) else json.dumps(config, indent=2)
        (self.state_dir / "config.json").write_text(text)

    def launch(self, env=None, args=()):
        """Start the process without waiting. Output of earlier starts stays in front."""
        assert self.process is None, "already started"
        extra = {"MSWARM_SELF_HOSTED_LISTEN_PORT": "0", **self.env, **(env or {})}
        with open(self.home / "stdout", "ab") as out, open(self.home / "stderr", "ab") as err:
            self._out_from, self._err_from = out.tell(), err.tell()
            self.process = subprocess.Popen([binary(), *self.command, *self.args, *args], env=clean_env(self.home, extra),
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=self.home)
        return self

    def start(self, env=None, args=(), limit=20.0):
        """Start and wait for the ready line; sets host, port, url, node_id."""
        self.launch(env, args)
        try:
            wait_until(self._is_ready, limit, "ready line")
        except AssertionError:
            self.show()
            self.kill()
            raise
        return self

    def _is_ready(self):
        assert self.process.poll() is None, f"the node ended with {self.process.returncode}"
        ready, started = READY.search(self.out()), STARTED.search(self.log())
        if not ready or not (ready[2] or started):
            return False
        self.node_id = ready[1]
        self.host, self.port = (ready[2], int(ready[3])) if ready[2] else (started[1], int(started[2]))
        return True

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, limit=20.0):
        """Wait for the end; exit code (negative: signal)."""
        process = self.process
        wait_until(lambda: process.poll() is not None, limit, "end of the node")
        self.process = None
        return process.returncode

    def stop(self, limit=20.0, expect=0):
        """SIGTERM, exit code, and what the log must not hold."""
        if self.process is None:
            return
        self.signal(signal.SIGTERM)
        try:
            code = self.wait(limit)
        except AssertionError:
            self.kill()
            raise
        self.check_log()
        assert code == expect, f"the node ended with {code}"

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def check_log(self):
        report = SANITIZER.search(self.log())
        assert not report, f"sanitizer report: {report[0]}"
        if self.is_stall_checked and not is_sanitized():
            stalls = [(int(count), int(max_us)) for count, max_us in STALLED.findall(self.log())]
            # The meter takes off the time that a thread waits for a processor, not the pauses of the machine itself: one is forgiven.
            assert sum(n for n, _ in stalls) <= 1 and all(us < 20000 for _, us in stalls), f"loops stalled for more than 5 ms: {stalls}"

    def close(self):
        self.kill()
        if self.is_home_ours:
            shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self):
        return self.start() if self.process is None else self

    def __exit__(self, kind, value, trace):
        try:
            if kind is None:
                self.stop()
        except AssertionError:
            self.show()
            raise
        finally:
            if kind is not None:
                self.show()
            self.close()

    # -- what it says --

    @property
    def pid(self):
        return self.process.pid

    @property
    def url(self):
        return f"http://{self.host}:{self.port}"

    def _text(self, name, start):
        with open(self.home / name, "rb") as f:
            f.seek(start)
            return f.read().decode("utf-8", "replace")

    def out(self):
        """Standard output since the last start."""
        return self._text("stdout", self._out_from)

    def log(self):
        """Standard error since the last start."""
        return self._text("stderr", self._err_from)

    def whole_log(self):
        """log() with every line of what has happened so far: they are written in order, a moment later. Node running, access log on."""
        mark = self.request("GET", "/healthz")[1]
        mark = {k.lower(): v for k, v in dict(mark).items()}["x-request-id"]
        wait_until(lambda: f"req={mark} " in self.log(), 10, "the log to be written so far")
        return self.log()

    def show(self):
        print(f"---- node output ----\n{self.out()}---- node log ----\n{self.log()}----", file=sys.stderr)

    # -- talking to it --

    def request(self, method, path, body=None, headers=None, limit=10.0):
        """One request on a connection of its own: (status, headers by lower-case name, body bytes). body: bytes, text or an object."""
        headers = dict(headers or {})
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            headers.setdefault("content-type", "application/json")
        connection = http.client.HTTPConnection(self.host, self.port, timeout=limit)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def cli(self, *words, env=None, stdin="", limit=30.0):
        """Run a command in this node's home; CompletedProcess with text stdout and stderr."""
        return subprocess.run([binary(), *words], env=clean_env(self.home, {**self.env, **(env or {})}), input=stdin,
                              capture_output=True, text=True, timeout=limit, cwd=self.home)
