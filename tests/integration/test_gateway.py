"""The link to the gateway: joining, heartbeats, states, and relayed jobs as the gateway sees them."""
import json
import pathlib
import time

import pytest

from conftest import config_for, link, slow, wait_link
from gateway import Gateway, after, job, lost, says
from node import Node, wait_until
from test_node_job import PATH as DIRECT, SECRET, job as direct_job, token
from upstream import chunk, cut, held, silent, stall, status, stream, words
from wire import Wire


@pytest.fixture
def member(make_member):
    return make_member()


# ---- heartbeats ----

def test_the_first_heartbeat_says_it_all(gw, member):
    b = gw.beats[-1]
    assert b["node_version"] == "0.1.81" and b["status"] == "online" and b["runtime"]["relay_mode"] == "outbound"
    assert b["capacity"]["max_concurrency"] == 4 and b["capacity"]["free_slots"] == 4
    model = next(m for m in b["models"] if m["name"] == "m")
    assert model["exposed"] and model["provider"] == "mcoda" and model["source_agent_slug"] == "m" and model["health_status"] == "healthy"
    request = gw.requests_of("heartbeat")[0]
    assert request.headers["user-agent"].startswith("mswarm/") and request.headers["authorization"] == "Bearer msn_tok"
    state = wait_link(member, "online")
    assert state["heartbeats"] >= 1 and state["error"] is None
    assert "msn_tok" not in member.log()


def test_heartbeats_keep_their_time(gw, member):
    gw.wait(lambda: len(gw.beats) >= 4, slow(10))
    times = [r.head_mono for r in gw.requests_of("heartbeat")][:4]
    # From the first to the last: whole intervals, no drift by what an exchange takes.
    assert all(abs(times[i] - times[0] - i) < slow(0.15) for i in range(4)), [t - times[0] for t in times]


def test_drain_is_told_at_once_and_stops_the_polls(gw, make_member):
    member = make_member(env={"MSWARM_SELF_HOSTED_HEARTBEAT_INTERVAL_SECONDS": "3600"})
    n = len(gw.beats)
    member.cli("node", "drain", "on")
    b = gw.wait_beat(after=n)
    assert b["runtime"]["drain_mode"] and b["capacity"]["drain_mode"] and b["capacity"]["free_slots"] == 0
    wait_until(lambda: all(r.is_answered for r in gw.requests_of("poll")), slow(5), "the poll in flight")
    polls = len(gw.requests_of("poll"))
    gw.offer(job("j1", stream=True))
    wait_until(lambda: time.monotonic() > gw.requests_of("poll")[-1].at_mono + 2.0, 10)
    assert len(gw.requests_of("poll")) == polls
    member.cli("node", "drain", "off")
    assert gw.wait_result("j1", slow(10))["status"] == "success"


def test_drain_with_a_deadline_waits(gw, member):
    gate = member.up.gate()
    member.up.script(held(gate))
    gw.offer(job("j1"))
    member.up.wait_chat()
    done = member.cli("node", "drain", "on", "--deadline", "1s")
    assert done.returncode == 1 and json.loads(done.stdout) == {"drain": "on", "running": 1} and "still run" in done.stderr
    gate.open()
    done = member.cli("node", "drain", "on", "--deadline", "20s")
    assert done.returncode == 0 and json.loads(done.stdout)["running"] == 0
    assert gw.wait_result("j1")["status"] == "success"
    assert member.cli("node", "drain", "on", "--deadline", "soon").returncode == 1


def test_a_flag_of_the_reference_does_not_stop_the_polls(gw, make_member):
    make_member(lifecycle_health_status="degraded", lifecycle_health_reason="self_hosted_protocol_mismatch", lifecycle_health_message="x", config_version=7)
    gw.offer(job("j1"))
    assert gw.wait_result("j1")["status"] == "success"
    assert "lifecycle" not in gw.beats[-1]["runtime"] and gw.beats[-1]["config_version"] == 7 and gw.beats[-1]["status"] == "online"


def test_once_asks_the_running_node(gw, make_member):
    member = make_member(env={"MSWARM_SELF_HOSTED_HEARTBEAT_INTERVAL_SECONDS": "3600"})
    n = len(gw.beats)
    done = member.cli("once")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert list(told)[:6] == ["enrolled", "status", "model_count", "discovery_source", "mcoda_agent_count", "ollama_version"]
    assert told["heartbeat_response"] == {"accepted": True} and told["capacity"]["recent_failures"] == []
    assert len(gw.beats) == n + 1


