"""What goes wrong at model runners: refusals, broken answers and streams, silence, runners that are not there.

Each ends in a clear error, soon; a client never gets half an answer with a good end. After every case the node serves
the next request.
"""
import json
import time

import pytest
from conftest import slow
from node import wait_until
from test_errors import ask, check_serves
from upstream import chunk, completion, cut, endless, event, raw, silent, stall, status, stream, then, words
from wire import CHAT, Wire, chat_body, text_of


def stream_of(node, **members):
    with Wire(node, slow(20)) as w:
        w.chat(**members)
        code, _ = w.head()
        if code != 200:
            return code, json.loads(w.body())["error"]
        return code, list(w.events())


# ---- broken runners: before the answer ----

def error_of(node, is_stream):
    """(status, error) of a chat that must fail with a status."""
    code, headers, error = ask(node, stream=is_stream)
    return code, error, headers


BOTH = pytest.mark.parametrize("is_stream", [True, False])
KINDS = pytest.mark.parametrize("owned_by", ["llamacpp", "vllm"])

def code_of(script):
    """What status the scripted runner answers with, 200 when it is raw bytes."""
    return getattr(script, "code", 200)


REFUSALS = [
    # what the runner says, status and error for the client
    (status(400, {"error": {"code": 400, "message": "bad", "type": "invalid_request_error"}}), 400, "invalid_request_error", None),
    (status(400, {"object": "error", "message": "bad", "type": "BadRequestError", "param": "x", "code": 400}), 400, None, None),
    (status(400, {"error": "bad"}), 400, "invalid_request_error", None),
    (status(401, {"error": {"message": "no key"}}), 502, "server_error", "upstream_error"),
    (status(403, b"bad"), 502, "server_error", "upstream_error"),
    (status(404, {"error": {"message": "no such model"}}), 502, "server_error", "upstream_error"),
    (status(429, {"error": {"message": "slow down"}}, retry_after=7), 429, "rate_limit_error", None),
    (status(500, {"error": {"code": 500, "message": "bad", "type": "server_error"}}), 502, "server_error", "upstream_error"),
    (status(500, b""), 502, "server_error", "upstream_error"),
    (status(501, b"<html>bad</html>", "text/html"), 502, "server_error", "upstream_error"),
    (status(503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}), 503, "server_error", None),
    (status(301, b"", location="http://127.0.0.1:1/"), 502, "server_error", "upstream_error"),
    (status(204, b""), 502, "server_error", "upstream_error"),
    (status(200, b""), 502, "server_error", "upstream_error"),
    (status(200, b"<html>bad</html>", "text/html"), 502, "server_error", "upstream_error"),
    (status(200, b"{", "application/json"), 502, "server_error", "upstream_error"),
    (status(200, b'{"choices":[]}'), 502, "server_error", "upstream_error"),
    (status(200, b"[1,2]"), 502, "server_error", "upstream_error"),
    (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nContent-Type: application/json\r\n\r\n{}"), 502, "server_error", "upstream_error"),
    (raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"ch"), 502, "server_error",
     "upstream_error"),
    (raw(b"nonsense\r\n\r\n"), 502, "server_error", "upstream_error"),
    (raw(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300000), 502, "server_error", "upstream_error"),
    (raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {\"error\":{\"message\":\"bad\",\"code\":400}}\n\n"),
     (400, 502), None, None),
    (raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: nonsense\n\n"), 502, "server_error", "upstream_error"),
    (raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: [DONE]\n\n"), 502, "server_error", "upstream_error"),
    (raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"), 502, "server_error", "upstream_error"),
    (raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nerror: {\"code\":500,\"message\":\"bad\",\"type\":\"server_error\"}\n\n"
         b"data: [DONE]\n\n"), 502, "server_error", "upstream_error"),
]


@BOTH
@KINDS
@pytest.mark.parametrize("case", range(len(REFUSALS)))
def test_runners_refusals(make_node, make_upstream, case, owned_by, is_stream):
    script, wanted, kind, code = REFUSALS[case]
    upstream = make_upstream(owned_by=owned_by)
    node = make_node(upstream)
    upstream.default = script
    got, error, headers = error_of(node, is_stream)
    assert got in (wanted if isinstance(wanted, tuple) else (wanted,)), error
    assert kind in (None, error["type"]) and code in (None, error["code"]), error
    assert "<html" not in error["message"] and error["message"]
    if got in (429, 503):
        assert int(headers["retry-after"]) >= 1
    if got == 502 and (code_of(script) >= 500 or code_of(script) == 200):
        assert headers["x-should-retry"] == "false", "the runner has begun: another try is another run"
    check_serves(node, upstream)


def test_retry_after_of_the_runner_is_passed_on(node, upstream):
    upstream.default = status(429, {"error": {"message": "slow down"}}, Retry_After="7")
    assert ask(node)[1]["retry-after"] == "7"


def test_a_runners_text_is_redacted_and_cut(make_node, upstream, tmp_path):
    """The key of the runner, and whatever follows a word such as authorization."""
    own, other = "own-canary-" + "Ab1" * 9, "other-canary-" + "Zx9" * 9
    key = tmp_path / "key"
    key.write_text(own + "\n")
    key.chmod(0o600)
    node = make_node(upstream.entry(models=["m"], api_key_file=str(key)), is_waiting=False)
    wait_until(lambda: b'"m"' in node.request("GET", "/v1/models")[2], slow(10), "the model")
    text = f"who sent {own}? Authorization: Bearer {other} " + "z" * 10000
    for reply in (status(400, {"error": {"message": text, "type": "invalid_request_error"}}), status(500, text.encode()),
                  stream(chunk({"content": "a"}), {"error": {"message": text}})):
        upstream.script(reply)
        error = ask(node)[2]
        assert own not in error["message"] and other not in error["message"] and "[redacted]" in error["message"]
        assert len(error["message"]) <= 2100
    assert upstream.wait_chat().headers["authorization"] == f"Bearer {own}"
    assert own not in node.whole_log() and other not in node.whole_log()


# ---- broken runners: in mid-stream ----

BREAKS = {
    "cut": cut(chunk({"content": "a"})),
    "reset": cut(chunk({"content": "a"}), is_reset=True),
    "half a chunk": raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
                        b"%x\r\n%s\r\n" % (len(event(chunk({"content": "a"}))), event(chunk({"content": "a"})).encode()), b"ff\r\ndata: {"),
    "no finish": stream(chunk({"content": "a"})),
    "done without finish": stream(chunk({"content": "a"}), "[DONE]"),
    "error object": stream(chunk({"content": "a"}), {"error": {"message": "bad", "type": "x", "code": 500}}, "[DONE]"),
    "error text": stream(chunk({"content": "a"}), {"error": "bad"}),
    "error field": stream(chunk({"content": "a"}), b'error: {"code":500,"message":"bad","type":"server_error"}\n\n', "[DONE]"),
    "error event": stream(chunk({"content": "a"}), b'event: error\ndata: {"message":"bad"}\n\n'),
    "nonsense": stream(chunk({"content": "a"}), "nonsense"),
    "html": stream(chunk({"content": "a"}), b"<html>bad</html>\n\n", "x"),
    "deep": stream(chunk({"content": "a"}), "[" * 5000),
    "endless line": then(stream(chunk({"content": "a"}), b"data: ", is_ended=False), endless(b"x" * 4096, head={})),
    "endless event": then(stream(chunk({"content": "a"}), is_ended=False), endless(b"data: x\n", head={})),
    "wrong length": raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n",
                        event(chunk({"content": "a"})).encode()),
    "bad chunk size": raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
                          b"%x\r\n%s\r\n" % (len(event(chunk({"content": "a"}))), event(chunk({"content": "a"})).encode()), b"zz\r\n"),
}


