"""The command line and the life of a node, with the real program: start, refuse, drain, keys, tokens, stop, kill."""
import base64
import concurrent.futures
import hashlib
import hmac
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import pytest

SUPPORT = pathlib.Path(__file__).resolve().parents[1] / "support"
sys.path.insert(0, str(SUPPORT))
from node import Node, binary, clean_env, is_sanitized, wait_until  # noqa: E402

VECTORS = pathlib.Path(__file__).resolve().parents[1] / "data" / "tokens.json"
CHAT = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def node():
    with Node() as n:
        yield n


@pytest.fixture
def idle():
    """A home without a running node."""
    n = Node()
    yield n
    n.close()


def models_status(node, key=None):
    return node.request("GET", "/v1/models", headers={"authorization": f"Bearer {key}"} if key else None)[0]


# -- start --

def test_serve_ready_line_is_exact(node):
    assert node.out().splitlines() == [f"mswarm self-hosted node serving direct jobs for {node.node_id} on 127.0.0.1:{node.port}"]
    assert re.fullmatch(r"local-[0-9a-f]{12}", node.node_id)
    machine = (node.state_dir / "machine.id").read_text().strip()
    assert node.node_id == "local-" + hashlib.sha256(machine.encode()).hexdigest()[:12]
    status, _, body = node.request("GET", "/healthz")
    assert (status, json.loads(body)) == (200, {"service": "mswarm-self-hosted-node", "status": "ok", "node_id": node.node_id})


def test_state_folder_is_private(node):
    modes = {p.name: p.stat().st_mode & 0o777 for p in node.state_dir.iterdir()}
    assert node.state_dir.stat().st_mode & 0o777 == 0o700
    assert modes["signing.key"] == modes["node.db"] == modes["machine.id"] == modes["control.sock"] == modes["lock"] == 0o600
    assert len((node.state_dir / "signing.key").read_text()) == 44


@pytest.mark.parametrize("command, words", [(["node", "run"], "foreground run"), (["start"], "foreground run"),
                                             (["daemon"], "daemon"), (["node", "daemon"], "daemon")])
def test_run_says_that_no_gateway_is_there_yet(command, words):
    with Node(command=command, env={"MSWARM_SELF_HOSTED_RELAY_MODE": "outbound", "MSWARM_SELF_HOSTED_NODE_ID": "shn_1"}) as n:
        assert n.out().splitlines() == [f"mswarm self-hosted node {words} active for shn_1"]
        assert n.request("GET", "/healthz")[0] == 200


def test_run_direct_has_the_line_of_serve():
    with Node(command=["node", "run"], args=["--mode", "direct", "--node-id", "shn_2"]) as n:
        assert n.out().splitlines()[0] == f"mswarm self-hosted node serving direct jobs for shn_2 on 127.0.0.1:{n.port}"


def test_outbound_without_node_id_is_refused(idle):
    done = idle.cli("node", "run", env={"MSWARM_SELF_HOSTED_RELAY_MODE": "outbound", "MSWARM_SELF_HOSTED_LISTEN_PORT": "0"})
    assert (done.returncode, done.stdout, done.stderr.splitlines()[-1]) == (1, "", "MSWARM_SELF_HOSTED_NODE_ID is required")


def test_verbose_prints_the_banner():
    with Node(args=["--verbose"]) as n:
        wait_until(lambda: "gpu ops" in n.out(), why="banner")
        assert f"{n.url}/v1" in n.out() and str(n.state_dir) in n.out() and "curl -N" in n.out() and "demo" in n.out()


def test_second_node_on_a_state_folder_names_the_first(node):
    done = node.cli("serve", "--listen-port", "0")
    assert done.returncode == 1 and str(node.pid) in done.stderr and "another node" in done.stderr
    assert node.request("GET", "/healthz")[0] == 200


def test_port_in_use_is_named(node, idle):
    done = idle.cli("serve", "--listen-port", str(node.port))
    assert done.returncode == 1 and f"127.0.0.1:{node.port}" in done.stderr


def test_process_title(node):
    assert pathlib.Path(f"/proc/{node.pid}/cmdline").read_bytes().rstrip(b"\0") == b"mswarm-node"
    assert pathlib.Path(f"/proc/{node.pid}/comm").read_text().strip() == "mswarm-node"


