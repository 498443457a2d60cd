"""POST /v1/swarm/self-hosted/node/jobs (R3): every gate in its order with exact bodies, then jobs plain and streamed."""
import base64
import hashlib
import hmac
import http.client
import json
import time

import pytest

from conftest import slow
from node import wait_until
from upstream import answer, chunk, completion, cut, held, status as says, stream, words

PATH = "/v1/swarm/self-hosted/node/jobs"
SECRET = "test-secret-0123456789"
NODE = "shn_test"
ENV = {"MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET": SECRET, "MSWARM_SELF_HOSTED_NODE_ID": NODE}
MISSING = "MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET is required for direct jobs"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(secret=SECRET, ttl=60, **claims):
    now = int(time.time())
    deadline = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(now + ttl))
    payload = {"node_id": NODE, "job_id": "j1", "request_id": "r1", "model": "m", "deadline_at": deadline,
               "scope": "self_hosted.invoke", "iat": now, "exp": now + ttl, **claims}
    text = b64(b'{"alg":"HS256","typ":"JWT"}') + "." + b64(json.dumps(payload).encode())
    return text + "." + b64(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())


def job(stream=False, messages=None, request=None, **members):
    ask = {"model": "m", "messages": messages if messages is not None else [{"role": "user", "content": "hi"}], **(request or {})}
    if stream:
        ask["stream"] = True
    return {"job_id": "j1", "request_id": "r1", "node_id": NODE, "agent_slug": "m", "openai_request": ask, **members}


def post(node, body, auth=None, headers=None, limit=20.0):
    head = {"authorization": f"Bearer {token() if auth is None else auth}", **(headers or {})}
    status, head, data = node.request("POST", PATH, body, head, limit=slow(limit))
    return status, head, data


def flat(node, body, **kw):
    status, _, data = post(node, body, **kw)
    return status, json.loads(data)


def frames(data):
    assert data.endswith(b"data: [DONE]\n\n"), data
    lines = [e for e in data.decode().split("\n\n") if e]
    assert all(e.startswith(("data: ", ": ")) for e in lines), lines
    return [json.loads(e[6:]) for e in lines[:-1] if not e.startswith(":")]


def silent(up):
    """A runner that takes the request and says nothing."""
    return held(up.gate())


def stalled(up):
    """A runner that says nothing more after its first chunk."""
    return stream(chunk({"content": "a"}), up.gate())


def shared(up, **members):
    return up.entry(share=True, **members)


@pytest.fixture
def direct(make_node, upstream):
    """A node that serves model m of the scripted runner to direct jobs."""
    node = make_node(shared(upstream), env=ENV, is_waiting=False)
    upstream.wait_list()
    wait_until(lambda: b'"m"' in node.request("GET", "/v1/models")[2], slow(10), "the model")
    return node


# ---- gates ----

def bad(message):
    return 400, {"error": "bad_request", "code": "validation_failed", "message": message}


def unauthorized(message):
    return 401, {"error": "unauthorized", "code": "unauthorized", "message": message}


def framework(status, code, error, message):
    return status, {"statusCode": status, "code": code, "error": error, "message": message}


def test_no_shared_secret_behind_a_public_url(make_node, upstream):
    env = {"MSWARM_SELF_HOSTED_NODE_ID": NODE, "MSWARM_SELF_HOSTED_RELAY_MODE": "direct",
           "MSWARM_SELF_HOSTED_DIRECT_BASE_URL": "https://node.example"}
    node = make_node(upstream, env=env, is_waiting=False)
    assert flat(node, job()) == (503, {"error": "service_unavailable", "code": "missing_config", "message": MISSING})


def test_token_gates_in_order(direct):
    body = job()
    assert flat(direct, body, auth="", headers={"authorization": ""}) == unauthorized("Missing invocation token")
    status, head, _ = direct.request("POST", PATH, b"{", {"content-type": "text/xml"})
    assert status == 401, "the token comes before the body"
    assert flat(direct, body, auth="x.y") == unauthorized("self_hosted_invocation_token_invalid")
    assert flat(direct, body, auth=token(secret="other")) == unauthorized("self_hosted_invocation_token_invalid")
    assert flat(direct, body, auth=SECRET) == unauthorized("self_hosted_invocation_token_invalid")
    assert flat(direct, body, auth=token(scope="self_hosted.generic_job.invoke")) == unauthorized("self_hosted_invocation_token_scope_denied")
    assert flat(direct, body, auth=token(ttl=-5)) == unauthorized("self_hosted_invocation_token_expired")
    for claim in ("node_id", "job_id", "request_id", "model"):
        assert flat(direct, body, auth=token(**{claim: " "})) == unauthorized(f"{claim} is required")
    assert direct.request("POST", PATH, body, {"authorization": token()})[0] == 200   # the scheme is optional


