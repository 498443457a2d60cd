"""POST /v1/chat/completions: what a good chat looks like, plain and streamed, and what the runner gets to see."""
import http.client
import json

import pytest
from conftest import slow
from node import wait_until
from upstream import answer, bytes_in, chunk, completion, event, held, refuses_tool_streams, stall, status, stream, usage, words
from wire import CHAT, Wire, chat_body, text_of


def ask(node, **members):
    return node.request("POST", CHAT, chat_body(**members), limit=slow(10))


def stream_of(node, **members):
    with Wire(node, slow(10)) as w:
        w.chat(**members)
        code, headers = w.head()
        assert code == 200, w.body()
        return list(w.events()), headers


# ---- the happy paths ----

def test_stream(node, upstream):
    events, headers = stream_of(node, model="m")
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-request-id"].startswith("req_")
    assert events[-1] == "[DONE]"
    chunks = events[:-1]
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert {(c["id"], c["created"], c["model"]) for c in chunks} == {("chatcmpl-fake", 1700000000, "m")}
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [c for c in chunks if "role" in c["choices"][0]["delta"]] == chunks[:1]
    assert text_of(chunks) == "Hello"
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert not any(c.get("usage") for c in chunks), "usage was not asked for"


@pytest.mark.parametrize("owned_by", ["llamacpp", "vllm", "somebody"])
def test_plain(make_node, make_upstream, owned_by):
    up = make_upstream(owned_by=owned_by)
    node = make_node(up)
    code, headers, body = ask(node)
    reply = json.loads(body)
    assert code == 200
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert headers["x-request-id"].startswith("req_")
    assert reply["object"] == "chat.completion" and reply["model"] == "m" and reply["id"]
    assert reply["choices"][0]["message"]["content"] == "Hello" and reply["choices"][0]["message"]["role"] == "assistant"
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"]["prompt_tokens"] == 3 and reply["usage"]["total_tokens"] == 5
    # llama.cpp does not notice a plain client that left: it is asked for a stream and joined
    assert up.wait_chat().is_stream == (owned_by == "llamacpp")


def test_request_ids_differ(node):
    ids = {ask(node)[1]["x-request-id"] for _ in range(3)} | {node.request("GET", "/nothing")[1]["x-request-id"]}
    assert len(ids) == 4


@pytest.mark.parametrize("is_stream", [True, False])
def test_name_is_spliced(node, upstream, is_stream):
    if is_stream:
        chunks = stream_of(node, model="lab/m")[0][:-1]
        assert {c["model"] for c in chunks} == {"lab/m"}
    else:
        assert json.loads(ask(node, model="lab/m")[2])["model"] == "lab/m"
    assert upstream.wait_chat().json["model"] == "m"


def test_unknown_model_names_do_not_reach_the_text(node, upstream):
    """Only the model member is replaced, not its likeness in the text."""
    upstream.script(stream(*words('"model":"m"', '\\"model\\":\\"m\\"')))
    events, _ = stream_of(node, model="lab/m")
    assert text_of(events) == '"model":"m"\\"model\\":\\"m\\"'


def test_members_are_forwarded_byte_equal(node, upstream):
    seed, odd = 2**60, b'{"b": 1.50, "a":[1e2,  "\\u00e9\xc3\xa9"]}'
    body = b'{"model":"lab/m","seed":%d,"x_odd":%s,"messages":[{"content":"a \\u0041 \xf0\x9f\x98\x80","role":"user","z":0.10}],' \
           b'"temperature":0.70,"stop":["a","b"],"user":"me","store":true}' % (seed, odd)
    assert node.request("POST", CHAT, body, {"content-type": "application/json"})[0] == 200
    sent = upstream.wait_chat().body
    assert b'"seed":%d' % seed in sent and json.loads(sent)["seed"] == seed
    assert b'"x_odd":' + odd in sent
    assert b'{"content":"a \\u0041 \xf0\x9f\x98\x80","role":"user","z":0.10}' in sent
    assert b'"temperature":0.70' in sent
    assert b'"user":"me"' not in sent and b'"store"' not in sent
    assert json.loads(sent)["model"] == "m"


