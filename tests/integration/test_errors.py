"""What clients send wrong: each bad request ends in a clear error, soon, and in nothing else. Then broken configuration.

After every case the node serves the next request; no process ends, no slot is lost, no loop stands still.
What goes wrong at runners is in test_runner_errors.py.
"""
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time

import pytest
from conftest import config_for, slow
from node import Node, wait_until
from upstream import answer
from wire import CHAT, Closed, Wire, chat_body

HELPERS = pathlib.Path(__file__).resolve().parent / "openai"


def ask(node, body=None, **members):
    """Status, headers, and error of a chat (None when there is none)."""
    code, headers, data = node.request("POST", CHAT, chat_body(**members) if body is None else body,
                                       {"content-type": "application/json"}, limit=slow(20))
    reply = json.loads(data)
    if code != 200:
        assert set(reply) == {"error"} and set(reply["error"]) == {"message", "type", "param", "code"}, reply
        assert headers["content-type"].startswith("application/json") and headers["x-request-id"]
    return code, headers, reply.get("error")


def check_serves(node, upstream=None):
    if upstream:
        upstream.default = answer()
    assert ask(node)[0] == 200


# ---- bad requests ----

@pytest.mark.parametrize("body", [
    b"{", b"", b"nonsense", b"[]", b'"text"', b"null", b"{}{}", b'{"model":"m",}', b'{"model":"m" "messages":[]}', b"\x00", b"\xff\xfe",
    b'{"model":"\xff","messages":[{"role":"user","content":"a"}]}', b'{"a":' * 10000, b"[" * 1000000, b'{"model":"m","model":',
    b'{"model":"m","messages":' + b"[" * 600 + b"]" * 600 + b"}",
    b'{"model":"m","messages":[{"role":"user","content":"a\nb"}]}', b'{"model":NaN}', b"<html></html>", b"model=m&messages=hi",
], ids=lambda b: repr(b[:24]))
def test_bodies_that_are_no_request(node, upstream, body):
    code, _, error = ask(node, body)
    assert code == 400 and error["type"] == "invalid_request_error" and error["message"]
    assert len(error["message"]) < 300, "an echo of the input"
    assert not upstream.chats
    check_serves(node)


USER = {"role": "user", "content": "hi"}
WRONG = [
    # members in place of the good ones, param of the error
    ({"model": None}, "model"), ({"model": 1}, "model"), ({"model": ""}, "model"), ({"model": ["m"]}, "model"),
    ({"messages": None}, "messages"), ({"messages": []}, "messages"), ({"messages": "hi"}, "messages"), ({"messages": {}}, "messages"),
    ({"messages": [1]}, "messages[0]"), ({"messages": [USER, {"content": "x"}]}, "messages[1].role"),
    ({"messages": [{"role": 1, "content": "x"}]}, "messages[0].role"), ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": 1}]}]}, "messages[0].content[0].type"),
    ({"stream": "yes"}, "stream"), ({"stream": 1}, "stream"), ({"stream": False, "stream_options": {"include_usage": True}}, "stream_options"),
    ({"max_tokens": "7"}, "max_tokens"), ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_completion_tokens": -1}, "max_completion_tokens"), ({"temperature": "hot"}, "temperature"), ({"temperature": 3}, "temperature"),
    ({"top_p": -0.1}, "top_p"), ({"presence_penalty": 2.1}, "presence_penalty"), ({"frequency_penalty": []}, "frequency_penalty"),
    ({"seed": 1.5}, "seed"), ({"logit_bias": []}, "logit_bias"), ({"stop": 5}, "stop"), ({"stop": ["a"] * 5}, "stop"), ({"n": 0}, "n"),
    ({"logprobs": 1}, "logprobs"), ({"top_logprobs": 2}, "top_logprobs"), ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"response_format": "json"}, "response_format"), ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"tools": {}}, "tools"), ({"tools": [{"type": "function"}]}, "tools[0].function"), ({"tool_choice": 5}, "tool_choice"),
    ({"parallel_tool_calls": "no"}, "parallel_tool_calls"), ({"reasoning_effort": 3}, "reasoning_effort"), ({"audio": {}}, "audio"),
]


@pytest.mark.parametrize("members, param", WRONG, ids=lambda v: json.dumps(v)[:48] if isinstance(v, dict) else v)
def test_wrong_members_are_named_by_their_path(node, upstream, members, param):
    code, _, error = ask(node, {**chat_body(), **members})
    assert code == 400 and error["type"] == "invalid_request_error"
    assert error["param"] == param, error
    assert not upstream.chats


