"""node doctor: the five checks of the reference, ours, and how each is mended."""
import json
import os
import pty
import socket
import subprocess

import pytest

from conftest import config_for, slow
from gateway import says
from node import Node, binary, clean_env


@pytest.fixture
def node(gw, make_upstream):
    up = make_upstream()
    n = Node(env=gw.env(), config=config_for(up.entry(share=True)))
    n.state_dir.chmod(0o700)
    (n.state_dir / "config.json").chmod(0o600)
    yield n
    if n.process:
        n.stop(slow(20))
    n.close()


def checks(done):
    told = json.loads(done.stdout)
    return told["ok"], {c["name"]: c for c in told["checks"]}, [c["name"] for c in told["checks"]]


def test_without_a_node_id():
    n = Node(config={})
    done = n.cli("doctor")
    assert (done.returncode, done.stdout, done.stderr.strip()) == (1, "", "MSWARM_SELF_HOSTED_NODE_ID is required")
    n.close()


@pytest.mark.parametrize("command", [("doctor",), ("node", "doctor"), ("node", "health")])
def test_a_node_that_is_well(gw, node, command):
    node.start(limit=slow(20))
    gw.wait_beat(lambda b: b["models"], slow(10))
    n = len(gw.beats)
    done = node.cli(*command)
    ok, by_name, names = checks(done)
    assert names[:5] == ["config", "runtime_token", "gateway_health", "heartbeat", "local_agents"]
    assert by_name["config"]["message"] == "shn_1" and by_name["runtime_token"]["message"] == "present" and "message" not in by_name["gateway_health"]
    assert by_name["heartbeat"]["message"] == "online" and by_name["local_agents"]["message"] == "1 exposed local agent(s)"
    assert {"dns", "permissions", "disk", "store", "port", "gpu", "docker", "sandbox", "cgroup", "runner", "service"} <= set(names)
    assert ok and done.returncode == 0, done.stdout
    assert len(gw.beats) >= n + 1


def test_a_node_that_does_not_run(gw, node):
    ok, by_name, _ = checks(node.cli("doctor"))
    assert by_name["heartbeat"]["ok"] and len(gw.beats) == 1 and gw.beats[0]["capacity"]["active_jobs"] == 0
    assert by_name["port"]["ok"]


def test_what_is_wrong_is_said(gw, node):
    key = node.state_dir / "config.json"
    key.chmod(0o644)
    gw.script("healthz", says(500, {"error": "x"}), says(500, {"error": "x"}))
    gw.script("heartbeat", says(401), says(401))
    done = node.cli("doctor")
    ok, by_name, names = checks(done)
    assert not ok and done.returncode == 1
    assert by_name["gateway_health"]["message"].startswith("request_failed:500:") and by_name["heartbeat"]["message"].startswith("request_failed:401:")
    assert "local_agents" not in names and not by_name["permissions"]["ok"] and "config.json" in by_name["permissions"]["message"]


def test_for_people(gw, node):
    key = node.state_dir / "config.json"
    key.chmod(0o644)
    master, slave = pty.openpty()
    process = subprocess.Popen([binary(), "node", "doctor"], env=clean_env(node.home, node.env), stdin=slave, stdout=slave, stderr=slave, cwd=node.home)
    os.close(slave)
    text = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        text += piece
    assert process.wait(slow(20)) == 1
    lines = text.decode().splitlines()
    assert any(line.startswith("FAIL  permissions") for line in lines) and any("-> chmod go= " in line for line in lines)
    assert any(line.startswith("ok    config") for line in lines) and lines[-1] == "Something is wrong: see the arrows."


def test_a_clock_that_is_off(gw, node):
    async def dated(x):
        await x.reply({"ok": True}, date="Sun, 22 Nov 2026 08:00:00 GMT")
    gw.script("healthz", dated)
    _, by_name, _ = checks(node.cli("doctor"))
    assert not by_name["clock"]["ok"] and "ahead of the gateway's" in by_name["clock"]["message"]


def test_names_and_ports(gw, node):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        _, by_name, _ = checks(node.cli("doctor", env={"MSWARM_SELF_HOSTED_LISTEN_PORT": str(s.getsockname()[1])}))
        assert not by_name["port"]["ok"]
    _, by_name, _ = checks(node.cli("doctor", env={"MSWARM_GATEWAY_BASE_URL": "https://no.such.host.invalid"}, limit=60))
    assert not by_name["dns"]["ok"] and not by_name["gateway_health"]["ok"] and not by_name["heartbeat"]["ok"]


def test_direct_mode_needs_a_shared_secret(gw, node):
    env = {"MSWARM_SELF_HOSTED_RELAY_MODE": "direct", "MSWARM_SELF_HOSTED_DIRECT_BASE_URL": gw.url}
    ok, by_name, _ = checks(node.cli("doctor", env=env))
    assert not by_name["signing_secret"]["ok"] and not by_name["direct_url"]["ok"]
    _, by_name, _ = checks(node.cli("doctor", env={**env, "MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET": "s"}))
    assert by_name["signing_secret"]["ok"]


def test_clients_are_added_and_told(gw, node):
    node.start(limit=slow(20))
    gw.wait_beat()
    n = len(gw.beats)
    done = node.cli("node", "add-client", "Example.org,10.0.0.1,2a0e:1cc1::7,123e4567-e89b-12d3-a456-426614174000")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["action"] == "add" and told["changed"] == 4 and told["sync"] == {"ok": True}
    b = gw.wait_beat(lambda b: "client_allowlist" in b, after=n)
    assert [(c["kind"], c["value"]) for c in b["client_allowlist"]] == [
        ("domain", "example.org"), ("ip", "10.0.0.1"), ("ip", "2a0e:1cc1::7"), ("uuid", "123e4567-e89b-12d3-a456-426614174000")]
    assert list(b).index("client_allowlist") == list(b).index("models") - 1
    told = json.loads(node.cli("node", "remove-clint", "10.0.0.1", "--no-sync").stdout)
    assert told["changed"] == 1 and told["sync"]["skipped"] is True
    kept = json.loads((node.state_dir / "config.json").read_text())
    assert [c["value"] for c in kept["client_allowlist"]] == ["example.org", "2a0e:1cc1::7", "123e4567-e89b-12d3-a456-426614174000"] and kept["upstreams"]
    done = node.cli("node", "add-client", "-bad-.x")
    assert done.returncode == 1