@pytest.mark.parametrize("members, limit", [({"max_tokens": 7}, 7), ({"max_completion_tokens": 5, "max_tokens": 7}, 5), ({}, None)])
def test_max_tokens(node, upstream, members, limit):
    ask(node, **members)
    sent = upstream.wait_chat().json
    assert sent.get("max_tokens") == limit and "max_completion_tokens" not in sent


def test_owners_cap(make_node, upstream):
    node = make_node(upstream, max_output_tokens=10)
    for asked, sent in ((None, 10), (5, 5), (50, 10)):
        ask(node, **({"max_tokens": asked} if asked else {}))
        assert upstream.wait_chat().json["max_tokens"] == sent


# ---- usage ----

@pytest.mark.parametrize("is_wanted", [True, False])
def test_usage_is_always_asked_for_and_passed_on_when_wanted(node, upstream, is_wanted):
    members = {"stream_options": {"include_usage": True}} if is_wanted else {}
    chunks = stream_of(node, **members)[0][:-1]
    assert upstream.wait_chat().json["stream_options"]["include_usage"] is True
    if is_wanted:
        assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] == 5
        assert all(c["usage"] is None for c in chunks[:-1])
    else:
        assert all(c["choices"] and not c.get("usage") for c in chunks)


def test_usage_in_a_chunk_of_its_own(node, upstream):
    upstream.script(stream(chunk({"role": "assistant", "content": "a"}), chunk({}, "stop"),
                           {**chunk(), "choices": [], "usage": usage(1, 1)}, "[DONE]"))
    chunks = stream_of(node, stream_options={"include_usage": True})[0][:-1]
    assert [len(c["choices"]) for c in chunks].count(0) == 1
    assert chunks[-1]["usage"]["total_tokens"] == 2


# ---- how bytes come apart ----

GOOD = b"".join(event(e).encode() for e in words("Gr\u00fc\u00dfe ", "\U0001f600", " \u4f60\u597d"))
GOOD_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 4096, 1 << 20])
def test_any_cut_of_the_bytes_gives_the_same_stream(node, upstream, size):
    upstream.script(bytes_in(GOOD_HEAD + GOOD, size))
    events, _ = stream_of(node)
    assert text_of(events) == "Gr\u00fc\u00dfe \U0001f600 \u4f60\u597d" and events[-1] == "[DONE]"


def test_chunked_a_byte_at_a_time(node, upstream):
    body = b"".join(b"1\r\n%c\r\n" % b for b in GOOD) + b"0\r\n\r\n"
    upstream.script(bytes_in(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + body, 3))
    assert text_of(stream_of(node)[0]) == "Gr\u00fc\u00dfe \U0001f600 \u4f60\u597d"


@pytest.mark.parametrize("change", [
    lambda b: b.replace(b"\n", b"\r\n"),
    lambda b: b.replace(b"data: ", b"data:"),
    lambda b: b": hello\n\n" + b.replace(b"\n\n", b"\n\n: ping\n\n"),
    lambda b: b.replace(b"data: ", b"id: 1\nretry: 10\nevent: message\ndata: "),
    lambda b: b[:-1],                                          # the last line end is missing
    lambda b: b.replace(b"data: [DONE]\n\n", b""),             # a finish_reason was said: good enough
    lambda b: b + b"data: after the end\n\n",
])
def test_dialects_of_sse(node, upstream, change):
    upstream.script(bytes_in(GOOD_HEAD + change(GOOD), 1 << 20))
    events, _ = stream_of(node)
    assert text_of(events) == "Gr\u00fc\u00dfe \U0001f600 \u4f60\u597d" and events[-1] == "[DONE]" and events.count("[DONE]") == 1