def test_missing_members(node):
    assert ask(node, {"messages": [USER]})[2]["param"] == "model"
    assert ask(node, {"model": "m"})[2]["param"] == "messages"
    assert ask(node, {"model": "m"})[2]["code"] == "missing_required_parameter"


def test_null_is_absent(node):
    members = ("stream", "stream_options", "max_tokens", "temperature", "top_p", "seed", "stop", "n", "tools", "response_format", "logit_bias")
    assert ask(node, {**chat_body(), **{m: None for m in members}})[0] == 200


@pytest.mark.parametrize("is_stream", [True, False])
def test_unknown_model(node, upstream, is_stream):
    code, _, error = ask(node, model="nobody", stream=is_stream)
    assert code == 404 and error["code"] == "model_not_found" and error["param"] == "model"
    assert error["message"] == "The model `nobody` does not exist or you do not have access to it."
    assert not upstream.chats


@pytest.mark.parametrize("name", ["x" * 100000, "m\u0000", "../m", "\n", "\U0001f600", "m ", "M"])
def test_odd_names_of_models(node, name):
    code, _, error = ask(node, model=name)
    assert code in (400, 404) and len(error["message"]) < 400


def test_unknown_routes_and_methods(node):
    for method, path, code in (("GET", "/v1/x", 404), ("POST", "/v1/embeddings", 404), ("GET", CHAT, 405), ("DELETE", "/v1/models", 405),
                               ("POST", "/v1/models/m", 405)):
        status_, headers, data = node.request(method, path)
        error = json.loads(data)["error"]
        assert status_ == code and error["type"] == "invalid_request_error", path
        assert error["message"] == f"Invalid URL ({method} {path})" or code == 405
        if code == 405:
            assert headers["allow"]


# ---- sizes ----

def test_declared_length_over_the_limit(make_node, upstream):
    node = make_node(upstream, max_chat_body_bytes=100000)
    big = json.dumps(chat_body(messages=[{"role": "user", "content": "x" * 200000}])).encode()
    code, _, error = ask(node, big)
    assert code == 413 and error["code"] == "request_too_large"
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(big[i:i + 5000]), big[i:i + 5000]) for i in range(0, len(big), 5000)) + b"0\r\n\r\n"
    with Wire(node, slow(10)) as w:
        w.post(CHAT, pieces, {"Transfer-Encoding": "chunked"})
        code, _, data = w.answer()
        assert code == 413 and json.loads(data)["error"]["code"] == "request_too_large"
        w.chat(stream=False)                                   # on the same connection
        assert w.answer()[0] == 200
    exact = json.dumps(chat_body(messages=[{"role": "user", "content": ""}])).encode()
    pad = b"x" * (100000 - len(exact))
    assert ask(node, exact.replace(b'"content": ""', b'"content": "' + pad + b'"'))[0] == 200
    assert ask(node, exact.replace(b'"content": ""', b'"content": "x' + pad + b'"'))[0] == 413


def test_refusal_of_a_length_with_expect_comes_at_once(make_node, upstream):
    node = make_node(upstream, max_chat_body_bytes=100000)
    with Wire(node, slow(10)) as w:
        w.ask("POST", CHAT, None, {"Content-Length": "999999999", "Content-Type": "application/json", "Expect": "100-continue"})
        assert w.head()[0] == 413                              # nothing of the body was sent


def test_endless_upload_is_cut(make_node, upstream):
    """Beyond what is read and dropped for politeness the connection ends."""
    node = make_node(upstream, max_chat_body_bytes=100000)
    with Wire(node, slow(20)) as w:
        w.ask("POST", CHAT, None, {"Transfer-Encoding": "chunked", "Content-Type": "application/json"})
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(4096):
                w.send(piece)
    check_serves(node)


def is_all_read(port):
    """Nothing lies in a socket of this port, at either end: what clients have sent, the node has taken."""
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, state, queues = line.split()[1:5]
        if f"{port:04X}" in (local.split(":")[1], remote.split(":")[1]) and queues != "00000000:00000000" and state != "0A":
            return False
    return True