@pytest.mark.parametrize("how", BREAKS)
def test_streams_that_break_end_in_an_error(node, upstream, how):
    upstream.script(BREAKS[how])
    code, events = stream_of(node)
    assert code == 200 and text_of(events) == "a"
    error = events[-1]["error"]
    assert error["type"] and error["message"] and set(error) == {"message", "type", "param", "code"}
    assert "[DONE]" not in events, "an OpenAI stream ends with its error"
    assert not any(c["finish_reason"] for e in events[:-1] for c in e["choices"])
    upstream.chats[0].wait_ended(slow(5))
    check_serves(node)


@pytest.mark.parametrize("how", BREAKS)
def test_joined_streams_that_break_are_an_error(node, upstream, how):
    """A plain request never gets half an answer with 200."""
    upstream.script(BREAKS[how])
    code, headers, error = ask(node)
    assert code == 502 and error["type"] == "server_error" and headers["x-should-retry"] == "false"
    upstream.chats[0].wait_ended(slow(5))
    check_serves(node)


def test_endless_plain_answer(make_node, make_upstream):
    upstream = make_upstream(owned_by="vllm")
    node = make_node(upstream, is_stall_checked=False)
    upstream.script(endless(b"x" * 65536, head={"content_type": "application/json"}))
    code, _, error = ask(node)
    assert code == 502 and "over" in error["message"]
    upstream.chats[0].wait_closed(slow(5))
    check_serves(node)