def test_media_and_json_gates(direct):
    def send(body, kind):
        return flat(direct, body, headers={"content-type": kind} if kind else {})
    assert send(b"", None) == bad("Cannot read properties of undefined (reading 'node_id')")
    assert send(b"", "application/json") == framework(400, "FST_ERR_CTP_EMPTY_JSON_BODY", "Bad Request",
                                                      "Body cannot be empty when content-type is set to 'application/json'")
    assert send(b"{}", None) == framework(415, "FST_ERR_CTP_INVALID_MEDIA_TYPE", "Unsupported Media Type", "Unsupported Media Type: undefined")
    assert send(b"{}", "text/xml") == framework(415, "FST_ERR_CTP_INVALID_MEDIA_TYPE", "Unsupported Media Type", "Unsupported Media Type: text/xml")
    assert send(b"{}", "text/plain") == bad("job node_id does not match invocation token")
    for text in (b"{", b"{'a':1}", b"[1,]", b"\xff"):
        assert send(text, "application/json") == framework(400, "FST_ERR_CTP_INVALID_JSON_BODY", "Bad Request",
                                                           "Body is not valid JSON but content-type is set to 'application/json'")
    assert send(b"null", "application/json") == bad("Cannot read properties of null (reading 'node_id')")
    assert send(b"[]", "application/json; charset=utf-8") == bad("job node_id does not match invocation token")
    status, _, data = post(direct, b'{"x":"' + b"y" * (1 << 20) + b'"}', headers={"content-type": "application/json"})
    assert status == 413


def test_claims_in_order(direct):
    other = {"node_id": "x", "job_id": "x", "request_id": "x", "openai_request": {"model": "x"}}
    right = job()
    for name, message in [("node_id", "job node_id"), ("job_id", "job_id"), ("request_id", "request_id"), ("openai_request", "model")]:
        assert flat(direct, {**right, **other}) == bad(f"{message} does not match invocation token")
        other.pop(name)
    assert flat(direct, {**right, "openai_request": None}) == bad("model does not match invocation token")
    assert flat(direct, {**right, "job_id": "j1 "}) == bad("job_id does not match invocation token")


def test_drain_all_refuses(direct):
    assert direct.cli("drain", "on").returncode == 0
    assert post(direct, job())[0] == 200               # direct jobs go on
    assert direct.cli("drain", "all").returncode == 0
    status, head, data = post(direct, job(stream=True))
    assert status == 503 and json.loads(data)["code"] == "node_draining" and "retry-after" in head


# ---- failures before the start: 502 with the result, or frames under 200 ----

def failed(code, message, has_timing=True):
    return {"job_id": "j1", "request_id": "r1", "status": "failed", "pre_start_failure": True, "error": {"code": code, "message": message}}


DOCDEX = {"required": True, "base_url": "http://127.0.0.1:1", "repo_id": "r", "credential_source": "attached_mswarm_api_key"}
NO_TOOLS = "this node runs no tools: workspace.root, docdex and policy.allowed_tools are refused"
PRE_START = [
    ("wrong node", dict(node_id="other"), "validation_failed", "job node_id does not match this node"),
    ("no messages", dict(messages=[]), "validation_failed", "mcoda invocation prompt is empty"),
    ("blank", dict(messages=[{"role": "user", "content": "  "}], agent_slug="nobody"), "validation_failed", "mcoda invocation prompt is empty"),
    ("agent", dict(agent_slug="nobody"), "selected_agent_unavailable", "selected local mcoda agent nobody is not available on this node"),
    ("source agent", dict(source_agent_slug="no-one"), "selected_agent_unavailable",
     "selected local mcoda agent no-one is not available on this node"),
    ("agent before docdex", dict(agent_slug="nobody", docdex={"required": True}), "selected_agent_unavailable",
     "selected local mcoda agent nobody is not available on this node"),
    ("docdex", dict(docdex={"required": True}), "docdex_context_missing", "Required Docdex runtime context must include base_url and repo_id."),
    ("docdex source", dict(docdex={**DOCDEX, "credential_source": "x"}), "docdex_context_missing",
     "Required Docdex runtime context must use credential_source attached_mswarm_api_key."),
    ("docdex key", dict(docdex=DOCDEX), "docdex_api_key_missing", "Required Docdex runtime context did not receive an attached mswarm API key."),
    ("workspace", dict(workspace={"root": "/w"}), "policy_denied", NO_TOOLS),
    ("docdex object", dict(docdex={}), "policy_denied", NO_TOOLS),
    ("allowed tools", dict(policy={"allowed_tools": ["read_file"]}), "policy_denied", NO_TOOLS),
]