def test_load_is_true_while_jobs_run(gw, make_member):
    member = make_member()
    gate = member.up.gate()
    member.up.script(held(gate), held(gate))
    gw.offer(job("j1"), job("j2"))
    b = gw.wait_beat(lambda b: b["capacity"]["active_jobs"] == 2)
    assert b["capacity"]["free_slots"] == 2 and b["capacity"]["execution_class_capacity"]["chat"]["active_jobs"] == 2
    n = len(gw.beats)
    gate.open()
    gw.wait_result("j1"), gw.wait_result("j2")
    b = gw.wait_beat(lambda b: b["capacity"]["active_jobs"] == 0, after=n)
    assert b["capacity"]["free_slots"] == 4


def test_without_load_reporting_the_old_shape(gw, make_member):
    make_member(args=["--disable-load-reporting"])
    assert gw.beats[-1]["capacity"] == {"active_jobs": 0, "queued_jobs": 0}


def test_hardware_pressure_is_asked_for(gw, make_member):
    make_member(args=["--enable-hardware-telemetry"])
    p = gw.beats[-1]["hardware_pressure"]
    assert list(p) == ["schema_version", "collected_at", "cpu", "ram", "gpu"] and p["cpu"]["core_count"] >= 1
    assert 0 <= p["ram"]["used_ratio"] <= 1 and p["ram"]["total_bucket"].endswith("GiB")


def test_what_is_not_shared_stays_at_home(gw, make_upstream, make_member):
    member = make_member(share=False, is_waiting=False)
    gw.wait(lambda: len(gw.beats) >= 2, slow(10))
    assert gw.beats[-1]["models"] == []
    gw.offer(job("j1"))
    r = gw.wait_result("j1")
    assert r["error"]["code"] == "selected_agent_unavailable" and r["pre_start_failure"] is True and not gw.starts["j1"]
    assert not member.up.chats


MCODA = [
    {"id": "agent-phi", "slug": "phi3-reviewer", "adapter": "ollama-remote", "defaultModel": "phi3.5:latest", "contextWindow": 4000, "maxOutputTokens": 2048,
     "bestUsage": "code_review", "capabilities": ["plan", " code_review ", "plan", ""], "costPerMillion": 0, "rating": 4.01, "reasoning_rating": 4.01, "maxComplexity": 5,
     "health": {"status": "healthy"}, "supportsTools": False},
    {"id": "agent-vllm", "slug": "qwen-local", "adapter": "vllm-local", "default_model": "qwen3", "capabilities": ["vision"], "health": {"status": "offline"},
     "config": {"baseUrl": "http://127.0.0.1:8000/v1", "localRunner": {"baseUrl": "http://127.0.0.1:1/v1", "authMode": "dummy", "responseFormatStrategy": "json_schema",
                                                                       "healthPath": "/health", "modelsPath": "/models", "supportsStreaming": True, "supportsJsonSchema": True,
                                                                       "supportsGbnf": False}}},
    {"slug": "mswarm-cloud-x", "adapter": "vllm-local"}, None, {"adapter": "no slug"},
]


def fake_mcoda(folder, agents):
    path = folder / "mcoda"
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(agents)}\nEND\n")
    path.chmod(0o755)
    return str(path)


def test_entries_of_mcodas_agents(gw, tmp_path):
    want = json.loads((pathlib.Path(__file__).resolve().parents[1] / "data" / "gateway-models.json").read_text())
    want[1]["exposed"] = False          # design: what is unreachable would be refused, so it is not exposed
    env = {**gw.env(), "MSWARM_MCODA_SOURCE": "1", "MSWARM_SELF_HOSTED_MCODA_BIN": fake_mcoda(tmp_path, MCODA)}
    with Node(env=env, config={}):
        b = gw.wait_beat(lambda b: b["models"], slow(10))
        assert b["models"] == want
        assert [list(m) for m in b["models"]] == [list(m) for m in want], "in the reference's order"
        assert b["local_agent_catalog"]["model_count"] == 2 and b["local_agent_catalog"]["exposed_model_count"] == 1 and b["status"] == "online"


