"""A client that reads slowly slows its own runner, costs a bounded amount of memory, and hinders nobody."""
import json
import os
import time

from conftest import slow
from node import is_sanitized, wait_until
from upstream import answer, chunk, endless
from wire import Wire, chat_body, text_of

PIECE = b"data: " + json.dumps(chunk({"content": "x" * 4000})).encode() + b"\n\n"
# Of one stuck stream: mostly what the kernel takes for two senders (4 MiB each by its default tcp_wmem) and two receivers.
# How much of that it uses is its own affair; what the node itself holds is measured by its memory, below.
IN_FLIGHT_MAX = 16 << 20


def memory_of(node):
    """Resident bytes of the node's process."""
    with open(f"/proc/{node.pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def wait_stuck(requests, limit):
    """Until no runner got a byte off for some turns of the wait."""
    last, same = [None], [0]

    def is_stuck():
        now = [r.sent for r in requests]
        same[0] = same[0] + 1 if now == last[0] and all(now) else 0
        last[0] = now
        return same[0] >= 10
    wait_until(is_stuck, limit, "the runners' sends to block")


def test_runner_blocks_when_the_client_does_not_read(make_node, upstream):
    node = make_node(upstream, is_stall_checked=False)
    upstream.script(endless(PIECE))
    with Wire(node, slow(10), receive_buffer=4096) as w:
        w.chat()
        request = upstream.wait_chat(slow(10))
        wait_stuck([request], slow(20))
        assert request.sent < IN_FLIGHT_MAX
        # it reads again: all goes on, nothing is lost, doubled or out of order
        stuck = request.sent
        assert w.head()[0] == 200
        seen = 0
        for e in w.events():
            seen += len(text_of([e]))
            if seen > 2 * stuck:
                break
        assert seen % 4000 == 0 and request.sent > stuck


def test_memory_stays_bounded_and_others_are_served(make_node, upstream):
    node = make_node(upstream, max_local_requests=40, max_upstream_requests=40, is_stall_checked=False)
    assert node.request("POST", "/v1/chat/completions", chat_body())[0] == 200
    before = memory_of(node)
    upstream.script(*[endless(PIECE)] * 20)
    wires = [Wire(node, slow(10), receive_buffer=4096).chat() for _ in range(20)]
    upstream.wait_chat()
    requests = [upstream.wait_chat(slow(10)) for _ in wires]
    wait_stuck(requests, slow(30))
    if not is_sanitized():
        assert memory_of(node) - before < 20 * (1 << 20), "memory of stuck streams"
    for _ in range(10):
        asked = time.monotonic()
        with Wire(node, slow(10)) as w:
            w.chat()
            assert w.head()[0] == 200 and list(w.events())[-1] == "[DONE]"
        assert time.monotonic() - asked < slow(1)
    for w in wires:
        w.close()
    for r in requests:
        r.wait_closed(slow(5))


def test_a_slow_reader_gets_all(make_node, upstream):
    """Byte counts as they were sent, through a window of 4 KB."""
    node = make_node(upstream)
    texts = [f"{n:08d}" * 500 for n in range(200)]

    async def script(x):
        await x.sse_head()
        for t in texts:
            await x.event(chunk({"content": t}))
        await x.event(chunk({}, "stop"))
        await x.event("[DONE]")
        await x.end()
    upstream.script(script)
    with Wire(node, slow(10), receive_buffer=4096) as w:
        w.chat()
        wait_stuck([upstream.wait_chat(slow(10))], slow(10))
        assert w.head()[0] == 200
        events = list(w.events())
    assert text_of(events) == "".join(texts) and events[-1] == "[DONE]"


def test_a_client_that_reads_nothing_is_closed_in_the_end(make_node, upstream):
    node = make_node(upstream, http_write_ms=300)
    upstream.script(endless(PIECE))
    with Wire(node, slow(10), receive_buffer=4096) as w:
        w.chat()
        upstream.wait_chat(slow(10)).wait_closed(slow(10))


def test_a_pipelined_second_request_waits_its_turn(node, upstream):
    """Bytes that come while an answer runs are the next request, not a hang-up."""
    gate = upstream.gate()

    async def script(x):
        await x.sse_head()
        await x.event(chunk({"content": "a"}))
        await gate.wait()
        await x.event(chunk({}, "stop"))
        await x.event("[DONE]")
        await x.end()
    upstream.script(script)
    with Wire(node, slow(10)) as w:
        w.chat()
        w.ask("GET", "/healthz")
        assert w.head()[0] == 200
        events = w.events()
        next(events)
        gate.open()
        assert list(events)[-1] == "[DONE]"
        assert w.answer()[0] == 200


def cpu_seconds(node):
    with open(f"/proc/{node.pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_stuck_client_costs_no_processor_time(make_node, upstream):
    """The keep-alive of a stream whose client does not read waits its time, too."""
    node = make_node(upstream, keep_alive_ms=50, is_stall_checked=False)
    upstream.script(endless(PIECE))
    with Wire(node, slow(10), receive_buffer=4096) as w:
        w.chat()
        request = upstream.wait_chat(slow(10))
        wait_stuck([request], slow(20))
        begun, used = time.monotonic(), cpu_seconds(node)
        wait_until(lambda: time.monotonic() - begun > 1, 5, "a second")
        assert cpu_seconds(node) - used < 0.3


def test_a_large_answer_may_take_longer_than_the_write_limit(make_node, upstream):
    """http_write_ms is for a client that takes nothing, not for one that is slow."""
    node = make_node(upstream, http_write_ms=1000, is_stall_checked=False)
    upstream.script(answer(*["x" * 4000] * 3000))
    with Wire(node, slow(10)) as w:
        w.chat(stream=False)
        assert w.head()[0] == 200
        begun, size = time.monotonic(), 0
        while data := w.piece():
            size += len(data)
            wait_until(lambda: (time.monotonic() - begun) * (4 << 20) > size, slow(10), "the pace of the reader")
        assert size > 12000000 and time.monotonic() - begun > 2
