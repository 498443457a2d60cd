"""Registering a machine: keys, options, files, output; the service by a stub manager; taking it all away again."""
import json
import os
import re
import stat
import subprocess

import pytest

from conftest import slow
from gateway import Gateway, says
from node import Node, binary, clean_env, wait_until

KEY = "msw_owner_key_0001"
UNIT = ".config/systemd/user/mswarm-self-hosted-node.service"
STATE = ".mswarm/self-hosted-node"


class Home:
    """A clean home folder with a stub service manager in front of the system's."""

    def __init__(self, folder, gw, manager="stub"):
        self.folder, self.gw = folder, gw
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.log = folder / "calls"
        self.log.write_text("")
        if manager == "stub":
            self.write("systemctl", 'echo "systemctl $*" >> "$HOME/calls"\n'
                       'case "$*" in *status*) echo "Active: inactive (dead)"; echo "API_KEY=hidden1"; exit 3;; *) if [ -f "$HOME/fail-$2" ]; then echo "SECRET: abc" >&2; exit 5; fi;; esac')
            self.write("loginctl", 'echo "loginctl $*" >> "$HOME/calls"\ncase "$1" in show-user) cat "$HOME/linger" 2>/dev/null;; esac')
        self.path = f"{self.bin}:{os.environ['PATH']}" if manager == "stub" else str(self.bin)

    def write(self, name, text):
        (self.bin / name).write_text("#!/bin/sh\n" + text + "\n")
        (self.bin / name).chmod(0o755)

    def run(self, *words, stdin="", env=None, limit=30):
        extra = {"PATH": self.path, "MSWARM_API_KEY": None, "USER": "tester", **(env or {})}
        return subprocess.run([binary(), *words], env=clean_env(self.folder, extra), input=stdin, capture_output=True, text=True, timeout=slow(limit), cwd=self.folder)

    def install(self, *words, stdin=KEY + "\n", **kw):
        return self.run("node", "install", "--api-key-stdin", "--gateway", self.gw.url, "--no-mcoda", "--no-ollama", "--no-discovery", *words, stdin=stdin, **kw)

    @property
    def state(self):
        return self.folder / STATE

    def config(self):
        return json.loads((self.state / "config.json").read_text())

    def calls(self):
        return self.log.read_text().splitlines()

    def files(self):
        return {str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file() and self.bin not in p.parents} - {"calls"}

    def check_no_secret(self, *secrets):
        for p in self.folder.rglob("*"):
            if p.is_file():
                data = p.read_bytes()
                for s in secrets:
                    assert s.encode() not in data, f"{s} in {p}"


@pytest.fixture
def home(tmp_path, gw):
    return Home(tmp_path, gw)


# ---- install ----

def test_install_on_a_clean_home(home, gw):
    done = home.install("--server-name", "My Box #1")
    assert done.returncode == 0, done.stderr
    unit, log = home.folder / UNIT, home.state / "daemon.log"
    assert done.stdout.splitlines()[:5] == ["Registered my-box-1 as shn_1", "Discovered 0 local mcoda agents.",
                                            "Installed systemd service mswarm-self-hosted-node.service", f"Service file: {unit}", f"Logs: {log}"]
    assert home.calls()[:3] == ["systemctl --user daemon-reload", "systemctl --user enable mswarm-self-hosted-node.service", "loginctl enable-linger root"] or \
        home.calls()[2].startswith("loginctl enable-linger ")
    assert home.calls()[-1] == "systemctl --user restart mswarm-self-hosted-node.service"
    assert "loginctl enable-linger" in done.stderr, "linger could not be checked: said loudly"
    b = gw.bootstraps[0]
    assert b["server_name"] == b["label"] == "my-box-1" and b["relay_mode"] == "outbound" and b["node_version"] == "0.1.81"
    assert len(gw.beats) == 1 and gw.beats[0]["node_id"] == "shn_1" and gw.beats[0]["config_version"] == 3
    c = home.config()
    assert list(c)[:6] == ["node_id", "server_name", "relay_mode", "machine_fingerprint", "direct_base_url", "artifact_store_path"] or c["node_id"] == "shn_1"
    assert c["lifecycle_health_status"] == "healthy" and c["gateway_base_url"] == gw.url and c["machine_fingerprint"] == b["machine_fingerprint"]
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in home.state.iterdir()}
    assert modes["config.json"] == modes["node.key"] == modes["machine.id"] == 0o600 and modes["mswarm-node"] == 0o755
    assert stat.S_IMODE(home.state.stat().st_mode) == 0o700
    assert (home.state / "node.key").read_text() == "msn_tok\n"
    home.check_no_secret(KEY)