def test_entries_of_ollamas_models(gw, make_upstream):
    up = make_upstream()

    async def ollama(x):
        if x.request.target.endswith("/api/version"):
            await x.reply({"version": "0.5.1"})
        else:
            await x.reply({"models": [{"name": "phi3.5:3.8b", "digest": "61819fb370a3", "details": {"family": "phi3", "parameter_size": "3.8B", "quantization_level": "Q4_0"}},
                                      {"name": "codellama:7b"}, {"name": "nomic-embed-text"}, {"name": ""}]})
    up._choose = lambda request: ollama
    env = {**gw.env(), "MSWARM_OLLAMA_SOURCE": "1", "MSWARM_SELF_HOSTED_DISCOVERY_MODE": "ollama", "MSWARM_SELF_HOSTED_OLLAMA_BASE_URL": f"http://127.0.0.1:{up.port}"}
    with Node(env=env, config={}):
        b = gw.wait_beat(lambda b: b["models"], slow(10))
        assert b["ollama"] == {"status": "ok", "version": "0.5.1"} and b["discovery"] == {"source": "ollama", "mcoda_status": None}
        first = next(m for m in b["models"] if m["name"] == "phi3.5:3.8b")
        assert json.dumps(first, separators=(",", ":")) == (
            '{"name":"phi3.5:3.8b","provider":"ollama","adapter":"ollama","model_id":"phi3.5:3.8b","digest":"61819fb370a3","family":"phi3","parameter_size":"3.8B",'
            '"quantization_level":"Q4_0","supports_tools":false,"supports_vision":false,"openai_compatible":false,"exposed":true,"best_usage":"general_chat","rating":5,'
            '"reasoning_rating":4,"max_complexity":3,"health_status":"healthy","metadata_quality":"discovered"}')
        by_name = {m["name"]: m for m in b["models"]}
        assert by_name["codellama:7b"]["best_usage"] == "code_writer" and by_name["codellama:7b"]["metadata_quality"] == "unknown"
        assert by_name["nomic-embed-text"]["exposed"] is False and by_name["nomic-embed-text"]["best_usage"] == "embedding" and len(by_name) == 3
        up.vanish()
        b = gw.wait_beat(lambda b: b["status"] == "degraded", slow(40))
        assert b["ollama"] == {"status": "error", "version": None} and b["discovery"]["mcoda_status"] == "error" and b["health"]["last_success_at"] is None


def test_the_raw_path_of_ollama(gw, make_upstream):
    up = make_upstream(models=["tiny:1b"], owned_by="library")
    env = {**gw.env(), "MSWARM_OLLAMA_SOURCE": "1", "MSWARM_SELF_HOSTED_DISCOVERY_MODE": "ollama", "MSWARM_SELF_HOSTED_OLLAMA_BASE_URL": f"http://127.0.0.1:{up.port}"}
    with Node(env=env, config={}):
        gw.wait_beat(lambda b: b["models"], slow(10))
        gw.offer({"job_id": "job/1 a", "request_id": "req1", "node_id": "shn_1", "agent_slug": "tiny", "provider": "ollama", "model": "tiny:1b",
                  "openai_request": {"model": "auto/tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True, "temperature": 0.2, "top_p": 0.9,
                                     "max_tokens": 16, "stop": ["x"]}})
        r = gw.wait_result("job/1 a")
        start = gw.requests_of("start")[0]
        assert start.body == b'{"node_id":"shn_1","agent_slug":"tiny","source_agent_slug":null,"model":"tiny:1b"}'
        assert gw.text_of("job/1 a") == "Hello" and gw.chunks["job/1 a"][-1]["choices"][0]["finish_reason"] == "stop"
        assert r["openai_response"]["metadata"]["provider"] == "ollama" and r["openai_response"]["metadata"]["raw"]["eval_count"] == 2
        assert r["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5} and "progress_events" not in r


def test_reserved_capacity(gw, make_member):
    env = {"MSWARM_SELF_HOSTED_MAX_CONCURRENT_JOBS": "2", "MSWARM_SELF_HOSTED_MAX_CONCURRENT_LLM_JOBS": "1", "MSWARM_SELF_HOSTED_RESERVED_LLM_JOBS": "1",
           "MSWARM_SELF_HOSTED_RESERVED_PRIORITY_MAX": "-5"}
    member = make_member(env=env)
    gw.wait(lambda: gw.polls, slow(10))
    assert gw.polls[0]["wait_ms"] == 2000 and gw.polls[0]["capacity"]["excluded_agent_slugs"] == [] and "max_requested_priority" not in gw.polls[0]["capacity"]
    gate = member.up.gate()
    member.up.script(held(gate), held(gate))
    gw.offer(job("ordinary"))
    member.up.wait_chat()
    n = len(gw.polls)
    gw.wait(lambda: len(gw.polls) > n + 1, slow(10))
    c = gw.polls[-1]["capacity"]
    assert c["max_requested_priority"] == -5 and c["excluded_agent_slugs"] == ["m"] and gw.polls[-1]["wait_ms"] == 250
    gw.offer(job("urgent"))
    member.up.wait_chat()
    gate.open()
    assert gw.wait_result("ordinary")["status"] == gw.wait_result("urgent")["status"] == "success"
    done = member.cli("serve", env={"MSWARM_SELF_HOSTED_MAX_CONCURRENT_JOBS": "1", "MSWARM_SELF_HOSTED_NODE_STATE_PATH": str(member.home / "other" / "config.json")})
    assert done.returncode == 1 and "max_concurrent_jobs" in done.stderr


def test_generic_jobs_are_in_the_load(gw, make_upstream):
    up = make_upstream()
    with Node(env=gw.env(), args=["--enable-generic-jobs", "--generic-job-max-concurrency", "3"], config=config_for(up.entry(share=True))):
        b = gw.wait_beat(lambda b: b["models"], slow(10))
        c = b["capacity"]
        assert c["max_concurrent_generic_jobs"] == 3 and c["max_concurrency"] == 3 and c["execution_class_capacity"]["generic_job"]["free_slots"] == 3
        assert b["capabilities"]["private_catalog_entry"]["snapshot"]["job_types"] == ["tenant.test-echo"]


def machine_with(folder, **commands):
    """The environment of a machine on which these commands answer so."""
    folder.mkdir()
    for name, script in commands.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "MSWARM_CAPABILITY_PROBES": "1"}


