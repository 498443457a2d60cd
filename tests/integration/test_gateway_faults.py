"""The link when the world fails: certificates, names, clocks, disks, kills at every step, an hour without a gateway."""
import datetime
import http.server
import json
import os
import ssl
import subprocess
import threading
import time

import pytest

from conftest import keep_full, link, slow, wait_link
from gateway import job, lost, says
from node import Node, is_sanitized, wait_until
from upstream import chunk, endless, held, silent, stream, words


# ---- kills and lost answers at every step ----

STEPS = ["poll", "start", "events", "result"]


@pytest.mark.parametrize("step", STEPS)
def test_the_gateway_restarts_at_every_step(gw, make_member, step):
    """It takes the request, dies before its answer, comes back with its books."""
    member = make_member()
    died = threading.Event()

    async def dies(x):
        if step != "poll":
            x.up.serve(x.request)
        x.cut(is_reset=True)
        died.set()
    gw.script(step, dies)
    if step == "poll":
        member.cli("node", "drain", "on"), member.cli("node", "drain", "off")
    gw.offer(job("j1", stream=True))
    assert died.wait(slow(40)), f"no {step}"
    gw.vanish()
    gw.listen()
    r = gw.wait_result("j1", slow(30))
    assert r["status"] == "success" and r["openai_response"]["choices"][0]["message"]["content"] == "Hello"
    # what could not be posted travels in the result: events that were due while it was away, whatever the step was, all of them or the last
    posted = gw.text_of("j1") if step != "events" else ""
    carried = "".join(c["choices"][0]["delta"].get("content") or "" for c in r.get("stream_events", []))
    assert "Hello".startswith(posted) and "Hello".endswith(carried) and len(posted + carried) >= 5, (posted, carried)
    assert len(member.up.chats) == 1
    wait_until(lambda: link(member)["results_waiting"] == 0, slow(20), "the outbox to be empty")


@pytest.mark.parametrize("step", ["start", "chat", "events", "result"])
@pytest.mark.parametrize("is_taken", [True, False])
def test_the_node_is_killed_at_every_step(gw, make_member, step, is_taken):
    """Killed when the request of that step is with the gateway, before its answer: taken by it or not."""
    member = make_member()
    arrived = threading.Event()

    async def holds(x):
        if is_taken:
            x.up.serve(x.request)
        arrived.set()
        await x.closed()

    async def chats(x):
        arrived.set()
        await x.closed()
    if step == "chat":
        member.up.script(chats)
    else:
        gw.script(step, holds)
    if step == "events":
        member.up.script(stream(chunk({"content": "a"}), member.up.gate()))
    gw.offer(job("j1", stream=True))
    assert arrived.wait(slow(20))
    member.kill()
    member.start(limit=slow(20))
    if step == "result":
        gw.wait(lambda: gw.results["j1"], slow(20), "the result")
        assert all(r["status"] == "success" for r in gw.results["j1"])
    else:
        r = gw.wait_result("j1", slow(20))
        assert r["status"] == "failed" and r["error"]["code"] == "node_interrupted" and r["error"]["retryable"] is True
    wait_until(lambda: link(member)["results_waiting"] == 0, slow(20), "the outbox to be empty")
    assert len({json.dumps(r) for r in gw.results["j1"]}) == 1, "one outcome, however often it is told"
    gw.offer(job("next"))
    assert gw.wait_result("next", slow(20))["status"] == "success"


def test_an_hour_without_a_gateway(gw, make_member, tmp_path, preload):
    """Results wait for an hour of the node's clock; when the gateway is back they arrive, each once."""
    mono = tmp_path / "mono"
    mono.write_text("0")
    member = make_member(env={"LD_PRELOAD": preload("clock_jump"), "MONO_JUMP_BY": str(mono), "CLOCK_JUMP_BY": str(mono)})
    gate = member.up.gate()
    member.up.script(*[held(gate)] * 4)
    gw.offer(*[job(f"j{i}") for i in range(4)])
    gw.wait(lambda: all(gw.starts[f"j{i}"] for i in range(4)), slow(10))
    gw.vanish()
    gate.open()
    wait_until(lambda: link(member)["results_waiting"] == 4, slow(20), "four results in the outbox")
    for minute in range(1, 61, 6):
        mono.write_text(str(minute * 60))
        n = link(member)["heartbeats_failed"]
        wait_until(lambda: link(member)["heartbeats_failed"] > n, slow(10), "another try")
    assert link(member)["state"] == "degraded" and link(member)["results_waiting"] == 4
    gw.listen()
    for i in range(4):
        assert gw.wait_result(f"j{i}", slow(30))["status"] == "success"
    wait_link(member, "online")
    assert all(len(gw.results[f"j{i}"]) == 1 for i in range(4))