def test_the_unit_and_its_wrapper(home):
    assert home.install().returncode == 0
    unit = (home.folder / UNIT).read_text()
    for line in ["Description=mswarm self-hosted node", "Type=notify", "Restart=always", "RestartSec=5", "WatchdogSec=60", "KillMode=process", "Delegate=yes",
                 "OOMPolicy=continue", "WantedBy=default.target", f"StandardOutput=append:{home.state}/daemon.log", f"StandardError=append:{home.state}/daemon.err.log"]:
        assert line in unit.splitlines(), line
    assert not re.search(r"Private|Protect|NoNewPrivileges|SystemCall|Environment", unit)
    wrapper = (home.state / "mswarm-node").read_text()
    assert wrapper.startswith("#!/bin/sh\n") and wrapper.rstrip().endswith("'start'") and "/usr/bin/env -i" in wrapper
    assert "'GLIBC_TUNABLES=glibc.malloc.tcache_count=0'" in wrapper, "as deploy/quickstart: memory comes back after a load"
    assert "msn_tok" not in wrapper and "MAX_CONCURRENT" not in wrapper and "GATEWAY_BASE_URL" not in wrapper, "settings stand in config.json"
    if os.path.exists("/usr/bin/systemd-analyze"):
        done = subprocess.run(["systemd-analyze", "verify", "--user", str(home.folder / UNIT)], capture_output=True, text=True,
                              env={**os.environ, "XDG_RUNTIME_DIR": str(home.folder)})
        assert "mswarm-self-hosted-node" not in done.stderr, done.stderr