def test_shared_folder_is_not_taken_over(idle):
    shared = idle.home / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    done = idle.cli("serve", "--listen-port", "0", "--state-path", str(shared / "config.json"))
    assert done.returncode == 1 and "others may write" in done.stderr
    assert shared.stat().st_mode & 0o7777 == 0o1777


def test_sd_notify(idle):
    path = idle.home / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(path))
        s.settimeout(20)
        idle.start(env={"NOTIFY_SOCKET": str(path)})
        assert "READY=1" in s.recv(4096).decode()
        idle.stop()
        assert "STOPPING=1" in s.recv(4096).decode()


# -- stop --

def test_sigterm_ends_with_0_and_closes_the_port(node):
    node.stop()
    with pytest.raises(ConnectionRefusedError):
        node.request("GET", "/healthz")
    assert not (node.state_dir / "control.sock").exists()


def slow_runner(listener):
    """A runner that answers probes but never a chat; the connection with the chat, which the caller keeps open."""
    listener.settimeout(20)
    while True:
        connection, _ = listener.accept()
        connection.settimeout(20)
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        if head.startswith(b"POST"):
            return connection
        models = b'{"object":"list","data":[{"id":"m"}]}'
        connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(models), models))
        connection.close()


@pytest.fixture
def stuck():
    """A node with one chat that its runner does not answer: (node, future of the client's outcome)."""
    with socket.create_server(("127.0.0.1", 0)) as listener, concurrent.futures.ThreadPoolExecutor(1) as pool:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        config = {"upstreams": [{"name": "slow", "base_url": url, "models": ["m"]}]}
        n = Node(config=config, env={"MSWARM_STOP_GRACE_MS": "60000"})
        connection = None
        try:
            n.start()

            def chat():
                try:
                    return n.request("POST", "/v1/chat/completions", body={**CHAT, "model": "m"}, limit=60)
                except OSError as error:
                    return error
            client = pool.submit(chat)
            connection = slow_runner(listener)
            yield n, client
        finally:
            n.close()
            if connection:
                connection.close()


def test_first_sigterm_waits_second_is_at_once(stuck):
    n, client = stuck
    n.signal(signal.SIGTERM)
    wait_until(lambda: "node.stopping" in n.log(), why="stop")
    assert not client.done() and n.process.poll() is None
    n.signal(signal.SIGTERM)
    assert n.wait(limit=6) == 0
    client.result(10)
    n.check_log()


def test_grace_ends_what_runs():
    with socket.create_server(("127.0.0.1", 0)) as listener, concurrent.futures.ThreadPoolExecutor(1) as pool:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        with Node(config={"upstreams": [{"name": "slow", "base_url": url, "models": ["m"]}]}, args=["--stop-grace-ms", "200"]) as n:
            client = pool.submit(n.request, "POST", "/v1/chat/completions", {**CHAT, "model": "m"})
            with slow_runner(listener):
                n.stop(limit=6)
            status, _, body = client.result(10)
            assert status == 503 and json.loads(body)["error"]["message"]


def test_broken_store_ends_with_1_and_acknowledged_keys_are_there(idle, preload):
    trigger = idle.home / "fail"
    env = {"LD_PRELOAD": preload("fail_sync"), "FAIL_SYNC_WHEN": str(trigger)}
    idle.start(env=env)
    key = json.loads(idle.cli("keys", "add", "before").stdout)["key"]
    trigger.touch()
    done = idle.cli("keys", "add", "lost")
    assert done.returncode == 1 and "msk_" not in done.stdout
    assert idle.wait(limit=30) == 1
    assert "store.broken" in idle.log()
    trigger.unlink()
    idle.start()
    assert models_status(idle, key) == 200
    idle.stop()


