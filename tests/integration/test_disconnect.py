"""A client that leaves stops its generation within 100 ms, in every phase; its slot is free afterwards.

The matrix: phase x stream or plain x how the client leaves. The runner's side of each is the fake's clock: when the
node closed the connection on which the model would have run.
"""
import json
import select
import socket
import time

import pytest
from conftest import local_requests, slow
from node import wait_until
from upstream import chunk, endless, held, silent, stall, stream, words
from wire import CHAT, Wire, chat_body

ABORT_S = 0.1
FILLER = chunk({"content": "x" * 2000})


async def head_only(x):
    await x.sse_head()
    await x.closed()


async def plain_half(x):
    """In the middle of a plain answer with a length."""
    await x.head(length=1000)
    await x.send(b'{"choices":[')
    await x.closed()


PHASES = {
    # name: (what the runner does, what the client has seen before it leaves)
    "no head": (silent, "nothing"),
    "no event": (head_only, "nothing"),
    "mid-stream": (stall(chunk({"content": "a"}), chunk({"content": "b"})), "text"),
    "streaming": (endless(b"data: " + json.dumps(FILLER).encode() + b"\n\n"), "text"),
    "plain": (plain_half, "nothing"),
}
LEAVES = {
    "close": lambda w: w.close(),
    "reset": lambda w: w.reset(),
    "half-close": lambda w: w.sock.shutdown(socket.SHUT_WR),   # counts as gone
}


def leave_at(request, node, wire, leave):
    """The client leaves; how long the node's connection to the runner outlived it."""
    left = time.monotonic()
    LEAVES[leave](wire)
    closed = request.wait_closed(slow(5))
    wire.close()
    return closed - left


def check_slot_is_free(node, upstream):
    """The only slot: a next chat runs at once."""
    code, _, body = node.request("POST", "/v1/chat/completions", chat_body(), limit=slow(10))
    assert code == 200, body


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("owned_by", ["llamacpp", "vllm"])
@pytest.mark.parametrize("phase", PHASES)
def test_client_leaves(make_node, make_upstream, phase, owned_by, is_stream, leave):
    if phase == "streaming" and not is_stream:
        pytest.skip("an endless answer is joined in test_errors")
    upstream = make_upstream(owned_by=owned_by)
    node = make_node(upstream, max_local_requests=1)
    script, seen = PHASES[phase]
    upstream.script(script)
    w = Wire(node, slow(10)).chat(stream=is_stream)
    request = upstream.wait_chat(slow(10))
    if is_stream and seen == "text":
        assert w.head()[0] == 200
        next(w.events())
    else:
        wait_until(lambda: not request.closed_mono and (request.sent or script is silent), slow(5), "the runner's first bytes")
    assert leave_at(request, node, w, leave) < slow(ABORT_S)
    check_slot_is_free(node, upstream)


@pytest.mark.parametrize("is_stream", [True, False])
def test_queued_client_leaves(make_node, upstream, is_stream):
    """It has no connection to the runner yet, and never gets one."""
    node = make_node(upstream, max_local_requests=1, max_queued_requests=1)
    gate = upstream.gate()
    upstream.script(held(gate))
    first = Wire(node, slow(10)).chat()
    upstream.wait_chat(slow(10))
    queued = Wire(node, slow(10)).chat(stream=is_stream)
    wait_until(lambda: local_requests(node)["queued"] == 1, slow(5), "one to wait")
    assert node.request("POST", "/v1/chat/completions", chat_body())[0] == 429, "the queue has one place"
    left = time.monotonic()
    queued.close()
    third = Wire(node, slow(10))
    wait_until(lambda: is_taken_in(third), slow(5), "a free place in the queue")
    assert time.monotonic() - left < slow(ABORT_S)
    gate.open()
    assert first.head()[0] == 200 and list(first.events())[-1] == "[DONE]"
    assert third.answer()[0] == 200
    assert len(upstream.chats) == 2, "the chat of a client that had left was run"
    for w in (first, third):
        w.close()


def is_taken_in(wire):
    """Ask for a chat; False when it was refused, True when it waits."""
    wire.chat(stream=False)
    readable, _, _ = select.select([wire.sock], [], [], slow(0.03))
    if readable:
        assert wire.answer()[0] == 429
    return not readable