def test_the_service_starts_from_its_wrapper(home, gw):
    """What the manager would run: the node comes up, tells the manager, and its link is up."""
    assert home.install("--listen-port", "0", "--server-name", "box").returncode == 0
    n = len(gw.beats)
    process = subprocess.Popen([str(home.state / "mswarm-node")], env={"PATH": os.environ["PATH"], "UNWANTED": "1", "MSWARM_API_KEY": KEY}, cwd="/",
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        gw.wait_beat(after=n, limit=slow(10))
        env = open(f"/proc/{process.pid}/environ", "rb").read()
        assert b"UNWANTED" not in env and b"MSWARM_API_KEY" not in env
        status = wait_until(lambda: [v for v in [json.loads(home.run("node", "status").stdout)] if v["running"]["gateway"]["state"] == "online"],
                            slow(10), "its link")[0]
        assert status["node"]["configured"] is True
        assert list(status["service"])[:6] == ["manager", "serviceName", "servicePath", "logPath", "errorLogPath", "action"]
        assert status["service"]["ok"] is False and "Active: inactive" in status["service"]["stdout"] and "API_KEY=[redacted]" in status["service"]["stdout"]
        assert status["service"]["message"].startswith("command failed (3): systemctl --user status --no-pager")
    finally:
        process.terminate()
        assert process.wait(slow(20)) == 0


def test_odd_paths(tmp_path, gw):
    folder = tmp_path / "o'dd \"100%\" $HOME <&> \\ name"
    folder.mkdir()
    home = Home(folder, gw)
    assert home.install("--listen-port", "0").returncode == 0
    unit = (folder / UNIT).read_text()
    quoted = str(folder).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    assert f'ExecStart="{quoted}/{STATE}/mswarm-node"' in unit
    assert f"StandardOutput=append:{str(folder).replace('%', '%%')}/{STATE}/daemon.log" in unit
    n = len(gw.beats)
    process = subprocess.Popen([str(home.state / "mswarm-node")], env={"PATH": os.environ["PATH"]}, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        gw.wait_beat(after=n, limit=slow(10))
    finally:
        process.terminate()
        assert process.wait(slow(20)) == 0
    for system in ("macos", "windows"):
        text = home.run("node", "install", "--print-service", system).stdout
        assert "o''dd" in text if system == "windows" else "o&apos;dd &quot;100%&quot; $HOME &lt;&amp;&gt;" in text


def test_a_machine_without_a_service_manager(tmp_path, gw):
    home = Home(tmp_path, gw, manager="none")
    done = home.install()
    assert done.returncode == 0, done.stderr
    assert "No service manager was found" in done.stdout and "node run" in done.stdout
    assert home.config()["node_id"] == "shn_1" and not (home.folder / UNIT).exists()


def test_a_service_that_cannot_be_installed_is_rolled_back(home, gw):
    (home.folder / "fail-enable").write_text("")
    before = home.files()
    done = home.install()
    assert done.returncode == 1 and "command failed (5): systemctl --user enable" in done.stderr
    assert "abc" not in done.stderr
    assert home.files() - before <= {f"{STATE}/machine.id", f"{STATE}/config.lock"}
    assert gw.uninstalls and gw.uninstalls[0]["node_id"] == "shn_1"


def test_a_heartbeat_that_fails_puts_the_files_back(home, gw):
    home.state.mkdir(parents=True)
    (home.state / "config.json").write_text('{"mine": 1}')
    (home.state / "node.key").write_text("old\n")
    gw.script("heartbeat", says(500, {"error": "no"}))
    done = home.install()
    assert done.returncode == 1 and done.stderr.strip().startswith("request_failed:500:")
    assert (home.state / "config.json").read_text() == '{"mine": 1}' and (home.state / "node.key").read_text() == "old\n"
    assert not home.calls()


def test_what_stood_in_config_json_stays(home, gw):
    home.state.mkdir(parents=True)
    (home.state / "config.json").write_text('{"mine": {"a": [1]}, "runtime_token": "old", "max_concurrent_jobs": 5}')
    (home.state / "config.json").chmod(0o644)
    assert home.install("--max-concurrent-llm-jobs", "3").returncode == 0
    c = home.config()
    assert c["mine"] == {"a": [1]} and "runtime_token" not in c and c["max_concurrent_jobs"] == 5 and c["max_concurrent_llm_jobs"] == 3
    assert stat.S_IMODE((home.state / "config.json").stat().st_mode) == 0o600
    assert gw.bootstraps[0]["max_concurrent_jobs"] == 5 and gw.bootstraps[0]["max_concurrent_llm_jobs"] == 3


def test_a_broken_config_json_is_named_and_left(home):
    home.state.mkdir(parents=True)
    (home.state / "config.json").write_text("{broken")
    done = home.install()
    assert done.returncode == 1 and "config.json" in done.stderr
    assert (home.state / "config.json").read_text() == "{broken"


# ---- the key ----

@pytest.mark.parametrize("words, stdin, env", [
    (["--api-key", KEY], "", {}), ([f"--api-key={KEY}"], "", {}), (["--api-key-stdin"], f"  {KEY}\n\n", {}), ([], "", {"MSWARM_API_KEY": KEY}),
    (["KEYFILE"], "", {}),
])
def test_forms_of_the_key(home, gw, words, stdin, env):
    if words == ["KEYFILE"]:
        (home.folder / "key").write_text(KEY + "\n")
        words = ["--api-key-file", "key"]
    done = home.run("node", "install", *words, "--gateway", gw.url, "--no-mcoda", stdin=stdin, env=env)
    assert done.returncode == 0, done.stderr
    assert gw.requests_of("bootstrap")[0].headers["x-api-key"] == KEY
    assert ("can be seen by every user" in done.stderr) == any(w.startswith("--api-key") and "stdin" not in w and "file" not in w for w in words)


def test_a_bare_positional_is_the_key(home, gw):
    for word in (KEY, "looks-like-a-handle"):
        gw.owner_key = word
        done = home.run("node", "install", word, "--gateway", gw.url, "--no-mcoda")
        assert done.returncode == 0, done.stderr
        assert gw.requests_of("bootstrap")[-1].headers["x-api-key"] == word


@pytest.mark.parametrize("words, stdin, text", [
    (["--api-key-stdin"], "  \n", "No API key received on stdin"),
    ([], "", "--api-key or MSWARM_API_KEY is required"),
    (["--api-key-stdin", "--api-key", KEY], KEY, "Use either --api-key, a positional API key, or --api-key-stdin; not more than one"),
    ([KEY, "--api-key-stdin"], KEY, "Use either --api-key, a positional API key, or --api-key-stdin; not more than one"),
    (["--api-key", KEY, "--mode", "direct"], "", "--direct-url is required when --mode direct is used"),
    (["--api-key", KEY, "--direct-url", "https://x"], "", "--direct-url can only be used with --mode direct"),
    (["--api-key", KEY, "--max-concurent-jobs", "2"], "", "Unknown option: --max-concurent-jobs. Did you mean --max-concurrent-jobs?"),
    (["--api-key", KEY, "--clients", "not a client"], "", "Invalid mswarm node client identifier: not a client"),
])
def test_refused_before_anything_is_sent(home, gw, words, stdin, text):
    done = home.run("node", "install", *words, "--gateway", gw.url, stdin=stdin)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == text
    assert not gw.requests and not (home.state / "config.json").exists()


def test_a_gateway_that_says_no(home, gw):
    done = home.install(stdin="msw_wrong_key\n")
    assert done.returncode == 1 and done.stderr.strip().startswith("request_failed:401:") and "msw_wrong" not in done.stderr
    gw.script("bootstrap", says(200, {"node": {}}))
    done = home.install()
    assert done.returncode == 1 and done.stderr.strip() == "Bootstrap response did not include node_id and runtime_token"
    assert not (home.state / "config.json").exists()


def test_plain_http_to_another_machine_is_refused(home):
    done = home.run("node", "install", "--api-key-stdin", "--gateway", "http://gateway.example", stdin=KEY)
    assert done.returncode == 1 and "https" in done.stderr


# ---- setup ----

def test_setup(home, gw):
    done = home.run("setup", "--api-key-stdin", "--gateway", gw.url, "--server-name", "box", "--no-mcoda", "--no-ollama", "--no-discovery", stdin=KEY)
    assert done.stdout.splitlines() == ["Registered box as shn_1", "Discovered 0 local mcoda agents.", "Node is online. Keep it running with: mswarm node run"]
    assert not home.calls()
    done = home.run("setup", "--api-key-stdin", "--gateway", gw.url, stdin=KEY, env={"MSWARM_MCODA_SOURCE": "1", "MSWARM_SELF_HOSTED_MCODA_BIN": "/nonexistent/mcoda"})
    assert done.stdout.splitlines()[-1] == "Node registered, but local discovery is degraded. Run: mswarm node doctor"


def test_setup_that_goes_on_as_a_node(home, gw):
    env = clean_env(home.folder, {"PATH": home.path, "MSWARM_API_KEY": KEY})
    with open(home.folder / "out", "w+") as out:
        process = subprocess.Popen([binary(), "setup", "--start", "--gateway", gw.url, "--server-name", "box", "--listen-port", "0"], env=env, stdout=out, stderr=subprocess.DEVNULL,
                                   stdin=subprocess.DEVNULL, cwd=home.folder)
        try:
            gw.wait(lambda: len(gw.beats) >= 3, slow(15))
        finally:
            process.terminate()
            assert process.wait(slow(20)) == 0
        out.seek(0)
        assert out.read().splitlines() == ["Registered box as shn_1", "Discovered 0 local mcoda agents.", "mswarm self-hosted node foreground run active for shn_1"]
    home.check_no_secret(KEY)


def test_direct_mode_as_a_service(home, gw):
    done = home.run("node", "install", "--api-key", KEY, "--signing-secret-stdin", "--gateway", gw.url, "--mode", "direct", "--direct-url", "https://node.example",
                    "--listen-port", "0", "--no-mcoda", "--no-ollama", "--no-discovery", stdin="shared-secret-123\n")
    assert done.returncode == 0, done.stderr
    n = len(gw.beats)
    with open(home.folder / "out", "w+") as out:
        process = subprocess.Popen([str(home.state / "mswarm-node")], env={"PATH": os.environ["PATH"]}, cwd="/", stdout=out, stderr=subprocess.DEVNULL)
        try:
            assert gw.wait_beat(after=n, limit=slow(10))["runtime"]["relay_mode"] == "direct"
            assert json.loads(home.run("node", "status").stdout)["running"]["is_secret_shared"] is True
        finally:
            process.terminate()
            assert process.wait(slow(20)) == 0
        out.seek(0)
        assert out.read().startswith("mswarm self-hosted node serving direct jobs for shn_1 on 127.0.0.1:")


def test_the_gateways_words_win(home, gw):
    with Gateway() as other:
        gw.relay = {"gateway_base_url": other.url + "//", "jobs_poll_path": "/v9/poll"}
        gw.interval_s = -5
        assert home.install("--server-name", "box").returncode == 0
        c = home.config()
        assert c["gateway_base_url"] == other.url and c["jobs_poll_path"] == "/v9/poll" and c["heartbeat_interval_seconds"] == 30
        assert len(other.beats) == 1 and not gw.beats


def test_direct_mode_stores_the_shared_secret(home, gw):
    done = home.run("node", "install", "--api-key", KEY, "--signing-secret-stdin", "--gateway", gw.url, "--mode", "direct", "--direct-url", "http://node.example", "--no-mcoda",
                    stdin="shared-secret-123\n")
    assert done.returncode == 0, done.stderr
    assert "neither https nor on this machine" in done.stderr and "no shared signing secret" not in done.stderr
    key = home.state / "signing.shared.key"
    assert key.read_text() == "shared-secret-123\n" and stat.S_IMODE(key.stat().st_mode) == 0o600
    assert gw.bootstraps[0]["relay_mode"] == "direct" and gw.bootstraps[0]["direct_base_url"] == "http://node.example"
    assert home.config()["relay_mode"] == "direct"


def test_by_handle(home, gw):
    async def register(x):
        await x.reply({"node_id": "shn_1", "approval_code": "ABCD-1234", "status": "pending"})

    async def approved(x):
        _, body = gw._joined({"node_id": "shn_1", "server_name": "box", "relay_mode": "outbound"})
        await x.reply({"status": "approved", **body})
    gw.script("register", register)
    gw.script("claim", approved)
    done = home.run("node", "install", "--handle", "ada", "--clients", "Example.ORG,10.0.0.1", "--gateway", gw.url, "--no-mcoda", "--server-name", "box")
    assert done.returncode == 0, done.stderr
    assert "  Approval code:  ABCD-1234" in done.stdout and "Waiting for ada to approve this machine..." in done.stdout
    sent = gw.requests_of("register")[0].json
    assert sent["handle"] == "ada" and re.match(r"^[0-9a-f]{64}$", sent["registration_secret"])
    assert [(c["kind"], c["value"]) for c in sent["client_allowlist"]] == [("domain", "example.org"), ("ip", "10.0.0.1")]
    home.check_no_secret(sent["registration_secret"])

    async def rejected(x):
        await x.reply({"status": "rejected"})
    gw.script("register", register)
    gw.script("claim", rejected)
    done = home.run("node", "install", "--gateway", gw.url, env={"MSWARM_HANDLE": "ada"})
    assert done.returncode == 1 and done.stderr.strip() == "ada rejected this machine."


# ---- afterwards ----

def test_control_commands(home, gw):
    home.install()
    for op in ("start", "stop", "restart"):
        done = home.run("node", op)
        told = json.loads(done.stdout)
        assert done.returncode == 0 and told["action"] == op and told["ok"] is True and told["manager"] == "systemd"
        assert home.calls()[-1] == f"systemctl --user {op} mswarm-self-hosted-node.service"
    (home.folder / "fail-start").write_text("")
    done = home.run("node", "start")
    assert done.returncode == 1 and done.stdout == "" and done.stderr.startswith("command failed (5): systemctl --user start mswarm-self-hosted-node.service")
    assert "abc" not in done.stderr


def test_logs(home):
    home.state.mkdir(parents=True)
    done = home.run("node", "logs")
    assert done.returncode == 1 and done.stderr.strip() == f"ENOENT: no such file or directory, open '{home.state}/daemon.log'"
    (home.state / "daemon.log").write_text("l1\nl2\nl3\nl4\n")
    (home.state / "daemon.err.log").write_text("".join(f"e{i}\n" for i in range(100000)))
    assert home.run("node", "logs", "--lines", "2").stdout == "l3\nl4\n"
    assert home.run("node", "logs", "--lines=1").stdout == "l4\n"
    assert home.run("node", "logs").stdout == "l1\nl2\nl3\nl4\n"
    assert home.run("node", "logs", "--error", "--lines", "3").stdout == "e99997\ne99998\ne99999\n"
    process = subprocess.Popen([binary(), "node", "logs", "-f", "--lines", "1"], env=clean_env(home.folder), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "l4\n"
        (home.state / "daemon.log").rename(home.state / "daemon.log.1")
        (home.state / "daemon.log").write_text("new\n")
        assert process.stdout.readline() == "new\n"
    finally:
        process.kill()
        process.wait()


def test_log_files_are_turned_over(gw, tmp_path):
    node = Node(env={**gw.env(), "MSWARM_LOG_MAX_MB": "1", "MSWARM_LOG_LEVEL": "debug"}, home=tmp_path)
    node.state_dir.mkdir(parents=True)
    log = node.state_dir / "daemon.err.log"
    log.write_text("x" * (2 << 20))
    with open(log, "ab") as err, open(node.state_dir / "daemon.log", "ab") as out:
        env = clean_env(tmp_path, {"MSWARM_SELF_HOSTED_LISTEN_PORT": "0", "MSWARM_LOG_MAX_MB": "1", **gw.env()})
        process = subprocess.Popen([binary(), "node", "run"], env=env, stdout=out, stderr=err)
    try:
        wait_until(lambda: (node.state_dir / "daemon.err.log.1").exists(), slow(15), "a turned log")
        wait_until(lambda: gw.beats, slow(10))
        assert log.stat().st_size < 1 << 20 and (node.state_dir / "daemon.err.log.1").stat().st_size >= 2 << 20
    finally:
        process.terminate()
        assert process.wait(slow(20)) == 0
    assert "node.stopped" in log.read_text()


def test_uninstall(home, gw):
    home.install()
    done = home.run("node", "uninstall")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["action"] == "uninstall" and told["ok"] is True
    assert told["gateway_notification"]["notified"] is True and told["gateway_notification"]["response"]["accepted"] is True
    assert gw.uninstalls[0] == {"node_id": "shn_1", "reason": "node_uninstall", "source": "mswarm_node_uninstall", "node_version": "0.1.81", "service_manager": "systemd"}
    assert "systemctl --user disable --now mswarm-self-hosted-node.service" in home.calls()
    assert not (home.folder / UNIT).exists() and (home.state / "node.key").exists()
    gw.script("uninstall", says(500))
    done = home.run("node", "uninstall", "--purge")
    assert done.returncode == 0 and json.loads(done.stdout)["gateway_notification"]["notified"] is False
    assert home.files() == set() and not home.state.exists()


def test_uninstall_of_what_never_was(home):
    done = home.run("node", "uninstall")
    assert done.returncode == 0 and json.loads(done.stdout)["gateway_notification"] == {"notified": False, "error": "MSWARM_SELF_HOSTED_NODE_ID is required"}


def test_purge_waits_for_a_node_that_runs(home, gw):
    home.install("--listen-port", "0")
    process = subprocess.Popen([str(home.state / "mswarm-node")], env={"PATH": os.environ["PATH"]}, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: (home.state / "control.sock").exists(), slow(10))
        done = home.run("node", "uninstall", "--purge")
        assert done.returncode == 1 and "a node still runs" in done.stderr and (home.state / "node.key").exists()
    finally:
        process.terminate()
        assert process.wait(slow(20)) == 0
    assert home.run("node", "uninstall", "--purge").returncode == 0 and not home.state.exists()


# ---- single exchanges ----

def test_once_enroll_models_of_a_node_that_does_not_run(home, gw):
    for command in ("once", "enroll", "models", "status"):
        done = home.run(command)
        assert done.returncode == 1 and done.stderr.strip() == "MSWARM_SELF_HOSTED_NODE_ID is required", command
    assert home.run().stderr.strip() == "MSWARM_SELF_HOSTED_NODE_ID is required", "no command is once"
    env = {"MSWARM_GATEWAY_BASE_URL": gw.url, "MSWARM_SELF_HOSTED_NODE_ID": "shn_1"}
    done = home.run("once", env=env)
    assert done.stderr.strip() == "No runtime token is stored and MSWARM_SELF_HOSTED_ENROLLMENT_TOKEN is missing"
    env["MSWARM_SELF_HOSTED_ENROLLMENT_TOKEN"] = "mse_t"
    done = home.run("once", env=env)
    assert done.returncode == 0 and json.loads(done.stdout)["enrolled"] is True and len(gw.beats) == 1
    done = home.run("enroll", env=env)
    assert json.loads(done.stdout) == {"enrolled": False, "state_path": str(home.state / "config.json")}
    assert json.loads(home.run("models").stdout) == {"count": 0, "response": {"accepted": True}}
    assert json.loads(home.run("node", "agents").stdout) == {"pushed": 0, "response": {"accepted": True}}
    assert gw.inventories[0] == {"node_id": "shn_1", "models": []}


@pytest.mark.parametrize("system, words", [
    ("linux", ["[Service]", "Type=notify", "exec /usr/bin/env -i"]),
    ("macos", ["<key>Label</key>", "<string>com.mcoda.mswarm.self-hosted-node</string>", "<key>KeepAlive</key>", "<key>RunAtLoad</key>", "StandardOutPath"]),
    ("windows", ["Register-ScheduledTask -TaskName 'MswarmSelfHostedNode'", "$ErrorActionPreference = 'Continue'", "restarting in 5 seconds",
                 "-RestartCount 999", "-MultipleInstances IgnoreNew", "-ExecutionPolicy Bypass -File"]),
])
def test_definitions_on_paper(home, gw, system, words):
    done = home.run("node", "install", "--print-service", system)
    assert done.returncode == 0, done.stderr
    for w in words:
        assert w in done.stdout, w
    assert ("GLIBC_TUNABLES" in done.stdout) == (system == "linux")
    assert not gw.requests and not home.calls()


def test_the_machines_own_service_on_paper(home):
    text = home.run("node", "install", "--print-service", "linux", "--system").stdout
    for w in ("# /etc/systemd/system/mswarm-self-hosted-node.service", "User=mswarm", "WantedBy=multi-user.target", "'HOME=/var/lib/mswarm'", "Type=notify", "KillMode=process",
              "# systemctl daemon-reload && systemctl enable --now mswarm-self-hosted-node.service"):
        assert w in text, w
    assert "launchctl bootstrap gui/$(id -u)" in home.run("node", "install", "--print-service", "macos").stdout