def test_broken_store_lets_a_running_chat_finish(preload):
    with socket.create_server(("127.0.0.1", 0)) as listener, concurrent.futures.ThreadPoolExecutor(1) as pool:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        n = Node(config={"upstreams": [{"name": "slow", "base_url": url, "models": ["m"]}]})
        trigger = n.home / "fail"
        try:
            n.start(env={"LD_PRELOAD": preload("fail_sync"), "FAIL_SYNC_WHEN": str(trigger)})
            client = pool.submit(n.request, "POST", "/v1/chat/completions", {**CHAT, "model": "m"}, None, 60)
            with slow_runner(listener) as connection:
                trigger.touch()
                assert n.cli("keys", "add", "lost").returncode == 1
                wait_until(lambda: "store.broken" in n.log(), why="drain")
                assert n.request("POST", "/v1/chat/completions", body=CHAT)[0] == 503, "new work is refused"
                answer = json.dumps({"object": "chat.completion", "choices": [
                    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "done"}}]}).encode()
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                                   % (len(answer), answer))
                status, _, body = client.result(10)
                assert status == 200 and json.loads(body)["choices"][0]["message"]["content"] == "done"
            assert n.wait(limit=10) == 1
        finally:
            n.close()


# -- kill --

def test_sigkill_and_restart_keep_keys_and_ids():
    with Node() as n:
        key = json.loads(n.cli("keys", "add", "laptop").stdout)["key"]
        node_id, secret = n.node_id, (n.state_dir / "signing.key").read_text()
        n.kill()
        n.start()
        assert n.node_id == node_id and (n.state_dir / "signing.key").read_text() == secret
        assert models_status(n) == 401 and models_status(n, key) == 200


# -- keys --

def test_keys_live(node):
    assert models_status(node) == 200
    made = json.loads(node.cli("keys", "add", "laptop", "--models", "demo,other", "--rpm", "1000", "--concurrent", "2").stdout)
    assert re.fullmatch(r"msk_[A-Za-z0-9]{40}", made["key"]) and made["models"] == ["demo", "other"]
    assert models_status(node) == 401 and models_status(node, made["key"]) == 200
    listed = node.cli("keys", "list").stdout
    assert made["key"] not in listed
    row = json.loads(listed)["keys"][0]
    assert (row["id"], row["name"], row["hint"], row["revoked_at"]) == (made["id"], "laptop", made["key"][-4:], None)
    assert (row["requests_per_minute"], row["max_concurrent"]) == (1000, 2)
    assert node.cli("keys", "add", "laptop").returncode == 1
    assert node.cli("keys", "revoke", "laptop").returncode == 0
    assert models_status(node, made["key"]) == 401
    assert models_status(node) == 401, "keyed for good"
    assert json.loads(node.cli("access", "status").stdout) == {"is_keyed": True}
    assert node.cli("access", "open").returncode == 0
    assert models_status(node) == 200
    assert made["key"] not in node.whole_log()


def test_revocation_is_in_force_on_every_loop_when_the_command_returns():
    with Node(args=["--loops", "4"]) as n:
        key = json.loads(n.cli("keys", "add", "a").stdout)["key"]
        assert {models_status(n, key) for _ in range(20)} == {200}
        assert n.cli("keys", "revoke", "a").returncode == 0
        assert {models_status(n, key) for _ in range(20)} == {401}


def test_keys_without_a_node(idle):
    key = json.loads(idle.cli("keys", "add", "desk").stdout)["key"]
    assert idle.cli("keys", "add", "desk").returncode == 1
    assert [k["name"] for k in json.loads(idle.cli("keys", "list").stdout)["keys"]] == ["desk"]
    idle.start()
    assert models_status(idle) == 401 and models_status(idle, key) == 200
    idle.stop()
    assert idle.cli("keys", "revoke", "desk").returncode == 0
    assert idle.cli("keys", "revoke", "desk").returncode == 1
    idle.start()
    assert models_status(idle, key) == 401
    idle.stop()


@pytest.mark.parametrize("words, text", [
    (["keys", "add"], "usage"), (["keys", "add", "a", "b"], "Unexpected argument: b"), (["keys", "add", "a", "--rpm", "x"], "--rpm"),
    (["keys", "add", "a", "--modles", "x"], "Did you mean --models?"), (["keys", "revoke"], "usage"), (["keys", "add", " a"], "name"),
])
def test_keys_mistakes(idle, words, text):
    done = idle.cli(*words)
    assert done.returncode == 1 and text in done.stderr and done.stdout == ""


# -- memory --

def resident_kb(node):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{node.pid}/status").read_text())[1])


