"""The official OpenAI client (npm) against the node: what it lists, reads, accumulates, raises and aborts.

The package is installed by "npm ci" from the lock file into a folder beside the program, once.
"""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess

import pytest
from conftest import slow
from node import binary
from test_access import add_key
from upstream import chunk, completion, cut, held, refuses_tool_streams, silent, stall, status, stream, words
from wire import Wire

HERE = pathlib.Path(__file__).resolve().parent / "openai"


@pytest.fixture(scope="session")
def sdk():
    """A folder with node_modules; made anew when the lock file is another."""
    if not shutil.which("npm"):
        pytest.fail("npm is missing: deploy/install-packages tests")
    folder = pathlib.Path(binary()).resolve().parent / "openai-sdk"
    mark, wanted = folder / "installed", hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    folder.mkdir(exist_ok=True)
    if not mark.exists() or mark.read_text() != wanted:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True,
                              timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        mark.write_text(wanted)
    shutil.copy(HERE / "client.mjs", folder)
    return folder


@pytest.fixture
def start(sdk):
    """start(node, scenario, **env): a running client."""
    started = []

    def run(node, scenario, **env):
        process = subprocess.Popen(["node", "client.mjs", f"{node.url}/v1", scenario], cwd=sdk, text=True, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env={"PATH": os.environ["PATH"], "HOME": str(node.home), **env})
        started.append(process)
        return process
    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def client(start):
    """client(node, scenario, **env): what it printed."""
    def run(node, scenario, **env):
        out, err = start(node, scenario, **env).communicate(timeout=slow(30))
        assert out, err
        return json.loads(out)
    return run


def test_list(make_node, make_upstream, client):
    seen = client(make_node(make_upstream(models=["a", "org/b"])), "list")
    assert seen["ids"] == ["a", "org/b"] and seen["one"]["id"] == "a" and seen["one"]["object"] == "model"
    assert seen["missing"]["error"] == "NotFoundError" and seen["missing"]["code"] == "model_not_found"


def test_list_of_a_model_with_a_slash(make_node, make_upstream, client):
    assert client(make_node(make_upstream(models=["org/b"])), "list")["one"]["id"] == "org/b"


@pytest.mark.parametrize("owned_by", ["llamacpp", "vllm"])
def test_chat(make_node, make_upstream, client, owned_by):
    seen = client(make_node(make_upstream(owned_by=owned_by)), "chat")
    assert seen["text"] == "Hello" and seen["finish"] == "stop" and seen["usage"]["total_tokens"] == 5 and seen["model"] == "m"
    assert seen["id"].startswith("req_")


def test_stream_with_usage(node, client):
    seen = client(node, "iterate")
    assert seen["text"] == "Hello" and seen["usage"]["total_tokens"] == 5 and seen["chunks"] >= 4


def test_stream_helper(node, client):
    """llama.cpp sends no role; without one .stream() throws."""
    seen = client(node, "accumulate")
    assert "".join(seen["seen"]) == "Hello" == seen["text"] and seen["role"] == "assistant" and seen["finish"] == "stop"


def test_stream_helper_without_usage_or_done(node, upstream, client):
    upstream.script(stream(chunk({"content": "a"}), chunk({"content": "b"}, "eos")))
    seen = client(node, "accumulate")
    assert seen["text"] == "ab" and seen["finish"] == "stop"


def test_tools_of_a_runner_that_refuses_them_in_streams(node, upstream, client):
    upstream.default = refuses_tool_streams
    for seen in client(node, "tools"):
        call = seen["calls"][0]
        assert seen["finish"] == "tool_calls" and call["id"] and call["type"] == "function"
        assert call["function"]["name"] == "look" and json.loads(call["function"]["arguments"]) == {"a": 1}


def test_tools_with_quirks(make_node, make_upstream, client):
    """No index, no type, no id, the whole call in one delta, arguments as an object."""
    upstream = make_upstream(owned_by="vllm")
    calls = [{"function": {"name": "look", "arguments": {"a": 1}}}, {"function": {"name": "look", "arguments": {"a": 2}}}]
    upstream.script(stream(chunk({"tool_calls": calls}), chunk({}, "stop"), "[DONE]"),
                    status(200, completion(None, "stop", tool_calls=calls)))
    for seen in client(make_node(upstream), "tools"):
        assert seen["finish"] == "tool_calls"
        assert [json.loads(c["function"]["arguments"])["a"] for c in seen["calls"]] == [1, 2]
        assert len({c["id"] for c in seen["calls"]}) == 2 and all(c["type"] == "function" for c in seen["calls"])