def test_chunks_pass_as_they_come(node, upstream):
    gates = [upstream.gate() for _ in range(3)]
    upstream.script(stream(chunk({"content": "a"}), gates[0], chunk({"content": "b"}), gates[1], chunk({"content": "c"}), gates[2],
                           chunk({}, "stop"), "[DONE]"))
    with Wire(node, slow(5)) as w:
        w.chat()
        assert w.head()[0] == 200
        seen, events = "", w.events()
        for gate, wanted in zip(gates, ("a", "ab", "abc")):
            while seen != wanted:                              # nothing but what was let through can come
                seen += text_of([next(events)])
            gate.open()
        assert list(events)[-1] == "[DONE]"


# ---- joined replies ----

def test_joined_reply(node, upstream):
    """A plain request to llama.cpp is asked for as a stream and joined."""
    upstream.script(stream(*words("a", "b\n\"", "\u00e9", finish="length")))
    code, headers, body = ask(node, model="lab/m")
    reply = json.loads(body)
    assert code == 200 and headers["content-type"] == "application/json; charset=utf-8"
    assert upstream.wait_chat().json["stream_options"] == {"include_usage": True}
    assert reply["choices"][0]["message"]["content"] == "ab\n\"\u00e9" and reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"] == reply["usage"] | {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert reply["object"] == "chat.completion" and reply["model"] == "lab/m"


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}


@pytest.mark.parametrize("is_stream", [True, False])
def test_tools_with_stream_refused_by_the_runner(node, upstream, is_stream):
    upstream.default = refuses_tool_streams
    for n in range(2):
        if is_stream:
            events, _ = stream_of(node, tools=[TOOL])
            deltas = [c["delta"] for e in events[:-1] for c in e["choices"]]
            calls = [t for d in deltas for t in d.get("tool_calls", [])]
            assert calls[0]["index"] == 0 and calls[0]["type"] == "function" and calls[0]["function"]["name"] == "look"
            assert "".join(t["function"].get("arguments", "") for t in calls) == '{"a":1}'
            assert events[-2]["choices"][0]["finish_reason"] == "tool_calls"
        else:
            reply = json.loads(ask(node, tools=[TOOL])[2])
            calls = reply["choices"][0]["message"]["tool_calls"]
            assert calls[0]["function"] == {"name": "look", "arguments": '{"a":1}'}
            assert reply["choices"][0]["finish_reason"] == "tool_calls"
        assert calls[0]["id"].startswith("call_")
    # refused once, remembered then
    assert [c.is_stream for c in upstream.chats] == [True, False, False]


def test_tool_calls_in_a_stream(node, upstream):
    def call(**members):
        return chunk({"tool_calls": [members]})
    upstream.script(stream(chunk({"role": "assistant", "content": None}),
                           call(index=0, id="call_1", type="function", function={"name": "look", "arguments": ""}),
                           call(index=0, function={"arguments": '{"a"'}), call(index=0, function={"arguments": ":1}"}),
                           chunk({}, "tool_calls"), "[DONE]"))
    events, _ = stream_of(node, tools=[TOOL])
    calls = [t for e in events[:-1] for c in e["choices"] for t in c["delta"].get("tool_calls", [])]
    assert calls[0]["id"] == "call_1" and {t["index"] for t in calls} == {0}
    assert "".join(t["function"].get("arguments", "") for t in calls) == '{"a":1}'


# ---- several runners with one model ----

def two(make_upstream, make_node, first=None, second=None, **members):
    a, b = make_upstream(name="one", owned_by="vllm"), make_upstream(name="two", owned_by="vllm")
    node = make_node({**a.entry(models=["m"]), **(first or {})}, {**b.entry(models=["m"]), **(second or {})}, is_waiting=False, **members)
    wait_until(lambda: b'"m"' in node.request("GET", "/v1/models")[2], slow(10), "the model in the list")
    return node, a, b


def test_failover_on_a_refused_connection(make_upstream, make_node):
    node, a, b = two(make_upstream, make_node, inventory_refresh_ms=3600000)
    a.vanish()
    for is_stream in (True, False):
        code, _, body = ask(node, stream=is_stream)
        assert code == 200 and b"Hel" in body
    assert len(b.chats) == 2 and not a.chats