def test_memory_of_a_burst_is_given_back(node):
    if is_sanitized():
        pytest.skip("a sanitizer keeps freed memory")
    before = resident_kb(node)
    clients = [socket.create_connection((node.host, node.port)) for _ in range(800)]
    for s in clients:
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    for s in clients:
        assert s.recv(4096).startswith(b"HTTP/1.1 200")
    high = resident_kb(node)
    for s in clients:
        s.close()
    assert high > before + 6000
    wait_until(lambda: resident_kb(node) < before + (high - before) / 3, limit=15, why="memory given back")


# -- drain, status --

def test_drain(node):
    assert json.loads(node.cli("node", "drain", "status").stdout) == {"drain": "off"}
    assert json.loads(node.cli("drain", "on").stdout) == {"drain": "on"}
    assert node.request("POST", "/v1/chat/completions", body=CHAT)[0] == 200, "local chats go on"
    assert json.loads(node.cli("drain", "all").stdout) == {"drain": "all"}
    assert node.request("POST", "/v1/chat/completions", body=CHAT)[0] == 503
    assert json.loads(node.cli("node", "drain", "off").stdout) == {"drain": "off"}
    assert node.request("POST", "/v1/chat/completions", body=CHAT)[0] == 200
    assert node.cli("drain", "sideways").returncode == 1


def test_drain_without_a_node(idle):
    done = idle.cli("drain", "on")
    assert done.returncode == 1 and "no node runs" in done.stderr


def test_status(idle):
    assert json.loads(idle.cli("node", "status").stdout)["running"] is None
    idle.start()
    shown = json.loads(idle.cli("node", "status").stdout)
    assert shown["running"]["pid"] == idle.pid and shown["running"]["url"] == idle.url
    assert shown["node"] == {"configured": False, "node_id": None, "server_name": None, "relay_mode": "local",
                             "gateway_base_url": "https://api.mswarm.org", "state_path": str(idle.state_dir / "config.json"),
                             "runtime_token_path": str(idle.state_dir / "node.key")}
    for loop in shown["running"]["loops"]:
        assert 0 <= loop["stall_max_us"] <= loop["longest_turn"]["us"] and loop["longest_turn"]["ended_at"].endswith("Z")
    idle.stop()
    idle.write_config("{")
    done = idle.cli("node", "status")
    assert done.returncode == 0 and json.loads(done.stdout)["node"]["configured"] is False


def test_control_socket_at_a_long_path(idle):
    folder = idle.home / ("x" * 120)
    idle.args = ["--state-path", str(folder / "config.json")]
    idle.start()
    assert (folder / "control.sock").is_socket()
    assert json.loads(idle.cli("drain", "status", "--state-path", str(folder / "config.json")).stdout) == {"drain": "off"}
    idle.stop()