@pytest.mark.parametrize("what, members, code, message", PRE_START, ids=[p[0] for p in PRE_START])
def test_failures_before_the_start(direct, upstream, what, members, code, message):
    auth = token(node_id=members.get("node_id", NODE))
    status, result = flat(direct, job(**members), auth=auth)
    timing = result.pop("timing", None)
    assert (status, result) == (502, failed(code, message))
    assert (timing is None) == (what == "wrong node")
    status, head, data = post(direct, job(stream=True, **members), auth=auth)
    assert status == 200 and head["content-type"] == "text/event-stream; charset=utf-8"
    assert frames(data) == [{"object": "error", "error": {"code": code, "message": message}}]
    assert upstream.chats == []


def test_docdex_key_came_along(direct):
    key = "owner-key-1234"
    status, head, data = post(direct, job(docdex=DOCDEX), headers={"x-attached-mswarm-api-key": key, "x-mswarm-attached-api-key": " "})
    assert json.loads(data)["error"] == {"code": "policy_denied", "message": NO_TOOLS}
    assert key.encode() not in data and key not in direct.whole_log()


def test_other_sources_are_not_for_jobs(make_node, upstream):
    """A runner that the owner did not share serves local clients only."""
    node = make_node(upstream, env=ENV)
    status, result = flat(node, job())
    assert status == 502 and result["error"]["code"] == "selected_agent_unavailable"


# ---- jobs that run ----

def test_plain(direct, upstream):
    upstream.script(answer("Hel", "lo"))
    status, head, data = post(direct, job(request={"temperature": 0.25, "seed": 1152921504606846977, "max_tokens": 9},
                                          policy={"max_output_tokens": 5}))
    result = json.loads(data)
    response = result["openai_response"]
    assert status == 200 and head["content-type"] == "application/json; charset=utf-8"
    assert set(result) == {"job_id", "request_id", "status", "openai_response", "progress_events", "usage", "timing"}
    assert (result["job_id"], result["request_id"], result["status"]) == ("j1", "r1", "success")
    assert response["id"] == "chatcmpl-r1" and response["object"] == "chat.completion" and response["model"] == "m"
    assert response["choices"][0]["message"]["content"] == "Hello" and response["choices"][0]["finish_reason"] == "stop"
    assert response["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cost_cents": 0}
    assert result["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    meta = response["metadata"]
    assert set(meta) == {"provider", "adapter", "local_model", "agent_slug", "codali_run_id", "tool_calls_executed", "touched_files",
                         "warnings", "mode"}
    assert (meta["agent_slug"], meta["local_model"], meta["codali_run_id"], meta["touched_files"]) == ("m", "m", "r1", [])
    assert [p["type"] for p in result["progress_events"]] == ["agent_selected", "status"]
    assert isinstance(result["timing"]["local_latency_ms"], int)
    sent = upstream.wait_chat()
    assert b'"seed":1152921504606846977' in sent.body and b'"temperature":0.25' in sent.body
    assert sent.json["max_tokens"] == 5


def test_stream(direct, upstream):
    upstream.script(stream(*words("Hel", "lo", finish="length")))
    status, head, data = post(direct, job(stream=True))
    assert status == 200
    assert head["content-type"] == "text/event-stream; charset=utf-8"
    assert head["cache-control"] == "no-cache, no-transform" and head["x-accel-buffering"] == "no"
    assert "content-length" not in head and head["transfer-encoding"] == "chunked"
    chunks = frames(data)
    assert {c["id"] for c in chunks} == {"chatcmpl-r1"} and {c["model"] for c in chunks} == {"m"}
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks) == "Hello"
    assert [c["choices"][0]["finish_reason"] for c in chunks][-1] == "length"
    assert all(len(c["choices"]) == 1 for c in chunks), "no usage chunk"