RICH = {
    "nvidia_smi": 'case "$1" in --query*) echo "0, NVIDIA RTX 4090, 24576, 550.54.14, 8.9";; *) echo "| CUDA Version: 12.4 |";; esac',
    "docker": """test "$*" = "info --format {{json .Runtimes}}" && echo '{"nvidia":{},"runc":{}}'""",
    "blender": "printf '\\nBlender 4.1.1\\n\\tbuild date\\n'",
    "ffmpeg": 'echo "ffmpeg version 6.1.1-3ubuntu5 Copyright"',
}


def test_the_first_heartbeat_knows_the_machine(gw, make_member, tmp_path):
    """Example 4.1 of the protocol, by commands that print what the real ones do."""
    make_member(env=machine_with(tmp_path / "bin", **RICH), args=["--enable-hardware-details"])
    snapshot = gw.beats[0]["capabilities"]["private_catalog_entry"]["snapshot"]
    assert snapshot["gpu"] == {
        "status": "available", "count": 1, "vendors": ["nvidia"],
        "devices": [{"id": "gpu-0", "vendor": "nvidia", "name": "NVIDIA RTX 4090", "vram_gb": 24, "driver_version": "550.54.14",
                     "compute_capability": "8.9", "capabilities": ["cuda"], "cuda_version": "12.4"}],
        "max_vram_gb": 24, "cuda_versions": ["12.4"]}
    assert snapshot["software"] == {
        "docker": {"name": "docker", "status": "available"}, "docker-nvidia": {"name": "docker-nvidia", "status": "available", "version": "nvidia"},
        "blender": {"name": "blender", "status": "available", "version": "4.1.1"},
        "ffmpeg": {"name": "ffmpeg", "status": "available", "version": "6.1.1-3ubuntu5"}}
    assert "diagnostics" not in snapshot
    assert gw.beats[0]["capabilities"]["public_projection"]["accelerators"]["gpu"] == {
        "available": True, "count": 1, "vendors": ["nvidia"], "cuda": True, "vram_tier": "16-31"}


def test_hardware_is_told_coarsely_unless_asked(gw, make_member, tmp_path):
    make_member(env=machine_with(tmp_path / "bin", **RICH))
    text = json.dumps(gw.beats[0])
    assert not [word for word in ("RTX", "550.54", "12.4", "4.1.1", "6.1.1") if word in text]
    assert gw.beats[0]["capabilities"]["scheduler_match"]["resources"] == {
        "gpu_count": 1, "gpu_vendors": ["nvidia"], "max_vram_gb": 16, "has_cuda": True, "software": {"docker_nvidia": True, "blender": True, "ffmpeg": True}}


def test_commands_that_fail_or_hang(gw, make_member, tmp_path):
    env = machine_with(tmp_path / "bin", nvidia_smi="echo 'NVIDIA-SMI has failed: no driver' >&2; exit 9", docker="sleep 60", blender="kill -9 $$",
                       ffmpeg="head -c 2000000 /dev/zero")
    begun = time.monotonic()
    make_member(env={**env, "MSWARM_CAPABILITY_PROBE_TIMEOUT_MS": "1000"}, args=["--enable-hardware-details"])
    assert time.monotonic() - begun < slow(4)
    snapshot = gw.beats[0]["capabilities"]["private_catalog_entry"]["snapshot"]
    assert snapshot["gpu"]["status"] == "error" and "no driver" in snapshot["gpu"]["message"]
    assert {name: s["status"] for name, s in snapshot["software"].items()} == dict.fromkeys(("docker", "docker-nvidia", "blender", "ffmpeg"), "error")
    assert [d["name"] for d in snapshot["diagnostics"]] == ["gpu", "docker", "docker-nvidia", "blender", "ffmpeg"]