def test_no_done_after_a_finish_is_a_good_end(node, upstream):
    upstream.script(stream(*words("a", is_done=False)))
    code, events = stream_of(node)
    assert text_of(events) == "a" and events[-1] == "[DONE]"


def test_done_ends_the_answer_though_the_runner_goes_on(node, upstream):
    upstream.script(then(stream(*words("a"), is_ended=False), silent))
    with Wire(node, slow(5)) as w:
        w.chat()
        assert w.head()[0] == 200 and list(w.events())[-1] == "[DONE]"
        w.chat(stream=False)
        assert w.answer()[0] == 200
    upstream.chats[0].wait_closed(slow(5))                     # and is not waited for without an end


# ---- stalls ----

@BOTH
@KINDS
def test_runner_that_never_answers(make_node, make_upstream, owned_by, is_stream):
    upstream = make_upstream(owned_by=owned_by)
    node = make_node(upstream, llm_first_byte_ms=200)
    upstream.script(silent)
    started = time.monotonic()
    code, error, headers = error_of(node, is_stream)
    assert code == 504 and error["code"] == "timeout" and headers["x-should-retry"] == "false"
    assert 0.19 < time.monotonic() - started < slow(2)
    upstream.chats[0].wait_closed(slow(2))
    check_serves(node)


def test_stream_that_stalls(make_node, upstream):
    node = make_node(upstream, llm_idle_ms=200)
    upstream.script(stall(chunk({"content": "a"})))
    code, events = stream_of(node)
    assert code == 200 and text_of(events) == "a" and events[-1]["error"]["message"]
    upstream.chats[0].wait_closed(slow(2))
    check_serves(node)


def test_joined_stream_that_stalls(make_node, upstream):
    node = make_node(upstream, llm_idle_ms=200)
    upstream.script(stall(chunk({"content": "a"})))
    code, _, error = ask(node)
    assert code in (502, 504) and error["type"] == "server_error"
    upstream.chats[0].wait_closed(slow(2))


def test_total_limit_of_an_upstream(make_node, upstream):
    node = make_node(upstream.entry(models=["m"], total_ms=300), is_waiting=False)
    gate = upstream.gate()
    upstream.script(then(stream(chunk({"content": "a"}), is_ended=False), silent))
    wait_until(lambda: b'"m"' in node.request("GET", "/v1/models")[2], slow(10), "the model")
    code, events = stream_of(node)
    assert code == 200 and "error" in events[-1]
    gate.open()


def test_slow_but_steady_streams_are_left_alone(make_node, upstream):
    """Silence is what counts, not the length of the whole."""
    node = make_node(upstream, llm_idle_ms=400, llm_first_byte_ms=300)
    gates = [upstream.gate() for _ in range(6)]
    parts = [p for g in gates for p in (chunk({"content": "a"}), g)]
    upstream.script(stream(*parts, *words("b")))
    started = time.monotonic()
    with Wire(node, slow(10)) as w:
        w.chat()
        assert w.head()[0] == 200
        events, seen = w.events(), []
        for n, g in enumerate(gates):
            while text_of(seen) != "a" * (n + 1):
                seen.append(next(events))
            wait_until(lambda n=n: time.monotonic() - started > 0.15 * (n + 1), slow(5), "some time")
            g.open()
        seen += list(events)
    assert text_of(seen) == "aaaaaab" and seen[-1] == "[DONE]"
    assert time.monotonic() - started > 0.8