def test_stream_from_a_runner_that_answers_plain(direct, upstream):
    upstream.script(lambda x: x.reply(completion("whole")))
    chunks = frames(post(direct, job(stream=True))[2])
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks) == "whole"


def test_roles_and_content_are_made_fit(direct, upstream):
    messages = [{"role": "bot", "content": "a"}, {"content": [{"type": "text", "text": "b"}]}, {"role": "user"}, 7]
    assert post(direct, job(messages=messages))[0] == 200
    assert [m["role"] for m in upstream.wait_chat().json["messages"]] == ["user", "user", "user"]


def test_large_job_goes_through_the_pool(direct, upstream):
    text = "x" * 700_000
    status, _, data = post(direct, job(messages=[{"role": "user", "content": text}]))
    assert status == 200 and json.loads(data)["status"] == "success"
    assert upstream.wait_chat().json["messages"][0]["content"] == text
    assert frames(post(direct, job(stream=True, messages=[{"role": "user", "content": text}]))[2])


def test_large_answer(direct, upstream):
    text = "y" * 300_000           # above what is made right on the loop
    upstream.script(lambda x: x.reply(completion(text)))
    status, _, data = post(direct, job())
    assert status == 200 and json.loads(data)["openai_response"]["choices"][0]["message"]["content"] == text


@pytest.mark.parametrize("script, code", [
    (says(400, {"error": {"message": "prompt too long, token=abcdef", "type": "x", "code": 400}}), "upstream_error"),
    (says(401, {"error": {"message": "policy required"}}), "upstream_error"), (says(500, b"<html>empty</html>"), "upstream_error"),
    (stream(chunk({"content": "a"}), {"error": {"message": "slot lost", "code": 500}}), "upstream_error"),
    (cut(chunk({"content": "a"})), "upstream_error"), (stream(chunk({"content": "a"}), "[DONE]"), "upstream_error"),
])
def test_runner_failures(direct, upstream, script, code):
    upstream.script(script, script)
    status, _, data = post(direct, job())
    result = json.loads(data)
    assert status == 502 and result["status"] == "failed" and result["error"]["code"] == code
    assert "pre_start_failure" not in result and [p["type"] for p in result["progress_events"]][-1] == "error"
    assert b"abcdef" not in data
    status, _, data = post(direct, job(stream=True))
    assert status == 200 and frames(data)[-1]["object"] == "error" and frames(data)[-1]["error"]["code"] == code


def test_time_limit(direct, upstream):
    upstream.script(silent(upstream), stalled(upstream))
    status, result = flat(direct, job(policy={"max_runtime_ms": 200}))
    assert status == 502 and result["error"] == {"code": "timeout", "message": "Runner timeout exceeded"}
    events = frames(post(direct, job(stream=True, policy={"max_runtime_ms": 200}))[2])
    assert events[-1] == {"object": "error", "error": {"code": "timeout", "message": "Runner timeout exceeded"}}
    for _ in range(2):
        upstream.wait_chat().wait_closed(slow(1))


def test_own_limit_caps_that_of_the_job(make_node, upstream):
    node = make_node(shared(upstream), env={**ENV, "MSWARM_SELF_HOSTED_JOB_TIMEOUT_MS": "200"}, is_waiting=False)
    upstream.script(*[silent(upstream) for _ in range(3)])
    for limit in (600000, 0, None):
        status, result = flat(node, job(policy={"max_runtime_ms": limit}))
        assert status == 502 and result["error"]["code"] == "timeout"


def test_keep_alive_while_silent(make_node, upstream):
    node = make_node(shared(upstream), env={**ENV, "MSWARM_KEEP_ALIVE_MS": "60"}, is_waiting=False)
    gate = upstream.gate()
    upstream.script(stream(chunk({"content": "a"}), gate, *words("b")))
    conn = http.client.HTTPConnection(node.host, node.port, timeout=slow(10))
    conn.request("POST", PATH, json.dumps(job(stream=True)), {"authorization": token(), "content-type": "application/json"})
    got = conn.getresponse()
    seen = b""
    while seen.count(b": keep-alive\n\n") < 3:
        seen += got.read1(4096)
    gate.open()
    assert frames(seen + got.read())
    conn.close()


# ---- capacity and leaving ----

