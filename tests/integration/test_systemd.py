"""The service under a real "systemd --user": installed, ready, watched, restarted; a job runs on across it."""
import json
import os
import pathlib
import signal
import subprocess
import threading

import pytest

from conftest import slow
from gateway import job as gateway_job
from node import binary, clean_env, wait_until

HERE = pathlib.Path(__file__).resolve().parents[1]
UNIT = "mswarm-self-hosted-node.service"
KEY = "msw_owner_key_0001"


def shims():
    """Processes of mswarm-shim on this machine."""
    found = set()
    for p in pathlib.Path("/proc").glob("[0-9]*/comm"):
        try:
            if p.read_text().strip() == "mswarm-shim":
                found.add(p.parent.name)
        except OSError:
            pass
    return found


class Session:
    """A shell that lives in a mount namespace with its own service manager; commands go in, (code, text) comes out."""

    def __init__(self, home):
        self.home = home
        env = clean_env(home, {"USER": "root"})
        self.process = subprocess.Popen([str(HERE / "support" / "in_user_systemd"), str(home), "bash", "--norc"], env=env, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=home)
        if self.sh("echo up")[1].strip() != "up":
            self.close()
            pytest.skip("no systemd of a user can be had here")

    def sh(self, command):
        try:
            self.process.stdin.write(f"{{ {command}\n}} </dev/null 2>&1; echo \"@@$?\"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return 77, ""
        text = ""
        for line in self.process.stdout:
            if line.startswith("@@"):
                return int(line[2:]), text
            head, mark, code = line.rpartition("@@")
            if mark and code.strip().isdigit():
                return int(code), text + head
            text += line
        return 77, text

    def must(self, command):
        code, text = self.sh(command)
        assert code == 0, f"{command}: {code}: {text}"
        return text

    def pid(self):
        return int(self.must(f"systemctl --user show -p MainPID --value {UNIT}"))

    def close(self):
        try:
            self.process.stdin.close()
            self.process.wait(60)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()


@pytest.fixture
def session(tmp_path):
    s = Session(tmp_path)
    yield s
    s.close()


def test_a_service_and_what_it_survives(session, gw, tmp_path, make_upstream):
    me = binary()
    up = make_upstream()
    state = tmp_path / ".mswarm/self-hosted-node"
    state.mkdir(parents=True)
    (state / "config.json").write_text(json.dumps({"upstreams": [up.entry(share=True)]}))
    # A checkout's program is started by its wrapper from anywhere.
    text = session.must(f"{me} node install --api-key-stdin --gateway {gw.url} --listen-port 0 --enable-generic-jobs "
                        "--no-mcoda --no-ollama --no-discovery --server-name box < <(printf %s " + KEY + ")")
    assert "Node daemon is running in the background." in text, text
    assert "loginctl enable-linger" in text, "there is no logind here: said loudly"
    assert session.must(f"systemctl --user is-active {UNIT}").strip() == "active"
    assert session.must(f"systemctl --user show -p Type --value {UNIT}").strip() == "notify"
    n = len(gw.beats)
    gw.wait_beat(after=n, limit=slow(40))
    status = json.loads(session.must(f"{me} node status"))
    assert status["service"]["ok"] is True and status["running"]["gateway"]["state"] == "online"

    # a relayed job; then one whose node is killed while its result is on its way
    gw.wait_beat(lambda b: b["local_agent_catalog"]["exposed_model_count"] == 1, slow(40))
    gw.offer(gateway_job("relayed", stream=True))
    assert gw.wait_result("relayed", slow(20))["status"] == "success" and gw.text_of("relayed") == "Hello"
    arrived = threading.Event()

    async def holds(x):
        arrived.set()
        await x.closed()
    gw.script("result", holds)
    gw.offer(gateway_job("killed", stream=True))
    assert arrived.wait(slow(20))
    killed = session.pid()
    os.kill(killed, signal.SIGKILL)
    assert gw.wait_result("killed", slow(40))["status"] == "success", "the manager starts it again after five seconds, and nothing is lost"
    wait_until(lambda: session.pid() not in (0, killed), slow(20))
    assert len(up.chats) == 2

    # a job that runs on across a restart of the service
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"job_type": "tenant.test-echo", "args": {"message": "on and on", "repeat": 8, "delay_ms": 500}, "policy": {"trust_mode": "owner-local"}}))
    job_id = json.loads(session.must(f"{me} job run --job-file {job} --json"))["job"]["job_id"]
    wait_until(lambda: session.sh(f"{me} job logs {job_id}")[1].count("on and on") >= 2, slow(15), "two lines")
    before, old_shims = session.pid(), shims()
    assert old_shims
    session.must(f"{me} node restart")
    after = session.pid()
    assert after != before and old_shims & shims(), "the job's supervisor lives through the restart of the service"
    follow = session.must(f"{me} job logs {job_id} --follow")
    assert follow.count("on and on") == 8, follow
    told = json.loads(session.must(f"{me} job status {job_id} --json"))
    assert told["job"]["state"] == "succeeded" and told["job"].get("attempt", 1) == 1

    # a node that hangs is noticed and started again; so is one that dies
    folder = tmp_path / ".config/systemd/user" / f"{UNIT}.d"
    folder.mkdir()
    (folder / "quick.conf").write_text("[Service]\nWatchdogSec=2\nRestartSec=1\nTimeoutAbortSec=1\n")
    session.must("systemctl --user daemon-reload")
    session.must(f"{me} node restart")
    hung = session.pid()
    os.kill(hung, signal.SIGSTOP)
    wait_until(lambda: session.pid() not in (0, hung), slow(30), "a new process for the one that hung")
    wait_until(lambda: session.sh(f"systemctl --user is-active {UNIT}")[1].strip() == "active", slow(20))
    dead = session.pid()
    os.kill(dead, signal.SIGKILL)
    wait_until(lambda: session.pid() not in (0, dead), slow(30), "a new process for the one that died")
    wait_until(lambda: session.sh(f"systemctl --user is-active {UNIT}")[1].strip() == "active", slow(20))

    # an outage of the gateway is no reason to be restarted
    steady = session.pid()
    gw.vanish()
    wait_until(lambda: json.loads(session.must(f"{me} node status"))["running"]["gateway"]["state"] == "degraded", slow(60), "the link to be degraded")
    assert session.pid() == steady
    gw.listen()

    text = session.must(f"{me} node uninstall --purge")
    assert json.loads(text)["gateway_notification"]["notified"] is True
    assert session.sh(f"systemctl --user is-active {UNIT}")[0] != 0
    assert not (tmp_path / ".mswarm/self-hosted-node").exists() and not (tmp_path / ".config/systemd/user" / UNIT).exists()
    assert gw.uninstalls