def test_direct_mode_polls_for_nothing(gw, make_upstream):
    up = make_upstream()
    env = {**gw.env(), "MSWARM_SELF_HOSTED_RELAY_MODE": "direct", "MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET": "s"}
    with Node(env=env, config=config_for(up.entry(share=True))):
        gw.wait(lambda: len(gw.beats) >= 3, slow(10))
        assert not gw.requests_of("poll") and gw.beats[-1]["runtime"]["relay_mode"] == "direct"


def test_a_caller_who_leaves_is_no_failure_of_the_runner(gw, make_member):
    member = make_member(env={"MSWARM_SELF_HOSTED_RELAY_MODE": "direct", "MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET": SECRET})
    node_id = gw.beats[-1]["node_id"]
    headers = {"authorization": f"Bearer {token(node_id=node_id)}"}
    gate = member.up.gate()
    member.up.script(status(500, {"error": {"message": "out of luck"}}), held(gate))
    assert member.request("POST", DIRECT, direct_job(node_id=node_id), headers, limit=slow(10))[0] == 502
    member.up.wait_chat()
    leaver = Wire(member, 10)
    leaver.post(DIRECT, direct_job(node_id=node_id), headers)
    run = member.up.wait_chat()
    leaver.reset()
    run.wait_closed(slow(10))
    b = gw.wait_beat(after=len(gw.beats) + 1)
    assert b["health"]["recent_failure_count"] == 1 and b["health"]["recent_failures"][0]["code"] == "upstream_error"


# ---- jobs ----

def test_a_streamed_job(gw, member):
    member.up.script(stream(*words("Hel", "lo", " you")))
    gw.offer(job("job/1 a", stream=True))
    r = gw.wait_result("job/1 a")
    assert r["status"] == "success" and "stream_events" not in r
    message = r["openai_response"]["choices"][0]
    assert message["message"]["content"] == "Hello you" and message["finish_reason"] == "stop"
    assert gw.text_of("job/1 a") == "Hello you" and gw.starts["job/1 a"] == 1
    assert r["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    kinds = [gw.kind_of(q)[0] for q in gw.requests if gw.kind_of(q)[1] == "job/1 a"]
    assert kinds[0] == "start" and kinds[-1] == "result" and set(kinds[1:-1]) == {"events"}
    assert any(q.target.endswith("/jobs/job%2F1%20a/start") for q in gw.requests)


def test_a_plain_job(gw, member):
    gw.offer(job("j1"))
    r = gw.wait_result("j1")
    assert r["status"] == "success" and r["openai_response"]["choices"][0]["message"]["content"] == "Hello"
    assert not gw.chunks["j1"] and r["openai_response"]["metadata"]["agent_slug"] == "m"
    assert [e["type"] for e in r["progress_events"]] == ["agent_selected", "status"]
    assert r["node_id"] == "shn_1" and r["timing"]["local_latency_ms"] >= 0


@pytest.mark.parametrize("members, code, text", [
    ({"node_id": "other"}, "validation_failed", "job node_id does not match this node"),
    ({"agent_slug": "ghost", "model": "ghost"}, "selected_agent_unavailable", "selected local mcoda agent ghost is not available on this node"),
    ({"workspace": {"root": "/tmp"}}, "policy_denied", None),
    ({"docdex": {"required": True, "base_url": "x", "repo_id": "y"}}, "docdex_context_missing", None),
])
def test_refused_before_the_start(gw, member, members, code, text):
    gw.offer({**job("j1"), **members})
    r = gw.wait_result("j1")
    assert r["status"] == "failed" and r["pre_start_failure"] is True and r["error"]["code"] == code
    assert text is None or r["error"]["message"] == text
    assert not gw.starts["j1"] and not member.up.chats


def test_a_job_without_a_request_is_answered(gw, member):
    gw.offer({"job": {"job_id": "j1", "request_id": "r1", "node_id": "shn_1"}})
    r = gw.wait_result("j1")
    assert r["error"]["code"] == "validation_failed" and r["pre_start_failure"] is True


def test_a_runner_that_fails(gw, member):
    member.up.script(status(500, {"error": {"message": "out of luck", "type": "server_error"}}))
    gw.offer(job("j1", stream=True))
    r = gw.wait_result("j1")
    assert r["status"] == "failed" and "pre_start_failure" not in r and "out of luck" in r["error"]["message"]
    b = gw.wait_beat(lambda b: b["health"]["recent_failure_count"] == 1)
    assert b["health"]["recent_failures"][0]["code"] == "upstream_error" and b["health"]["recent_failures"][0]["execution_class"] == "agentic"


def test_jobs_run_beside_each_other_up_to_the_limit(gw, make_member):
    member = make_member(env={"MSWARM_SELF_HOSTED_MAX_CONCURRENT_JOBS": "2"})
    gate = member.up.gate()
    member.up.script(*[held(gate)] * 3)
    gw.offer(*[job(f"j{i}") for i in range(3)])
    wait_until(lambda: len(member.up.chats) == 2, slow(10), "two chats")
    gw.wait_beat(lambda b: b["capacity"]["active_jobs"] == 2 and b["capacity"]["free_slots"] == 0)
    assert len(gw.claims) == 2, "no poll without a free slot"
    gate.open()
    for i in range(3):
        assert gw.wait_result(f"j{i}", slow(10))["status"] == "success"


def test_a_slow_gateway_does_not_stall_the_runner(gw, member):
    gate = gw.gate()
    gw.script("events", after(gate))
    member.up.script(stream(*words(*[f"w{i} " for i in range(200)])))
    gw.offer(job("j1", stream=True))
    wait_until(lambda: member.up.chats and member.up.chats[0].is_answered, slow(5), "the runner to be through")
    gate.open()
    assert gw.wait_result("j1")["status"] == "success"
    assert gw.text_of("j1") == "".join(f"w{i} " for i in range(200)) and gw.chunk_posts["j1"] <= 4


def test_events_that_fail_travel_in_the_result(gw, member):
    gates = [member.up.gate() for _ in range(2)]
    gw.script("events", lost)
    member.up.script(stream(chunk({"content": "a"}), gates[0], chunk({"content": "b"}), gates[1], *words("c")))
    gw.offer(job("j1", stream=True))
    gw.wait(lambda: gw.chunk_posts["j1"] == 1)
    for g in gates:
        g.open()
    r = gw.wait_result("j1")
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in r["stream_events"])
    assert text == "abc" and r["openai_response"]["choices"][0]["message"]["content"] == "abc"
    assert gw.chunk_posts["j1"] == 1, "at most once: none after the one whose answer was lost"