def test_budget_of_all_bodies(make_node, upstream):
    """Three bodies of 0.45 of the budget do not fit, one does: a buffer may be twice as large as what it holds."""
    node = make_node(upstream, body_budget_bytes=4 << 20, is_stall_checked=False)
    text = "y" * int(0.45 * (4 << 20))
    holders = [Wire(node, slow(10)) for _ in range(2)]
    for w in holders:                                          # one after the other: bodies that arrive together may refuse each other
        w.ask("POST", CHAT, None, {"Content-Length": str(len(text) + 1), "Content-Type": "application/json"})
        w.send(text)
        wait_until(lambda: is_all_read(node.port), slow(5), "the body to be taken")
    code, headers, _ = ask(node, messages=[{"role": "user", "content": text}])
    assert code == 503 and headers["retry-after"]
    assert node.request("GET", "/healthz")[0] == 200
    for w in holders:
        w.close()
    wait_until(lambda: ask(node, messages=[{"role": "user", "content": text}])[0] == 200, slow(5), "the budget to come back")


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node.js")
@pytest.mark.parametrize("what", ["over the limit", "unknown host", "unauthorized", "unknown route"])
def test_refusals_reach_a_client_that_still_writes(make_node, upstream, what):
    """Node's fetch with 4 MB, 20 times: every refusal is seen, none is lost to a reset."""
    node = make_node(upstream, max_chat_body_bytes=100000)
    headers, path, wanted = {}, CHAT, 413
    if what == "unauthorized":
        assert node.cli("keys", "add", "k").returncode == 0
        wanted = 401
    elif what == "unknown host":
        headers, wanted = {"origin": "http://evil.example"}, 403
    elif what == "unknown route":
        path, wanted = "/v1/nothing", 404
    done = subprocess.run(["node", str(HELPERS / "upload.mjs"), node.url + path, "4000000", "20", json.dumps(headers)],
                          capture_output=True, text=True, timeout=slow(60), env={**os.environ, "NODE_OPTIONS": ""})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [wanted] * 20


# ---- framing and headers ----

def refusal(node, request, limit=10):
    """Status of the answer to raw bytes; None when the node closed without one."""
    with Wire(node, slow(limit)) as w:
        try:
            w.send(request)
            return w.head()[0]
        except (Closed, ConnectionResetError, BrokenPipeError):
            return None


HOST = b"Host: localhost\r\n"