def begin(node, body):
    conn = http.client.HTTPConnection(node.host, node.port, timeout=slow(10))
    conn.request("POST", PATH, json.dumps(body), {"authorization": token(), "content-type": "application/json"})
    return conn


def queued(node):
    return json.loads(node.cli("node", "status", "--json").stdout)["running"]["requests"]["job"]["queued"]


def test_head_comes_at_once(direct, upstream):
    upstream.script(silent(upstream))
    conn = begin(direct, job(stream=True))
    assert conn.getresponse().status == 200            # while the runner says nothing at all
    ask = upstream.wait_chat()
    conn.close()
    ask.wait_closed(slow(1))


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("script", [silent, stalled])
def test_who_leaves_stops_the_work(direct, upstream, is_stream, script):
    upstream.script(script(upstream))
    conn = begin(direct, job(stream=is_stream))
    ask = upstream.wait_chat()
    left = time.monotonic()
    conn.close()
    assert ask.wait_closed(slow(2)) - left < slow(0.1)


@pytest.mark.parametrize("is_stream", [False, True])
def test_who_leaves_the_queue(make_node, upstream, is_stream):
    """A waiting job that leaves never reaches the runner, and gives its place on."""
    node = make_node(shared(upstream), env={**ENV, "MSWARM_SELF_HOSTED_MAX_CONCURRENT_LLM_JOBS": "1"}, is_waiting=False)
    gate = upstream.gate()
    upstream.script(held(gate))
    first = begin(node, job())
    upstream.wait_chat()
    waiting = begin(node, job(stream=is_stream, messages=[{"role": "user", "content": "never"}]))
    if is_stream:
        waiting.getresponse()
    else:
        wait_until(lambda: queued(node) == 1, slow(5), "the queue")
    waiting.close()
    wait_until(lambda: queued(node) == 0, slow(5), "an empty queue")
    gate.open()
    assert first.getresponse().status == 200
    first.close()
    assert post(node, job())[0] == 200
    assert [c.json["messages"][0]["content"] for c in upstream.chats] == ["hi", "hi"]


def test_stop_ends_a_stream_with_an_error_and_done(make_node, upstream):
    node = make_node(shared(upstream), env={**ENV, "MSWARM_STOP_GRACE_MS": "100"}, is_waiting=False)
    upstream.script(stalled(upstream))
    conn = begin(node, job(stream=True))
    got = conn.getresponse()
    first = got.read1(4096)
    node.stop(slow(20))
    events = frames(first + got.read())
    assert events[-1] == {"object": "error", "error": {"code": "upstream_error", "message": "the node is stopping"}}
    conn.close()


def test_capacity(make_node, upstream):
    env = {**ENV, "MSWARM_SELF_HOSTED_MAX_CONCURRENT_LLM_JOBS": "1", "MSWARM_MAX_QUEUED_REQUESTS": "0"}
    node = make_node(shared(upstream), env=env, is_waiting=False)
    upstream.script(silent(upstream))
    conn = begin(node, job(stream=True))
    upstream.wait_chat()
    for is_stream in (False, True):
        status, head, data = post(node, job(stream=is_stream))
        body = json.loads(data)
        assert status == 503 and (body["error"], body["code"]) == ("service_unavailable", "node_at_capacity")
        assert int(head["retry-after"]) >= 1
    conn.close()
    wait_until(lambda: post(node, job())[0] == 200, slow(5), "the slot")


def test_queue_gives_the_slot_on(make_node, upstream):
    env = {**ENV, "MSWARM_SELF_HOSTED_MAX_CONCURRENT_LLM_JOBS": "1"}
    node = make_node(shared(upstream), env=env, is_waiting=False)
    gate = upstream.gate()
    upstream.script(stream(gate, *words("one")))
    first = begin(node, job(stream=True))
    upstream.wait_chat()
    second = begin(node, job(stream=True))
    assert second.getresponse().status == 200          # its head does not wait for the slot
    gate.open()
    upstream.wait_chat().wait_answered()
    first.close()
    second.close()


# ---- raw Ollama ----

@pytest.fixture
def ollama(make_upstream):
    return make_upstream(models=["llama3:8b", "hidden:1b"], owned_by="library", name="ollama")