def test_a_long_job_gives_signs_of_life(gw, make_member):
    member = make_member(env={"MSWARM_KEEP_ALIVE_MS": "200"})
    gate = member.up.gate()
    member.up.script(held(gate))
    gw.offer(job("j1"))
    gw.wait(lambda: len(gw.progress["j1"]) >= 3, slow(10))
    assert gw.progress["j1"][0]["type"] == "status" and gw.progress["j1"][0]["request_id"] == "req-j1"
    gate.open()
    assert gw.wait_result("j1")["status"] == "success"


@pytest.mark.parametrize("code", [404, 409, 410])
def test_a_job_that_is_gone_is_stopped_and_the_others_go_on(gw, make_member, code):
    member = make_member(env={"MSWARM_KEEP_ALIVE_MS": "200"})
    gate = member.up.gate()
    member.up.script(silent, held(gate))
    gw.offer(job("gone"))
    gone = member.up.wait_chat()
    gw.offer(job("stays"))
    member.up.wait_chat()
    gw.gone["gone"] = code
    gone.wait_closed(slow(10))
    gate.open()
    assert gw.wait_result("stays")["status"] == "success"
    assert not gw.results["gone"]
    assert wait_link(member, "online")["jobs_gone"] == 1
    gw.offer(job("next"))
    assert gw.wait_result("next")["status"] == "success"


def test_a_start_that_is_refused(gw, member):
    gw.script("start", says(422, {"error": "no"}))
    gw.offer(job("j1"))
    r = gw.wait_result("j1")
    assert r["pre_start_failure"] is True and r["error"]["code"] == "upstream_error" and r["error"]["message"].startswith("request_failed:422:")
    assert not member.up.chats


def test_answers_that_are_lost_change_nothing(gw, member):
    gw.script("start", lost)
    gw.script("result", lost, lost)
    gw.offer(job("j1", stream=True))
    gw.wait(lambda: len(gw.results["j1"]) == 3, slow(15))
    assert gw.starts["j1"] == 2 and len(member.up.chats) == 1
    assert gw.results["j1"][0] == gw.results["j1"][1] == gw.results["j1"][2]
    wait_until(lambda: link(member)["results_waiting"] == 0, slow(5), "the outbox to be empty")