def test_failover_on_503(make_upstream, make_node):
    node, a, b = two(make_upstream, make_node)
    a.default = status(503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}})
    assert ask(node)[0] == 200
    assert len(a.chats) == 1 and len(b.chats) == 1


def test_failover_when_the_runner_closes_without_a_byte(make_upstream, make_node):
    node, a, b = two(make_upstream, make_node)

    async def nothing(x):
        x.cut()
    a.default = nothing
    assert ask(node, stream=True)[0] == 200
    assert len(b.chats) == 1


def test_no_failover_after_the_first_byte(make_upstream, make_node):
    node, a, b = two(make_upstream, make_node)

    async def half(x):
        await stream(chunk({"content": "half"}), is_ended=False)(x)
        await x.turn()
        x.cut()
    a.default = half
    events, _ = stream_of(node)
    assert text_of(events) == "half" and "error" in events[-1]
    assert not b.chats, "a second run for one request"


def test_least_loaded_is_chosen(make_upstream, make_node):
    node, a, b = two(make_upstream, make_node)
    a.default = b.default = stall(chunk({"content": "x"}))
    wires = []
    for n in range(6):
        wires.append(Wire(node, slow(10)).chat())
        (a if n % 2 == 0 else b).wait_chat(slow(10))
    assert (len(a.chats), len(b.chats)) == (3, 3)
    for w in wires:
        w.close()


def test_bound_of_an_upstream_moves_the_rest(make_upstream, make_node):
    node, a, b = two(make_upstream, make_node, first={"max_concurrent": 1}, second={"max_concurrent": 3})
    a.default = b.default = stall()
    wires = [Wire(node, slow(10)).chat() for _ in range(4)]
    for up, count in ((a, 1), (b, 3)):
        for _ in range(count):
            up.wait_chat(slow(10))
    assert (len(a.chats), len(b.chats)) == (1, 3)
    for w in wires:
        w.close()


# ---- the status line, and silence ----

def test_status_line_waits_for_the_runner(node, upstream):
    """A refusal of the runner is a status, also for a stream."""
    upstream.script(status(400, {"error": {"code": 400, "message": "no such template", "type": "invalid_request_error"}}))
    code, _, body = ask(node, stream=True)
    assert code == 400 and json.loads(body)["error"]["message"] == "no such template"
    assert json.loads(body)["error"]["code"] is None


def test_status_line_is_held_no_longer_than_the_limit(make_node, upstream):
    node = make_node(upstream, status_hold_ms=100)
    gate = upstream.gate()
    upstream.script(held(gate, status(500, {"error": {"message": "out of memory"}})))
    with Wire(node, slow(10)) as w:
        w.chat()
        assert w.head()[0] == 200                              # the runner has not said a word
        gate.open()
        events = list(w.events())
    assert w.comments and len(events) == 1                     # and its failure travels inside
    assert events[0]["error"]["type"] == "server_error" and "out of memory" in events[0]["error"]["message"]


def test_keep_alive_comments(make_node, upstream):
    node = make_node(upstream, status_hold_ms=50, keep_alive_ms=60)
    gates = [upstream.gate(), upstream.gate()]
    upstream.script(held(gates[0], stream(chunk({"content": "a"}), gates[1], *words("b"))))
    with Wire(node, slow(10)) as w:
        w.chat()
        assert w.head()[0] == 200
        pieces = [w.piece() for _ in range(3)]                 # before the runner's head
        assert all(p.startswith(b": ") and p.endswith(b"\n\n") for p in pieces)
        gates[0].open()
        events = w.events()
        seen = []
        while text_of(seen) != "a":
            seen.append(next(events))
        before = len(w.comments)
        pieces = [w.piece() for _ in range(2)]                 # in mid-stream
        assert all(p == b": keep-alive\n\n" for p in pieces), before
        gates[1].open()
        assert list(events)[-1] == "[DONE]"