def fill_up(port):
    """A listener on this port whose queue is full: connect() hangs there."""
    full = socket.socket()
    full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    full.bind(("127.0.0.1", port))
    full.listen(0)
    sockets = [full]
    for _ in range(3):                                         # the kernel takes one or two; then nobody comes in
        sockets.append(socket.socket())
        sockets[-1].setblocking(False)
        sockets[-1].connect_ex(("127.0.0.1", port))
    return sockets


@pytest.mark.parametrize("is_stream", [True, False])
def test_client_leaves_while_connecting(make_node, make_upstream, is_stream):
    lab, hangs = make_upstream(), make_upstream(models=["hangs"], name="full", owned_by="vllm")
    node = make_node(lab, hangs, max_local_requests=1, llm_connect_ms=60000, inventory_refresh_ms=3600000)
    hangs.vanish()
    sockets = fill_up(hangs.port)
    w = Wire(node, slow(10)).chat(model="hangs", stream=is_stream)
    # with one slot in all, another chat waits for as long as that one lives
    wait_until(lambda: local_requests(node)["running"] == 1, slow(5), "the slot to be taken")
    other = Wire(node, slow(10)).chat(stream=False)
    wait_until(lambda: local_requests(node)["queued"] == 1, slow(5), "the other to wait")
    left = time.monotonic()
    w.close()
    lab.wait_chat(slow(5))
    assert time.monotonic() - left < slow(ABORT_S)
    assert other.answer()[0] == 200
    for s in (*sockets, other):
        s.close()


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_client_leaves_in_back_pressure(make_node, upstream, leave):
    """The client reads nothing, the node no longer reads from the runner: the close is noticed all the same."""
    node = make_node(upstream, max_local_requests=1)
    upstream.script(endless(b"data: " + json.dumps(FILLER).encode() + b"\n\n"))
    w = Wire(node, slow(10), receive_buffer=4096).chat()
    request = upstream.wait_chat(slow(10))
    sent = [-1]

    def is_stuck():
        was, sent[0] = sent[0], request.sent
        return request.sent > 0 and was == sent[0]
    for _ in range(5):                                         # the same count five times, 10 ms apart and more
        wait_until(is_stuck, slow(10), "the runner's send to block")
    assert leave_at(request, node, w, leave) < slow(ABORT_S)
    check_slot_is_free(node, upstream)


def test_client_leaves_while_its_body_is_parsed(make_node, upstream):
    """A large body is on its way through the pool."""
    node = make_node(upstream, max_local_requests=1, is_stall_checked=False)
    for _ in range(10):
        w = Wire(node, slow(10)).chat(messages=[{"role": "user", "content": "y" * (2 << 20)}])
        w.reset()
    check_slot_is_free(node, upstream)
    for request in upstream.chats:
        request.wait_ended(slow(5))


def test_clients_that_leave_in_a_crowd(make_node, upstream):
    """Many leave at once; all their slots come back."""
    node = make_node(upstream, max_local_requests=40, max_upstream_requests=40, is_stall_checked=False)
    upstream.default = stall(chunk({"content": "a"}))
    wires = [Wire(node, slow(20)).chat() for _ in range(40)]
    requests = [upstream.wait_chat(slow(10)) for _ in wires]
    left = time.monotonic()
    for w in wires:
        w.close()
    assert max(r.wait_closed(slow(5)) for r in requests) - left < slow(ABORT_S + 0.1)
    upstream.default = stream(*words("ok"))
    wires = [Wire(node, slow(20)).chat() for _ in range(40)]
    for w in wires:
        assert w.head()[0] == 200 and list(w.events())[-1] == "[DONE]"
        w.close()


def test_a_client_that_has_all_leaves_a_good_mark(make_node, upstream):
    """A client that closes right after [DONE] is no abort for the runner."""
    node = make_node(upstream)
    for _ in range(5):
        with Wire(node, slow(10)) as w:
            w.chat()
            assert w.head()[0] == 200
            for e in w.events():
                if e == "[DONE]":
                    break
        upstream.wait_chat().wait_answered(slow(5))