def test_a_machine_that_slept(gw, make_member, tmp_path, preload):
    """After hours of sleep: one heartbeat, not one for every interval that was missed."""
    mono = tmp_path / "mono"
    mono.write_text("0")
    member = make_member(env={"LD_PRELOAD": preload("clock_jump"), "MONO_JUMP_BY": str(mono), "CLOCK_JUMP_BY": str(mono)})
    n = len(gw.beats)
    mono.write_text("30000")
    begin = time.monotonic()
    wait_until(lambda: time.monotonic() > begin + 3, 10)
    assert 2 <= len(gw.beats) - n <= 5
    gw.offer(job("j1"))
    assert gw.wait_result("j1", slow(15))["status"] == "success"
    assert link(member)["state"] == "online"


def test_a_clock_that_is_off_by_a_day(gw, make_member, tmp_path, preload):
    wall = tmp_path / "wall"
    wall.write_text("86400")
    member = make_member(env={"LD_PRELOAD": preload("clock_jump"), "CLOCK_JUMP_BY": str(wall)})
    gw.offer(job("j1"))
    assert gw.wait_result("j1", slow(10))["status"] == "success"
    wall.write_text("-86400")
    n = len(gw.beats)
    b = gw.wait_beat(after=n + 1)
    at = datetime.datetime.fromisoformat(b["capabilities"]["private_catalog_entry"]["captured_at"].replace("Z", "+00:00"))
    assert at < datetime.datetime.now(datetime.timezone.utc)
    gw.offer(job("j2"))
    assert gw.wait_result("j2", slow(10))["status"] == "success"
    assert link(member)["state"] == "online"


# ---- names, certificates ----

def make_certificate(folder, name, days, host="localhost"):
    base = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={host}",
            "-addext", f"subjectAltName=DNS:{host}" + (",IP:127.0.0.1" if host == "localhost" else ""), "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
    if days > 0:
        subprocess.run([*base, "-days", str(days)], check=True, capture_output=True)
        return
    # one that has run out: made with a clock of last year
    script = folder / "ca.cnf"
    script.write_text("[ca]\ndefault_ca=d\n[d]\ndatabase=%s/db\nnew_certs_dir=%s\nserial=%s/serial\ndefault_md=sha256\npolicy=p\ncopy_extensions=copy\n[p]\ncommonName=supplied\n" % ((folder,) * 3))
    (folder / "db").write_text("")
    (folder / "serial").write_text("01\n")
    subprocess.run(["openssl", "req", "-new", *base[3:10], "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.csr")], check=True, capture_output=True)
    subprocess.run(["openssl", "ca", "-batch", "-config", str(script), "-selfsign", "-keyfile", str(folder / f"{name}.key"), "-in", str(folder / f"{name}.csr"),
                    "-out", str(folder / f"{name}.pem"), "-startdate", "20240101000000Z", "-enddate", "20240102000000Z", "-notext"], check=True, capture_output=True)


class Secure(threading.Thread):
    """An https server that takes everything and remembers the paths."""

    def __init__(self, folder, name):
        super().__init__(daemon=True)
        self.paths = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                outer.paths.append(self.path)
                data = b'{"accepted":true}' if self.path.endswith("heartbeat") else b'{"job":null}'
                self.send_response(200)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.server.handle_error = lambda *_: None
        self.port = self.server.server_address[1]
        self.start()

    def run(self):
        self.server.serve_forever()


@pytest.mark.parametrize("days, host, is_trusted, is_well", [(2, "localhost", True, True), (2, "localhost", False, False), (0, "localhost", True, False), (2, "elsewhere.example", True, False)])
def test_certificates(tmp_path, days, host, is_trusted, is_well):
    make_certificate(tmp_path, "c", days, host)
    server = Secure(tmp_path, "c")
    env = {"MSWARM_GATEWAY_BASE_URL": f"https://localhost:{server.port}", "MSWARM_SELF_HOSTED_NODE_ID": "shn_1", "MSWARM_SELF_HOSTED_RUNTIME_TOKEN": "msn_tok",
           "MSWARM_SELF_HOSTED_HEARTBEAT_INTERVAL_SECONDS": "1"}
    if is_trusted:
        env["MSWARM_GATEWAY_CA_FILE"] = str(tmp_path / "c.pem")
    with Node(env=env, config={}) as node:
        state = wait_link(node, "online" if is_well else "degraded", limit=15)
        if is_well:
            assert state["error"] is None and any(p.endswith("heartbeat") for p in server.paths)
        else:
            assert "certificate" in state["error"].lower() or "ssl" in state["error"].lower(), state
            assert not server.paths, "no token goes to a gateway that cannot be trusted"
    server.server.shutdown()


def test_a_name_that_leads_nowhere(gw):
    env = {**gw.env(), "MSWARM_GATEWAY_BASE_URL": "https://no.such.gateway.invalid"}
    with Node(env=env, config={}) as node:
        state = wait_link(node, "degraded", limit=20)
        assert "fetch failed" in state["error"] or "aborted" in state["error"]
        assert node.request("GET", "/healthz")[0] == 200