# ---- one connection, many requests ----

ROUTES = [
    ("GET", "/", None), ("GET", "/healthz", None), ("GET", "/readyz", None), ("GET", "/v1/models", None), ("GET", "/v1/models/m", None),
    ("POST", CHAT, chat_body()), ("POST", CHAT, chat_body(stream=True)), ("POST", CHAT, b"{"), ("GET", "/nothing", None),
    ("POST", "/v1/swarm/self-hosted/node/jobs", {"a": 1}), ("GET", CHAT, None),
]


@pytest.mark.parametrize("method, path, body", ROUTES)
def test_100_requests_over_one_connection(node, method, path, body):
    connection = http.client.HTTPConnection(node.host, node.port, timeout=slow(10))
    first = None
    for _ in range(100):
        data = json.dumps(body) if isinstance(body, dict) else body
        connection.request(method, path, data, {"content-type": "application/json"} if body else {})
        if first is None:
            first = connection.sock
        reply = connection.getresponse()
        reply.read()
        assert connection.sock is first, "the connection was closed between requests"
        assert reply.status < 500
    connection.close()


def test_head_requests(node):
    connection = http.client.HTTPConnection(node.host, node.port, timeout=slow(10))
    for path in ("/healthz", "/v1/models", "/"):
        connection.request("HEAD", path)
        reply = connection.getresponse()
        assert reply.read() == b"" and reply.status == 200, path
    connection.close()


def test_expect_100_continue(node):
    body = json.dumps(chat_body())
    with Wire(node, slow(10)) as w:
        w.send(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
               "Expect: 100-continue\r\n\r\n")
        while b"\r\n\r\n" not in w.buffer:
            w._more()
        assert w.buffer.startswith(b"HTTP/1.1 100")
        w.send(body)
        assert w.answer()[0] == 200


def test_chunked_request(node):
    body = json.dumps(chat_body()).encode()
    with Wire(node, slow(10)) as w:
        pieces = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 7]), body[i:i + 7]) for i in range(0, len(body), 7)) + b"0\r\n\r\n"
        w.post(CHAT, pieces, {"Transfer-Encoding": "chunked"})
        assert w.answer()[0] == 200


def test_a_large_chat(make_node, upstream):
    """Beyond the size that is parsed on the pool."""
    node = make_node(upstream, is_stall_checked=False)
    text = "x" * (5 << 20)
    code, _, body = node.request("POST", CHAT, chat_body(messages=[{"role": "user", "content": text}]), limit=slow(20))
    assert code == 200, body
    assert upstream.wait_chat().json["messages"][0]["content"] == text


def test_models(node):
    code, _, body = node.request("GET", "/v1/models")
    listed = json.loads(body)
    assert code == 200 and listed["object"] == "list"
    assert listed["data"] == [{"id": "m", "object": "model", "created": 1700000000, "owned_by": "local"}]
    assert json.loads(node.request("GET", "/v1/models/m")[2]) == listed["data"][0]
    assert json.loads(node.request("GET", "/v1/models/x%2Fy")[2])["error"]["code"] == "model_not_found"


def test_models_whose_name_holds_a_slash(make_node, make_upstream):
    node = make_node(make_upstream(models=["org/m"]))
    for path in ("/v1/models/org/m", "/v1/models/org%2Fm"):
        assert json.loads(node.request("GET", path)[2])["id"] == "org/m"
    assert json.loads(ask(node, model="org/m")[2])["model"] == "org/m"


def test_ollama(make_node, make_upstream):
    up = make_upstream(models=["tiny:1b"], owned_by="library")
    node = make_node(up, is_waiting=False, env={"MSWARM_OLLAMA_SOURCE": "1", "MSWARM_UPSTREAMS_SOURCE": "0",
                                                "MSWARM_SELF_HOSTED_OLLAMA_BASE_URL": f"http://127.0.0.1:{up.port}"})
    wait_until(lambda: b'"tiny:1b"' in node.request("GET", "/v1/models")[2], slow(10), "Ollama's model in the list")
    assert text_of(stream_of(node, model="tiny:1b")[0]) == "Hello"
    assert json.loads(ask(node, model="tiny:1b")[2])["choices"][0]["message"]["content"] == "Hello"
    assert all(c.target == "/v1/chat/completions" for c in up.chats)