def connections_of(node):
    """Connections of clients that the node holds open."""
    with open("/proc/net/tcp", encoding="ascii") as f:
        rows = [line.split() for line in f.readlines()[1:]]
    return sum(int(r[1].split(":")[1], 16) == node.port and r[3] != "0A" and r[9] != "0" for r in rows)


@pytest.mark.parametrize("leave", ["mid-stream", "in the body"])
def test_sockets_of_clients_that_left_are_closed_behind_an_older_connection(make_node, upstream, leave):
    """libmicrohttpd looks only at the oldest of its connections for those that were closed by an error."""
    node = make_node(upstream, max_local_requests=100, max_upstream_requests=100)
    upstream.default = stall(chunk({"content": "a"}))
    wait_until(lambda: not connections_of(node), slow(5), "those of the start to be closed")
    old = [Wire(node, slow(10)) for _ in range(4)]            # some on every loop
    for w in old:
        w.ask("GET", "/healthz")
        assert w.answer()[0] == 200
    before = len(old)
    wires = [Wire(node, slow(10)) for _ in range(40)]
    for w in wires:
        if leave == "mid-stream":
            w.chat()
        else:
            w.send(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n".encode() + b"x" * 2000)
    if leave == "mid-stream":
        for w in wires:
            assert w.head()[0] == 200
    wait_until(lambda: connections_of(node) >= before + 40, slow(5), "all to be connected")
    for w in wires:
        w.close()
    wait_until(lambda: connections_of(node) <= before, slow(3), "their sockets to be closed")
    for w in old:
        w.ask("GET", "/healthz")
        assert w.answer()[0] == 200
        w.close()


BEFORE = {
    # what a client says before it leaves; None: an answer is due first
    "nothing": b"",
    "half a line": b"GET /heal",
    "half a head": b"GET /healthz HTTP/1.1\r\nHost: loc",
}


@pytest.mark.parametrize("leave", ["close", "half-close"])
@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize("before", BEFORE)
def test_a_connection_without_a_request_ends_with_its_client(make_node, upstream, before, is_kept, leave):
    """At once, not at the limits for idle connections and heads."""
    node = make_node(upstream)
    wires = [Wire(node, slow(10)) for _ in range(20)]
    for w in wires:
        if is_kept:
            w.ask("GET", "/healthz")
            assert w.answer()[0] == 200
        w.send(BEFORE[before])
    wait_until(lambda: connections_of(node) == 20, slow(5), "all to be connected")
    for w in wires:
        LEAVES[leave](w)
    wait_until(lambda: connections_of(node) == 0, slow(1), "them to be closed")
    for w in wires:
        w.close()


def test_a_request_is_answered_though_its_client_has_said_all(make_node, upstream):
    """Request and end in one go; the answer comes whole, and the connection is not kept for http_idle_ms."""
    node = make_node(upstream)
    for _ in range(300):
        w = Wire(node, slow(10))
        w.ask("GET", "/v1/models")
        w.sock.shutdown(socket.SHUT_WR)
        status, _, body = w.answer()
        assert status == 200 and json.loads(body)["object"] == "list"
        assert w.is_closed_by_node(slow(2))
        w.close()
    wait_until(lambda: connections_of(node) == 0, slow(1), "them to be closed")


def test_pipelined_requests_are_answered_though_their_client_has_said_all(make_node, upstream):
    node = make_node(upstream)
    for _ in range(50):
        with Wire(node, slow(10)) as w:
            w.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
            w.sock.shutdown(socket.SHUT_WR)
            for _ in range(3):
                assert w.answer()[0] == 200
            assert w.is_closed_by_node(slow(2))


def test_the_head_of_a_later_request_has_its_limit(make_node, upstream):
    node = make_node(upstream, http_header_ms=200, http_idle_ms=60000)
    with Wire(node, slow(10)) as w:
        w.ask("GET", "/healthz")
        assert w.answer()[0] == 200
        w.send(b"GET /healthz HTTP/1.1\r\nHost: loc")
        assert w.head()[0] == 408
        assert w.is_closed_by_node(slow(5))