@pytest.mark.parametrize("request_, wanted", [
    (b"GET /v1/models HTTP/1.1\r\n\r\n", 400),
    (b"GET /v1/models HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
    (b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
    (b"GET /v1/models HTTP/1.1\r\nHost: \r\n\r\n", (400, 403)),
    (b"GET /v1/models HTTP/1.1\r\nHost: local host\r\n\r\n", (400, 403)),
    (b"GET /v1/models HTTP/1.1\r\nHost: localhost:99999\r\n\r\n", (400, 403)),
    (b"GET /v1/models HTTP/1.1\r\nHost: localhost@evil.example\r\n\r\n", (400, 403)),
    (b"GET http://localhost/v1/models HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", (400, 404, 405)),
    (b"GET /v1/\x01models HTTP/1.1\r\n" + HOST + b"\r\n", (400, None)),
    (b"GET /v1/models\x7f HTTP/1.1\r\n" + HOST + b"\r\n", (400, None)),
    (b"GET /v1/mod\x00els HTTP/1.1\r\n" + HOST + b"\r\n", (400, 404, None)),
    (b"GET /v1/models%00 HTTP/1.1\r\n" + HOST + b"\r\n", (400, 404)),
    (b"GET /v1/%2e%2e/healthz HTTP/1.1\r\n" + HOST + b"\r\n", (400, 404)),
    (b"GET /v1/models HTTP/1.1\r\n" + HOST + b"X: a\x01b\r\n\r\n", (400, None)),
    (b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400, None)),
    (b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", (400, None)),
    (b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", (400, None)),
    (b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999999\r\n\r\n", (400, 413, None)),
    (b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", (400, None)),
    (b"nonsense\r\n\r\n", (400, None)),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", (400, None)),    # a TLS hello
    (b"GET /v1/models HTTP/9.9\r\n" + HOST + b"\r\n", (400, 505, None)),
    (b"GET /" + b"a" * 16000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    (b"GET /" + b"a" * 17000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 431),
    (b"GET /v1/models HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 16000 + b"\r\n\r\n", 200),
    (b"GET /v1/models HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 17000 + b"\r\n\r\n", 431),
    (b"GET /v1/models HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: y\r\n" % n for n in range(1600)) + b"\r\n", 431),
], ids=lambda v: repr(v[:60]) if isinstance(v, bytes) else "")
def test_bad_framing(node, upstream, request_, wanted):
    code = refusal(node, request_)
    assert code in (wanted if isinstance(wanted, tuple) else (wanted,))
    assert not upstream.chats
    check_serves(node)


@pytest.mark.parametrize("size", [20000, 31000, 33000, 70000, 1 << 20])
def test_headers_of_any_size_get_431_or_an_end(node, size):
    """Near and above the size of libmicrohttpd's pool it answers itself; never silence."""
    code = refusal(node, b"GET /v1/models HTTP/1.1\r\n" + HOST + b"X: " + b"a" * size + b"\r\n\r\n")
    assert code in (431, 413, None)
    check_serves(node)


@pytest.mark.parametrize("part", [b"", b"GET /v1/models", b"GET /v1/models HTTP/1.1\r\nHost: loc"])
def test_slow_headers(make_node, upstream, part):
    node = make_node(upstream, http_header_ms=200, http_idle_ms=200)
    started = time.monotonic()
    with Wire(node, slow(10)) as w:
        w.send(part)
        assert w.is_closed_by_node(slow(5))
    assert 0.15 < time.monotonic() - started < slow(2)


def test_headers_that_drip(make_node, upstream):
    """A byte now and then does not prolong it."""
    node = make_node(upstream, http_header_ms=400)
    started = time.monotonic()
    with Wire(node, 0.02) as w:
        def is_over():
            try:
                w.send(b"X")
                return w.is_closed_by_node(0.02)
            except OSError:
                return True
        wait_until(is_over, slow(5), "the end of a client that drips")
    assert time.monotonic() - started < slow(2)


def test_slow_body(make_node, upstream):
    node = make_node(upstream, http_body_ms=200)
    with Wire(node, slow(10)) as w:
        w.ask("POST", CHAT, None, {"Content-Length": "1000", "Content-Type": "application/json"})
        w.send(b'{"model"')
        try:
            code, _, data = w.answer()
            assert code == 408 and json.loads(data)["error"]["code"] == "request_timeout"
        except Closed:
            pytest.fail("no word of why")
        assert w.is_closed_by_node(slow(5))
    check_serves(node)


def test_a_client_that_leaves_in_its_body(node):
    for _ in range(20):
        with Wire(node, slow(10)) as w:
            w.ask("POST", CHAT, None, {"Content-Length": "1000", "Content-Type": "application/json"})
            w.send(b'{"model"')
    check_serves(node)


# ---- broken config.json ----

@pytest.mark.parametrize("text, word", [
    ("{", "config.json"), ('{"upstreams": 5}', "upstreams"), ('{"keep_alive_ms": "soon"}', "keep_alive_ms"),
    ('{"keep_alive_ms": 1}', "keep_alive_ms"), ("[]", "config.json"),
    ("\x00\xff", "config.json"), ("[" * 100000, "config.json"),
])
def test_broken_config_is_refused_with_its_name(text, word):
    node = Node(config=text)
    try:
        node.launch()
        assert node.wait(slow(10)) not in (0, -6, -11)
        assert word in node.log()
    finally:
        node.close()


def test_a_value_above_its_range_is_lowered_with_a_warning(make_node, upstream):
    node = make_node(upstream, keep_alive_ms=99999999999)
    assert "keep_alive_ms" in node.whole_log() and "600000" in node.whole_log()


def test_a_bad_entry_of_upstreams_is_left_out_and_named(make_node, upstream):
    node = make_node(upstream, {"name": "bad", "base_url": "ftp://x"}, {"name": upstream.name, "base_url": "http://127.0.0.1:1"}, {})
    check_serves(node)
    assert "bad" in node.whole_log() and "upstreams[1]" in node.whole_log() and "upstreams[3]" in node.whole_log()


def test_unknown_keys_of_config_are_kept(make_node, upstream):
    node = make_node(upstream, some_future_key={"a": [1]})
    check_serves(node)
    assert json.loads((node.state_dir / "config.json").read_text())["some_future_key"] == {"a": [1]}


def test_node_starts_with_no_runner_at_all(make_node):
    node = make_node(config_for()["upstreams"] or {"name": "none", "base_url": "http://127.0.0.1:1/v1"}, is_waiting=False)
    code, _, error = ask(node, model="x")
    assert code in (404, 502, 503) and error["message"]


def test_runner_that_is_this_node_itself(make_node, upstream):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    node = make_node(upstream, {"name": "me", "base_url": f"http://127.0.0.1:{port}/v1"}, env={"MSWARM_SELF_HOSTED_LISTEN_PORT": str(port)})
    check_serves(node)
    wait_until(lambda: "that is this node itself" in node.log(), slow(5), "the word about it")