def test_errors(node, client):
    seen = client(node, "errors")
    assert seen["model"]["error"] == "NotFoundError" and seen["model"]["code"] == "model_not_found" and seen["model"]["param"] == "model"
    assert seen["member"]["error"] == "BadRequestError" and seen["member"]["param"] == "temperature"
    assert seen["member"]["type"] == "invalid_request_error" and seen["member"]["requestID"].startswith("req_")
    assert seen["route"]["error"] == "NotFoundError"


def test_keys(node, client):
    key = add_key(node, "k")["key"]
    assert client(node, "fails")["error"] == "AuthenticationError"
    assert client(node, "chat", TEST_KEY=key)["text"] == "Hello"


@pytest.mark.parametrize("script, error, code", [
    (status(400, {"error": {"code": 400, "message": "the request exceeds the available context size", "type": "invalid_request_error"}}),
     "BadRequestError", "context_length_exceeded"),
    (status(429, {"error": {"message": "slow down"}}), "RateLimitError", None),
    (status(500, {"error": {"message": "bad"}}), "InternalServerError", "upstream_error"),
    (status(503, {"error": {"message": "Loading model"}}), "InternalServerError", None),
])
def test_runner_errors(node, upstream, client, script, error, code):
    upstream.default = script
    seen = client(node, "fails")
    assert seen["error"] == error and code in (None, seen["code"])


def test_retries_only_what_did_not_run(node, upstream, client):
    """By default it asks three times; a run that failed is not run again, a refusal is tried again."""
    upstream.default = status(500, {"error": {"message": "bad"}})
    assert client(node, "fails", TEST_RETRIES="2")["status"] == 502
    assert len(upstream.chats) == 1
    upstream.script(status(503, {"error": {"message": "Loading model"}}))
    upstream.default = stream(*words("ok"))
    assert client(node, "fails", TEST_RETRIES="2")["error"] is None
    assert len(upstream.chats) == 3


@pytest.mark.parametrize("script, message", [
    (stream(chunk({"content": "a"}), b'error: {"code":500,"message":"context full","type":"server_error"}\n\n', "[DONE]"), "context full"),
    (stream(chunk({"content": "a"}), {"error": {"message": "bad luck"}}), "bad luck"),
    (cut(chunk({"content": "a"})), None), (stream(chunk({"content": "a"}), "[DONE]"), None),
], ids=["field", "object", "cut", "no finish"])
def test_a_stream_that_breaks_raises(node, upstream, client, script, message):
    upstream.script(script)
    seen = client(node, "breaks")
    assert seen["error"] == "APIError" and seen["message"]
    assert message is None or message in seen["message"]


def test_leaving_a_loop_stops_the_run(node, upstream, start):
    upstream.script(stall(chunk({"content": "a"})))
    process = start(node, "leave")
    request = upstream.wait_chat(slow(10))
    assert json.loads(process.stdout.readline()) == {"left": True}
    request.wait_closed(slow(5))


@pytest.mark.parametrize("script", [silent, stall(chunk({"content": "a"}))], ids=["no head", "in the answer"])
def test_abort_stops_the_run(node, upstream, start, script):
    upstream.script(script)
    process = start(node, "abort")
    request = upstream.wait_chat(slow(10))
    process.stdin.write("now\n")
    process.stdin.flush()
    request.wait_closed(slow(5))
    out, err = process.communicate(timeout=slow(10))
    assert json.loads(out)["error"] == "APIUserAbortError", err


def test_keep_alive_comments_do_not_disturb(make_node, upstream, start):
    node = make_node(upstream, status_hold_ms=50, keep_alive_ms=50)
    gate = upstream.gate()
    upstream.script(held(gate, stream(*words("late"))))
    process = start(node, "iterate")
    upstream.wait_chat(slow(20))
    with Wire(node, slow(10)) as w:                            # as long as another one has seen four comments
        upstream.script(held(gate))
        w.chat()
        assert w.head()[0] == 200
        assert all(w.piece().startswith(b":") for _ in range(4))
    gate.open()
    out, err = process.communicate(timeout=slow(20))
    assert json.loads(out)["text"] == "late", err