def test_an_answer_that_comes_twice_runs_once(gw, member):
    gw.offer(job("j1"), job("j1"))
    assert gw.wait_result("j1")["status"] == "success"
    gw.offer(job("j1"), job("j2"))
    assert gw.wait_result("j2", slow(10))["status"] == "success"
    assert len(gw.results["j1"]) == 1 and len(member.up.chats) == 2


# ---- restarts ----

def test_a_result_survives_a_kill(gw, make_member):
    member = make_member()
    gw.script("result", *[says(503)] * 3)
    gw.offer(job("j1"))
    wait_until(lambda: len(gw.requests_of("result")) >= 1, slow(10), "a result that is refused")
    member.kill()
    member.start(limit=slow(20))
    assert gw.wait_result("j1", slow(20))["status"] == "success"
    wait_until(lambda: link(member)["results_waiting"] == 0, slow(5), "the outbox to be empty")
    assert len(gw.results["j1"]) == 1


@pytest.mark.parametrize("is_streaming", [True, False])
def test_a_job_that_a_kill_interrupts_is_told(gw, make_member, is_streaming):
    member = make_member()
    member.up.script(stall(chunk({"content": "a"})) if is_streaming else silent)
    gw.offer(job("j1", stream=is_streaming))
    member.up.wait_chat()
    wait_until(lambda: gw.starts["j1"], slow(5))
    member.kill()
    member.start(limit=slow(20))
    r = gw.wait_result("j1", slow(20))
    assert r["status"] == "failed" and r["error"]["code"] == "node_interrupted" and r["error"]["retryable"] is True
    assert len(member.up.chats) == 1, "it is not run again by itself"


def test_a_stop_tells_what_it_ends(gw, make_member):
    member = make_member(args=["--stop-grace-ms", "300"])
    member.up.script(silent)
    gw.offer(job("j1"))
    member.up.wait_chat()
    member.stop(slow(20))
    r = gw.wait_result("j1")
    assert r["error"]["code"] == "node_interrupted" and r["error"]["retryable"] is True


def test_a_stop_waits_for_what_is_nearly_done(gw, make_member):
    member = make_member()
    gate = member.up.gate()
    member.up.script(held(gate))
    gw.offer(job("j1"))
    member.up.wait_chat()
    member.signal(15)
    wait_until(lambda: "node.stopping" in member.log(), slow(5))
    gate.open()
    assert member.wait(slow(20)) == 0
    assert gw.results["j1"][0]["status"] == "success"


# ---- trouble ----

def test_a_gateway_that_comes_back(gw, make_member):
    member = make_member()
    gw.vanish()
    wait_link(member, "degraded")
    gw.listen()
    wait_link(member, "online", limit=20)
    gw.offer(job("j1"))
    assert gw.wait_result("j1", slow(10))["status"] == "success"


def test_polls_that_bring_nothing_are_one_a_second(gw, make_member):
    gw.hold_s = 0
    make_member(is_stall_checked=False)
    gw.script("poll", *[says(204)] * 2)
    n = len(gw.requests_of("poll"))
    gw.offer(*[{"job": None}, "", {}, [], {"job": 1}, {"job": {}}, {"job": {"job_id": ""}}, {"job": {"job_id": ".."}}, {"job": {"job_id": 7}}, "not json", b"\xff\x00", "null"] * 3)
    begin = time.monotonic()
    wait_until(lambda: time.monotonic() > begin + 13.5, 20)
    assert 12 <= len(gw.requests_of("poll")) - n <= 15
    gw._offers.clear()
    gw.offer(job("j1"))
    assert gw.wait_result("j1", slow(10))["status"] == "success"


def test_polls_that_fail_back_off(gw, make_member):
    gw.script("poll", *[says(500), says(429), cut(), says(302, location="http://127.0.0.1:1/"), says(503)] * 200)
    member = make_member(env={"MSWARM_SELF_HOSTED_HEARTBEAT_INTERVAL_SECONDS": "3600"})
    begin = time.monotonic()
    wait_until(lambda: time.monotonic() > begin + 7.0, 10)
    assert 3 <= len(gw.requests_of("poll")) <= 4, "one to two seconds, two to four, four to eight"
    assert link(member)["state"] == "degraded"
    gw._by_kind["poll"].clear()
    gw.offer(job("j1"))
    member.cli("once")                  # a heartbeat that is taken clears the wait
    assert gw.wait_result("j1", slow(5))["status"] == "success"
    wait_link(member, "online")