@pytest.mark.parametrize("kind", ["poll", "heartbeat", "result"])
def test_answers_without_end(gw, make_member, kind):
    """An answer above its limit is no answer; it costs its limit of memory and nothing else."""
    member = make_member()
    gw.script(kind, endless(b" " * 65536, head={"content_type": "application/json"}))
    if kind == "poll":
        member.cli("node", "drain", "on"), member.cli("node", "drain", "off")
    gw.offer(job("j1"))
    assert gw.wait_result("j1", slow(60))["status"] == "success"
    with open(f"/proc/{member.pid}/status") as f:
        peak = next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))
    assert is_sanitized() or peak < 100 << 10, f"{peak} kB"
    wait_link(member, "online", limit=20)


# ---- disks, twins ----

def test_a_full_disk_while_the_outbox_grows(gw, make_member, tmp_path):
    """No new work is asked for; what runs is told all the same; with room again all goes on."""
    home = tmp_path / "disk"
    home.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(home)], capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        member = make_member(home=home)
        gate = member.up.gate()
        member.up.script(held(gate), held(gate))
        gw.offer(job("j1"), job("j2"))
        gw.wait(lambda: gw.starts["j1"] and gw.starts["j2"], slow(10))
        gw.script("result", *[says(503)] * 2)
        with keep_full(home / "filler"):
            gate.open()
            for name in ("j1", "j2"):
                assert gw.wait_result(name, slow(30))["status"] == "success"
        gw.offer(job("j3"))
        assert gw.wait_result("j3", slow(30))["status"] == "success"
        member.stop(slow(20))
    finally:
        subprocess.run(["umount", "-l", str(home)], check=False)


def test_two_nodes_on_one_state_folder(gw, make_member):
    member = make_member()
    done = member.cli("node", "run")
    assert done.returncode == 1 and "another node runs on this state folder" in done.stderr
    gw.offer(job("j1"))
    assert gw.wait_result("j1", slow(10))["status"] == "success"


def test_settings_are_changed_by_several_at_once(gw, make_member):
    """Commands beside each other and beside the node lose nothing of config.json."""
    member = make_member()
    running = [subprocess.Popen([os.environ.get("MSWARM_BIN") or "build/mswarm", "node", "add-client", f"c{i}.example.org", "--no-sync"],
                                env={**os.environ, "HOME": str(member.home), **{k: str(v) for k, v in member.env.items()}},
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for i in range(8)]
    for p in running:
        _, err = p.communicate(timeout=slow(30))
        assert p.returncode == 0, err
    kept = json.loads((member.state_dir / "config.json").read_text())
    assert kept["upstreams"] and kept["client_allowlist"]


def test_jobs_under_random_trouble(gw, make_member):
    """Lost answers, refusals and restarts of the gateway, while 60 jobs go through: each is told once, well or not."""
    member = make_member(env={"MSWARM_SELF_HOSTED_MAX_CONCURRENT_JOBS": "8", "MSWARM_KEEP_ALIVE_MS": "200"})
    for kind in ("start", "events", "result"):
        for i in range(60):
            if i % 3 == 0:
                gw.script(kind, *[lost if i % 2 else says(503)])
            else:
                gw.script(kind, gw._plain)
    gw.offer(*[job(f"j{i}", stream=i % 2 == 0) for i in range(60)])
    stop = time.monotonic() + slow(60)
    while time.monotonic() < stop and not all(gw.results[f"j{i}"] for i in range(60)):
        gw.vanish()
        gw.listen()
        # What was given out and never began: a gateway gives it out again when its lease ends.
        gw.offer(*[job(f"j{i}", stream=i % 2 == 0) for i in range(60) if not gw.starts[f"j{i}"] and not gw.results[f"j{i}"] and f"j{i}" in gw.claims])
        begin = time.monotonic()
        wait_until(lambda: time.monotonic() > begin + 1, 5)
    for i in range(60):
        assert gw.results[f"j{i}"], f"no result of j{i}"
        assert len({json.dumps(r) for r in gw.results[f"j{i}"]}) == 1
    ids = [c.json["messages"] for c in member.up.chats]
    assert len(ids) <= 60


def test_a_runner_that_hangs_with_the_listing_does_not_delay_heartbeats(gw, make_member, make_upstream):
    member = make_member(env={"MSWARM_INVENTORY_REFRESH_MS": "300"})
    member.up.models_script = silent
    n = len(gw.beats)
    gw.wait(lambda: len(gw.beats) >= n + 4, slow(8))
    assert link(member)["heartbeat_late_max_ms"] < slow(100)
    member.up.models_script = None
    gw.wait_beat(lambda b: b["local_agent_catalog"]["exposed_model_count"] > 0, slow(10), after=len(gw.beats))
    member.up.script(stream(*words("ok")))
    gw.offer(job("j1", stream=True))
    assert gw.wait_result("j1", slow(10))["status"] == "success"