def ollama_node(make_node, up, **env):
    env = {**ENV, "MSWARM_OLLAMA_SOURCE": "1", "MSWARM_SELF_HOSTED_OLLAMA_BASE_URL": f"http://127.0.0.1:{up.port}",
           "MSWARM_SELF_HOSTED_DISCOVERY_MODE": "ollama", "MSWARM_SELF_HOSTED_EXPOSURE_POLICY": "all",
           "MSWARM_SELF_HOSTED_MODEL_BLOCKLIST": "hidden:1b", **env}
    node = make_node(env=env)
    wait_until(lambda: b"llama3:8b" in node.request("GET", "/v1/models")[2], slow(10), "Ollama's model")
    return node


RAW = {"provider": "ollama", "model": "llama3:8b"}


def test_ollama_plain(make_node, ollama):
    node = ollama_node(make_node, ollama)
    status, result = flat(node, job(**RAW, request={"temperature": 0.5, "stop": "x"}, policy={"max_output_tokens": 7}))
    assert status == 200
    response = result["openai_response"]
    assert response["id"] == "chatcmpl-r1" and response["model"] == "m"
    assert response["choices"] == [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]
    assert response["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cost_cents": 0}
    assert response["metadata"]["provider"] == "ollama" and response["metadata"]["raw"]["eval_count"] == 2
    assert "progress_events" not in result
    sent = ollama.wait_chat()
    assert sent.target == "/api/chat"
    assert sent.json == {"model": "llama3:8b", "messages": [{"role": "user", "content": "hi"}], "stream": False,
                         "options": {"temperature": 0.5, "num_predict": 7, "stop": ["x"]}}


def test_ollama_stream_is_two_chunks(make_node, ollama):
    node = ollama_node(make_node, ollama)
    content, stop = frames(post(node, job(stream=True, **RAW))[2])
    assert content["choices"] == [{"index": 0, "delta": {"role": "assistant", "content": "Hello"}, "finish_reason": None}]
    assert stop["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert content["id"] == stop["id"] == "chatcmpl-r1" and content["model"] == "m"


def test_ollama_honours_exposure_and_the_owners_cap(make_node, ollama):
    node = ollama_node(make_node, ollama, MSWARM_MAX_OUTPUT_TOKENS="3")
    status, result = flat(node, job(provider="ollama", model="hidden:1b"))
    assert status == 502 and result["error"]["code"] == "selected_agent_unavailable" and result["pre_start_failure"] is True
    assert post(node, job(**RAW))[0] == 200
    assert ollama.wait_chat().json["options"] == {"num_predict": 3}


def test_ollama_failures(make_node, ollama):
    node = ollama_node(make_node, ollama)
    ollama.script(says(200, b"<html>"), says(404, {"error": "model not found"}), says(200, {"error": "out of memory"}))
    for _ in range(3):
        status, result = flat(node, job(**RAW))
        assert status == 502 and result["error"]["code"] == "upstream_error" and "progress_events" not in result
    ollama.script(says(200, b"<html>"))
    assert frames(post(node, job(stream=True, **RAW))[2])[-1]["error"]["code"] == "upstream_error"


# ---- what is counted ----

def test_it_is_accounted_as_direct(direct, upstream):
    assert post(direct, job())[0] == 200
    def counted():
        import sqlite3
        with sqlite3.connect(f"file:{direct.state_dir}/node.db?mode=ro", uri=True) as db:
            return db.execute("SELECT agent, key_id, requests, errors, prompt_tokens, completion_tokens FROM usage").fetchall()
    wait_until(lambda: counted() == [("m", "direct", 1, 0, 3, 2)], slow(5), "the usage row")


def test_a_trial_that_ran_out_of_time_lets_the_next_one_try(make_node, upstream):
    """A runner that was left alone is tried again; the job's time ends before it has said anything: no verdict."""
    node = make_node(shared(upstream), env=ENV, is_waiting=False, inventory_refresh_ms=3600000)
    wait_until(lambda: b'"m"' in node.request("GET", "/v1/models")[2], slow(10), "the model")
    upstream.script(*[cut(is_reset=True)] * 3)
    for _ in range(3):
        assert flat(node, job())[0] == 502
    upstream.default = silent(upstream)

    def has_tried():
        return flat(node, job(policy={"max_runtime_ms": 150}))[1]["error"]["code"] == "timeout"
    assert not has_tried(), "the breaker is open"
    wait_until(has_tried, slow(10), "a trial")
    upstream.default = answer("well")
    wait_until(lambda: flat(node, job())[0] == 200, slow(5), "the next to try")