def control(node, *lines, is_half_closed=False):
    """Raw lines to the control socket; one answer a line."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(node.state_dir / "control.sock"))
        s.settimeout(10)
        s.sendall(b"".join(line + b"\n" for line in lines))
        if is_half_closed:
            s.shutdown(socket.SHUT_WR)
        answers = s.makefile("rb")
        return [json.loads(answers.readline()) for _ in lines]


@pytest.mark.parametrize("line, code", [(b"{", "invalid_json"), (b"{}", "validation_failed"), (b'{"op":"nope"}', "validation_failed"),
                                        (b'{"op":"keys.add"}', "validation_failed"), (b'{"op":"keys.add","name":"a","x":1}', "validation_failed"),
                                        (b'{"op":"keys.revoke","key":"none"}', "not_found"), (b"[" * 100, "invalid_json")])
def test_control_refuses(node, line, code):
    answer, alive = control(node, line, b'{"op":"drain"}')
    assert answer["ok"] is False and answer["error"]["code"] == code
    assert alive == {"ok": True, "drain": "off"}


def test_control_answers_in_order_also_when_the_store_is_asked(node):
    lines = [b'{"op":"keys.add","name":"k%d"}' % i for i in range(5)] + [b'{"op":"keys.list"}', b'{"op":"access.open"}']
    answers = control(node, *lines, is_half_closed=True)
    assert [a["ok"] for a in answers] == [True] * 7
    assert [k["name"] for k in answers[5]["keys"]] == ["k0", "k1", "k2", "k3", "k4"]


def test_control_client_that_leaves_does_not_hurt(node):
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(node.state_dir / "control.sock"))
            s.sendall(b'{"op":"keys.list"}\n{"op":"access.open"}\n')
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(node.state_dir / "control.sock"))
        s.settimeout(10)
        try:
            s.sendall(b"x" * 200000)        # a line past its limit: closed
            assert s.recv(1) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert control(node, b'{"op":"refresh"}') == [{"ok": True}]


# -- tokens --

def unpack(part):
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


KINDS = {
    "invoke": (["--job", "j", "--request", "r", "--model", "m"], "self_hosted.invoke", {"job_id": "j", "request_id": "r", "model": "m"}),
    "generic": (["--job", "j", "--request", "r", "--job-type", "t", "--schema-version", "v"], "self_hosted.generic_job.invoke",
                {"job_id": "j", "request_id": "r", "job_type": "t", "schema_version": "v"}),
    "capabilities": ([], "self_hosted.capabilities.read", {}),
    "ops": ([], "self_hosted.generic_job.ops.read", {}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("secret", [None, "an environment's secret"])
def test_token(idle, kind, secret):
    words, scope, claims = KINDS[kind]
    env = {"MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET": secret} if secret else {}
    done = idle.cli("token", "--scope", kind, "--ttl", "60", *words, env=env)
    assert done.returncode == 0, done.stderr
    head, payload, mac = done.stdout.strip().split(".")
    key = secret or (idle.state_dir / "signing.key").read_text().strip()
    expected = base64.urlsafe_b64encode(hmac.digest(key.encode(), f"{head}.{payload}".encode(), "sha256")).rstrip(b"=").decode()
    shown = unpack(payload)
    assert mac == expected and unpack(head) == {"alg": "HS256", "typ": "JWT"}
    assert shown["scope"] == scope and shown["exp"] - shown["iat"] == 60 and claims.items() <= shown.items()
    # The same members as in the vectors of that kind, whose outcome was told by the reference.
    vector = next(v for v in json.loads(VECTORS.read_text())["vectors"] if v["kind"] == kind and v["expect"].get("ok") and "payload_json" in v)
    assert set(json.loads(vector["payload_json"])) >= {"scope", "exp", "deadline_at", "node_id", *claims}
    assert {"scope", "exp", "deadline_at", "node_id", "iat"} <= set(shown)


@pytest.mark.parametrize("words", [[], ["--scope", "all"], ["--scope", "invoke"], ["--scope", "generic", "--job", "j", "--request", "r"],
                                   ["--scope", "ops", "--ttl", "0"], ["--scope"]])
def test_token_mistakes(idle, words):
    done = idle.cli("token", *words)
    assert done.returncode == 1 and done.stdout == "" and done.stderr


def test_signing_key_that_others_can_read_is_refused(idle):
    assert idle.cli("token", "--scope", "ops").returncode == 0
    (idle.state_dir / "signing.key").chmod(0o644)
    done = idle.cli("token", "--scope", "ops")
    assert done.returncode == 1 and "signing.key" in done.stderr


def test_node_env(node):
    done = node.cli("node", "env")
    secret = (node.state_dir / "signing.key").read_text().strip()
    assert done.stdout.splitlines() == [f"export MCODA_MSWARM_NODE_BASE_URL='{node.url}/'",
                                        f"export MCODA_MSWARM_NODE_ID='{node.node_id}'",
                                        f"export MCODA_MSWARM_NODE_SIGNING_SECRET='{secret}'"]
    assert done.stderr == ""
    other = node.cli("node", "env", env={"MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET": "it's another"})
    assert "another signing secret" in other.stderr and "'it'\\''s another'" in other.stdout


# -- config, help, mistakes --

def test_config_show(idle):
    idle.write_config({"log_level": "warn"})
    shown = json.loads(idle.cli("config", "show", "--listen-port", "7", env={"MSWARM_LOOPS": "3"}).stdout)
    origin = {k: (v["value"], v["origin"]) for k, v in shown["settings"].items()}
    assert origin["log_level"] == ("warn", "file") and origin["loops"] == ("3", "environment")
    assert origin["listen_port"] == ("7", "flag") and origin["max_connections"] == ("12000", "default")
    assert shown["resolved"]["mode"] == "local" and shown["resolved"]["state_dir"] == str(idle.state_dir)


def test_config_show_hides_secrets(idle):
    env = {"MSWARM_SELF_HOSTED_RUNTIME_TOKEN": "canary-token", "MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET": "canary-secret"}
    done = idle.cli("config", "show", env=env)
    assert "canary" not in done.stdout + done.stderr and '"(set)"' in done.stdout


def test_config_check(idle):
    good, bad = idle.home / "good.json", idle.home / "bad.json"
    good.write_text('{"log_level": "warn", "unknown_key": 1}')
    bad.write_text('{\n  "log_level": "warn",\n  "loops" 3\n}\n')
    done = idle.cli("config", "check", str(good))
    assert done.returncode == 0 and "unknown_key" in done.stdout and "ok" in done.stdout
    done = idle.cli("config", "check", str(bad))
    assert done.returncode == 1 and "bad.json" in done.stderr and "line 3" in done.stderr
    assert idle.cli("config", "check", str(idle.home / "none.json")).returncode == 1


def test_broken_config_stops_the_start_with_file_and_line(idle):
    idle.write_config('{\n  "log_level": "warn"\n  "loops": 3\n}\n')
    done = idle.cli("serve", "--listen-port", "0")
    assert done.returncode == 1 and done.stdout == ""
    assert "config.json" in done.stderr and "line 3" in done.stderr and done.stderr.count("\n") == 1


def test_help_and_mistakes(idle):
    text = idle.cli("help")
    assert text.returncode == 0
    assert text.stdout.startswith("Usage: mswarm <node|install|setup|start|doctor|once|daemon|serve|enroll|models|agents|status>\n")
    for heading in ("Commands:", "Compatibility aliases:", "Environment", "Setup options:", "Log options:", "--no-mcoda\n      Off: Ask the mcoda command"):
        assert heading in text.stdout
    for words in (["--help"], ["-h"], ["node"], ["node", "help"], ["node", "--help"]):
        assert idle.cli(*words).stdout == text.stdout and idle.cli(*words).returncode == 0
    for words in (["job", "run", "--help"], ["job", "run", "-h"], ["job", "run", "--job-file", "x", "--help"]):
        done = idle.cli(*words)
        assert done.returncode == 0 and done.stdout.startswith("Usage: mswarm job run --job-file F") and done.stdout.count("Usage:") == 1, done
    assert idle.cli("install", "--help").stdout == idle.cli("node", "install", "--help").stdout, "an alias has the text of its command"
    group = idle.cli("keys", "--help")
    assert group.returncode == 0 and [line.split()[3] for line in group.stdout.splitlines() if line.startswith("Usage:")] == ["add", "list", "revoke"]
    done = idle.cli("srve")
    assert (done.returncode, done.stdout) == (1, text.stdout)
    assert done.stderr.splitlines() == ["Unknown command: srve", "Did you mean: mswarm serve"]
    done = idle.cli("node", "stauts")
    assert done.returncode == 1 and done.stderr.splitlines()[0] == "Unknown node command: stauts"
    assert "node status" in done.stderr
    assert idle.cli("--version").stdout == idle.cli("version").stdout and idle.cli("version").stdout.startswith("mswarm ")
    for words in ([], ["once"], ["status"], ["doctor"]):
        done = idle.cli(*words)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "MSWARM_SELF_HOSTED_NODE_ID is required\n")
    done = idle.cli("serve", "--listen-prt", "3")
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "Unknown option: --listen-prt. Did you mean --listen-port?"


def test_key_arguments_are_wiped_from_the_process_list(idle):
    done = idle.cli("install", "msw_canary", "--gateway", "http://127.0.0.1:1")
    assert "warning" in done.stderr and "canary" not in done.stderr + done.stdout
    idle.args = ["--node-id", "shn_3", "--mode", "direct", "--signing-secret=canary"]
    done = idle.cli("serve", *idle.args)
    assert done.returncode == 1 and "canary" not in done.stderr


def test_second_name_behaves_alike(idle):
    link = idle.home / "mswarm-self-hosted-node"
    link.symlink_to(os.path.realpath(binary()))
    done = subprocess.run([str(link), "version"], env=clean_env(idle.home), capture_output=True, text=True, timeout=20)
    assert done.stdout.startswith("mswarm ")