def test_a_chat_before_the_first_inventory_waits_for_it(make_node, upstream):
    gate = upstream.gate()
    listing = upstream.models_script

    async def late(x):
        await gate.wait()
        upstream.models_script = listing
        await x.reply({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "llamacpp"}]})
    upstream.models_script = late
    node = make_node(upstream, is_waiting=False)
    with Wire(node, slow(10)) as w:
        w.chat()
        upstream.wait_list()
        gate.open()
        assert w.head()[0] == 200 and list(w.events())[-1] == "[DONE]"


def test_access_log_names_key_and_model_never_the_text(node):
    ask(node, messages=[{"role": "user", "content": "canary-text-93"}])
    wait_until(lambda: "model=m" in node.log(), slow(5), "a line of the access log")
    assert "canary-text-93" not in node.whole_log()


def test_plain_answer_as_the_runner_said_it(make_node, make_upstream):
    up = make_upstream(owned_by="vllm")
    node = make_node(up)
    up.script(status(200, {**completion("ok", refusal=None), "timings": {"predicted_n": 1}}))
    reply = json.loads(ask(node)[2])
    assert reply["timings"] == {"predicted_n": 1} and reply["choices"][0]["message"]["content"] == "ok"


def test_a_plain_answer_to_a_stream_becomes_one(node, upstream):
    upstream.script(status(200, completion("whole")))
    events, _ = stream_of(node, stream_options={"include_usage": True})
    assert text_of(events) == "whole" and events[-1] == "[DONE]" and events[-2]["usage"]["total_tokens"] == 5


def test_many_streams_at_once(make_node, upstream):
    node = make_node(upstream, max_local_requests=64, max_upstream_requests=64, is_stall_checked=False)
    gate = upstream.gate()
    upstream.default = stream(chunk({"content": "a"}), gate, *words(*["b"] * 50))
    wires = [Wire(node, slow(20)).chat() for _ in range(50)]
    for _ in wires:
        upstream.wait_chat(slow(10))
    gate.open()
    for w in wires:
        assert w.head()[0] == 200
        events = list(w.events())
        assert text_of(events) == "a" + "b" * 50 and events[-1] == "[DONE]"
        w.close()


def test_answers_keep_apart(node, upstream):
    """Each client gets its own runner's answer, whatever order they end in."""
    gates = [upstream.gate() for _ in range(4)]
    upstream.script(*[held(g, answer(f"text{n}")) for n, g in enumerate(gates)])
    wires = []
    for _ in gates:
        wires.append(Wire(node, slow(10)).chat())
        upstream.wait_chat()
    for n in (2, 0, 3, 1):
        gates[n].open()
        assert wires[n].head()[0] == 200
        assert text_of(wires[n].events()) == f"text{n}"
        wires[n].close()


def test_usage_is_counted_and_survives_a_restart(make_node, upstream):
    """Requests, tokens and errors by agent and key; what was written is there after a restart."""
    node = make_node(upstream)
    upstream.script(stream(chunk({"content": "a"}), chunk({}, "stop", usage=usage(7, 2)), "[DONE]"))
    assert node.request("POST", CHAT, chat_body(), limit=slow(5))[0] == 200

    def rows():
        return [u for u in json.loads(node.cli("node", "status", "--json").stdout)["running"]["usage"] if u["requests"]]
    wait_until(rows, slow(5), "the sums to be written")
    before = rows()
    assert [(u["agent"], u["requests"], u["errors"], u["prompt_tokens"], u["completion_tokens"]) for u in before] == [("m", 1, 0, 7, 2)]
    assert sum(before[0]["latency"]) == 1
    node.stop()
    node.start()
    assert rows() == before