def test_a_gateway_without_the_poll_path_is_told_and_heals(gw, make_member):
    gw.script("poll", *[says(404, {"error": "not_found"})] * 2)
    member = make_member()
    b = gw.wait_beat(lambda b: "lifecycle" in b["runtime"])
    assert b["status"] == "degraded" and b["health"]["lifecycle_reason"] == "self_hosted_protocol_mismatch"
    assert "Gateway is missing lifecycle endpoint POST" in b["runtime"]["lifecycle"]["message"]
    n = len(gw.beats)
    b = gw.wait_beat(lambda b: "lifecycle" not in b["runtime"], slow(20), after=n)
    assert b["status"] == "online"
    wait_link(member, "online")


def test_a_token_that_is_refused_and_given_back(gw):
    node = Node(env={**gw.env(), "MSWARM_SELF_HOSTED_RUNTIME_TOKEN": None}, config={"node_id": "shn_1"})
    try:
        key = node.state_dir / "node.key"
        key.write_text("msn_tok\n")
        key.chmod(0o600)
        node.start(limit=slow(20))
        wait_link(node, "online")
        gw.token = "msn_other"
        state = wait_link(node, "refused")
        assert state["error"].startswith("request_failed:401")
        n = len(gw.requests_of("poll"))
        begin = time.monotonic()
        wait_until(lambda: time.monotonic() > begin + 2, 10)
        assert len(gw.requests_of("poll")) == n, "no polls with a token that was refused"
        key.write_text("msn_other\n")
        node.cli("once")                # somebody looks: the next word is said now, with the key that is there now
        wait_link(node, "online", limit=20)
        assert "msn_other" not in node.log() and "msn_tok" not in node.log()
        node.stop(slow(20))
    finally:
        if node.process:
            node.show()
        node.close()


def test_a_node_that_was_removed_looks_whether_it_is_back(gw, make_member):
    member = make_member(env={"MSWARM_GATEWAY_RECHECK_SECONDS": "2"})
    gw.script("heartbeat", says(410, {"error": "removed"}))
    wait_link(member, "removed")
    n, polls = len(gw.requests_of("heartbeat")), len(gw.requests_of("poll"))
    wait_link(member, "online")
    assert len(gw.requests_of("heartbeat")) <= n + 2 and len(gw.requests_of("poll")) <= polls + 2
    gw.offer(job("j1"))
    assert gw.wait_result("j1", slow(10))["status"] == "success"


def test_enrolment_by_token(gw):
    node = Node(env={**gw.env(MSWARM_SELF_HOSTED_ENROLLMENT_TOKEN="mse_t"), "MSWARM_SELF_HOSTED_RUNTIME_TOKEN": None}, config={"node_id": "shn_1", "mine": [1, 2]})
    gw.script("enroll", says(503))
    with node:
        gw.wait(lambda: len(gw.beats) >= 2, slow(20))
        assert gw.beats[0]["config_version"] == 3
        kept = json.loads((node.state_dir / "config.json").read_text())
        assert kept["mine"] == [1, 2] and kept["config_version"] == 3 and kept["lifecycle_health_status"] == "healthy" and "runtime_token" not in kept
        key = node.state_dir / "node.key"
        assert key.read_text() == "msn_tok\n" and key.stat().st_mode & 0o777 == 0o600
        assert (node.state_dir / "config.json").stat().st_mode & 0o777 == 0o600
        assert "mse_t" not in node.log()


def test_the_token_goes_to_no_other_host(gw, make_member, make_upstream):
    elsewhere = make_upstream()
    member = make_member(jobs_result_path_template=f"http://127.0.0.1:{elsewhere.port}/steal/:jobId")
    state = wait_until(lambda: link(member)["error"] and link(member), slow(5), "the error in the status")
    assert "another host than the gateway's" in state["error"]
    wait_link(member, "online")
    assert not gw.requests_of("poll"), "a job whose result can go nowhere is not claimed"
    assert "poll.path_refused" in member.log() and not elsewhere.requests[1:]


def test_another_host_can_be_allowed(gw, make_member):
    with Gateway() as other:
        make_member(gateway_hosts=["127.0.0.1"], jobs_result_path_template=f"{other.url}/v1/swarm/self-hosted/node/jobs/:jobId/result")
        gw.offer(job("j1"))
        assert other.wait_result("j1", slow(10))["status"] == "success" and not gw.results["j1"]


def test_secrets_are_in_no_file(gw, make_member):
    gw.attached_key = "msw_attached_key_987654"
    member = make_member()
    member.up.script(status(500, {"error": {"message": "key msw_attached_key_987654 is bad"}}))
    gw.offer(job("j1", text="the secret prompt 12345"))
    r = gw.wait_result("j1")
    assert "msw_attached" not in json.dumps(r)
    member.kill()
    for path in member.home.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert b"secret prompt 12345" not in data and b"msw_attached" not in data, path
    member.start(limit=slow(20))