# ---- runners that are not there ----

@BOTH
def test_vanished_runner(make_node, upstream, is_stream):
    node = make_node(upstream, inventory_refresh_ms=3600000)
    upstream.vanish()
    code, error, headers = error_of(node, is_stream)
    assert code == 502 and error["code"] == "upstream_error"
    assert "x-should-retry" not in headers, "nothing has run: another try costs nothing"
    upstream.listen()
    check_serves(node)


def test_unhealthy_runner(make_node, upstream):
    node = make_node(upstream, inventory_refresh_ms=200)
    upstream.vanish()

    def is_unhealthy():
        code, headers, error = ask(node)
        return code == 503 and error["code"] == "selected_agent_unhealthy" and int(headers["retry-after"]) >= 1
    wait_until(is_unhealthy, slow(10), "the runner to be seen as gone")
    upstream.listen()
    wait_until(lambda: ask(node)[0] == 200, slow(10), "the runner to be seen again")


def test_breaker_opens_and_closes(make_node, upstream):
    """A runner that fails several times in a row is left alone, then tried again."""
    node = make_node(upstream, inventory_refresh_ms=3600000)
    upstream.vanish()
    codes = [ask(node)[0] for _ in range(5)]
    assert codes[:3] == [502] * 3 and codes[3:] == [503] * 2
    upstream.listen()
    before = upstream.connections
    assert ask(node)[0] == 503 and upstream.connections == before
    wait_until(lambda: ask(node)[0] == 200, slow(10), "the breaker to close")
    assert [ask(node)[0] for _ in range(3)] == [200] * 3


def test_name_that_resolves_nowhere(make_node, upstream):
    """Others are served at once meanwhile."""
    node = make_node(upstream, {"name": "gone", "base_url": "http://no-such-host.invalid:9/v1", "models": ["x"]}, is_waiting=True)
    started = time.monotonic()
    for _ in range(5):
        assert ask(node)[0] == 200
    assert time.monotonic() - started < slow(1)
    code, _, error = ask(node, model="x")
    assert code in (502, 503) and error["type"] == "server_error"


def test_hostile_proxy_environment(make_node, upstream, make_upstream):
    """A prompt for 127.0.0.1 goes there and nowhere else."""
    proxy = make_upstream(name="proxy")
    url = f"http://127.0.0.1:{proxy.port}"
    node = make_node(upstream, env={name: url for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY")})
    for is_stream in (True, False):
        assert ask(node, stream=is_stream)[0] == 200 if not is_stream else stream_of(node)[0] == 200
    assert proxy.connections == 0 and len(upstream.chats) == 2


def test_redirects_are_not_followed(make_node, upstream, make_upstream):
    other = make_upstream(name="other")
    node = make_node(upstream)
    upstream.default = status(307, b"", location=f"http://127.0.0.1:{other.port}/v1/chat/completions")
    assert ask(node)[0] == 502
    assert other.connections == 0


def test_completion_of_a_plain_answer_with_a_wrong_shape_names_it(make_node, make_upstream):
    upstream = make_upstream(owned_by="vllm")
    node = make_node(upstream)
    for reply in ({"choices": [{"message": 5}]}, {"choices": {}}, {**completion(), "choices": [{"index": 0}]}):
        upstream.script(status(200, reply))
        assert ask(node)[0] in (200, 502)
    check_serves(node)


@pytest.mark.parametrize("code", [401, 403, 404])
def test_what_only_the_owner_can_mend_is_not_tried_again(node, upstream, code):
    upstream.script(status(code, "no"))
    answered, headers, _ = node.request("POST", CHAT, chat_body(), limit=slow(5))
    assert answered == 502 and {k.lower(): v for k, v in dict(headers).items()}["x-should-retry"] == "false"
    assert len(upstream.chats) == 1
