"""Thousands of idle connections: the node still answers, and each costs little. MSWARM_FULL=1: ten thousand."""
import json
import os
import pathlib
import re
import resource
import socket
import time

import pytest
from conftest import slow
from node import is_sanitized, wait_until
from test_backpressure import memory_of
from upstream import chunk, stream, words
from wire import CHAT, Wire, chat_body, text_of

IDLE = 10000 if os.environ.get("MSWARM_FULL") else 2000
BYTES_PER_IDLE = 48 * 1024
BYTES_PER_STREAM = 96 * 1024


@pytest.fixture
def many_files():
    """This process needs as many descriptors as the node."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IDLE + 1000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"at most {hard} open files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def idle_count(node):
    """As many as wanted, or as this machine's limit of open files lets the node take."""
    lowered = re.search(r"limit.lowered max_connections=(\d+)", node.log())
    return min(IDLE, int(lowered[1]) - 100) if lowered else IDLE


def connect(node, count):
    out = []
    for _ in range(count):
        s = socket.socket()
        s.settimeout(slow(10))
        s.connect((node.host, node.port))
        out.append(s)
    return out


def cpu_of(node):
    fields = pathlib.Path(f"/proc/{node.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check_answers(node):
    started = time.monotonic()
    assert node.request("GET", "/healthz", limit=slow(10))[0] == 200
    assert node.request("POST", CHAT, chat_body(), limit=slow(10))[0] == 200
    assert time.monotonic() - started < slow(1)


def test_idle_connections(many_files, make_node, upstream):
    node = make_node(upstream, is_stall_checked=False)
    check_answers(node)
    before = memory_of(node)
    count = idle_count(node)
    sockets = connect(node, count)
    check_answers(node)
    for s in sockets[::2]:                                     # half of them have asked once
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for s in sockets[::2]:
        assert s.recv(65536).startswith(b"HTTP/1.1 200")
    check_answers(node)
    if not is_sanitized():
        assert memory_of(node) - before < count * BYTES_PER_IDLE
    started = time.monotonic()
    for s in sockets:
        s.close()
    check_answers(node)
    wait_until(lambda: len(os.listdir(f"/proc/{node.pid}/fd")) < 100, slow(10), "the node to close them")
    assert time.monotonic() - started < slow(10)


def test_many_waiting_streams(many_files, make_node, upstream):
    """Streams that wait for their runner's next word; all of them get it."""
    count = 300 if IDLE == 2000 else 1000
    node = make_node(upstream, max_local_requests=count + 10, max_upstream_requests=count + 10, is_stall_checked=False)
    check_answers(node)
    upstream.wait_chat()
    before = memory_of(node)
    gate = upstream.gate()
    upstream.default = stream(chunk({"content": "a"}), gate, *words("b"))
    wires = [Wire(node, slow(30)).chat() for _ in range(count)]
    for _ in wires:
        upstream.wait_chat(slow(10))
    for w in wires:
        assert w.head()[0] == 200
    if not is_sanitized():
        assert memory_of(node) - before < count * BYTES_PER_STREAM
    upstream.script(stream(*words("x")))
    check_answers(node)
    gate.open()
    for w in wires:
        events = list(w.events())
        assert text_of(events) == "ab" and events[-1] == "[DONE]"
        w.close()


def test_connections_over_the_limit_get_503(make_node, upstream):
    node = make_node(upstream, max_connections=40)
    sockets = connect(node, 40)
    wait_until(lambda: node.request("GET", "/v1/models", limit=slow(5))[0] == 503, slow(10), "the limit")
    for s in sockets[:10]:
        s.close()
    wait_until(lambda: node.request("POST", CHAT, chat_body(), limit=slow(5))[0] == 200, slow(10), "room again")
    for s in sockets:
        s.close()


def loops_of(node):
    return json.loads(node.cli("node", "status", "--json").stdout)["running"]["loops"]


def test_a_burst_of_connections_is_spread_over_the_loops(make_node, upstream):
    """Whoever accepts: each goes to the loop with the fewest, also when others left one loop alone."""
    node = make_node(upstream, loops=3)
    wait_until(lambda: sum(v["connections"] for v in loops_of(node)) == 0, slow(10), "the first clients to be gone")
    sockets = connect(node, 90)
    wait_until(lambda: sum(v["connections"] for v in loops_of(node)) == 90, slow(10), "the connections")
    counts = [v["connections"] for v in loops_of(node)]
    assert max(counts) - min(counts) <= 12, counts             # two loops may choose the same third at once
    for s in sockets:                                          # and each is served where it is
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for s in sockets:
        assert s.recv(65536).startswith(b"HTTP/1.1 200")
        s.close()
    wait_until(lambda: sum(v["connections"] for v in loops_of(node)) == 0, slow(10), "their end")


def test_far_more_connections_than_the_limit(make_node, upstream):
    """64 are told so, the others wait until there is room; nobody is dropped."""
    node = make_node(upstream, max_connections=40)
    sockets = connect(node, 300)
    wait_until(lambda: sum(v["connections"] for v in loops_of(node)) >= 104, slow(10), "as many as it takes")
    for s in sockets:
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    statuses = []
    for s in sockets:
        s.settimeout(slow(20))
        statuses.append(s.recv(65536)[:12])
        s.close()
    assert set(statuses) <= {b"HTTP/1.1 200", b"HTTP/1.1 503"} and b"HTTP/1.1 200" in statuses, statuses


def test_the_table_of_descriptors_is_there_from_the_start(make_node, upstream):
    """A table that grows while threads run puts whoever opens the next descriptor to sleep, for 10 to 30 ms."""
    def size():
        return int(re.search(r"FDSize:\s+(\d+)", pathlib.Path(f"/proc/{node.pid}/status").read_text())[1])

    node = make_node(upstream, max_connections=300)
    before = size()
    assert before >= 600                                       # one for the client and one for the runner
    sockets = connect(node, 290)
    check_answers(node)
    assert size() == before
    for s in sockets:
        s.close()


def test_no_descriptor_for_a_connection(make_node, upstream):
    """Said once, no loop spins, and those that wait are served when there are descriptors again."""
    node = make_node(upstream, is_stall_checked=False)
    soft, hard = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{node.pid}/fd"))
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (used + 4, hard))
    sockets = connect(node, 20)
    wait_until(lambda: "http.not_accepting" in node.log(), slow(10), "the refusal")
    before = cpu_of(node)
    time.sleep(1)                                              # lint: wait_until; what it does meanwhile is the question
    assert cpu_of(node) - before < slow(0.3)
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (soft, hard))
    for s in sockets:
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for s in sockets:
        assert s.recv(65536).startswith(b"HTTP/1.1 200")
        s.close()
    assert node.log().count("http.not_accepting") == 1


def test_idle_connections_end_after_their_time(make_node, upstream):
    node = make_node(upstream, http_idle_ms=200)
    with Wire(node, slow(10)) as w:
        w.ask("GET", "/healthz")
        assert w.answer()[0] == 200
        assert w.is_closed_by_node(slow(5))


def test_connections_that_come_and_go(make_node, upstream):
    """No descriptor, slot or memory is left behind by a thousand short ones of all kinds."""
    node = make_node(upstream, is_stall_checked=False)
    check_answers(node)

    def round_of(count):
        for n in range(count):
            with Wire(node, slow(10)) as w:
                if n % 5 == 1:
                    w.send(b"GET /v1/mod")
                elif n % 5 == 2:
                    w.ask("GET", "/v1/models").answer()
                elif n % 5 == 3:
                    w.chat()
                elif n % 5 == 4:
                    w.chat(stream=False).answer()
                w.reset()
    round_of(200)
    wait_until(lambda: len(os.listdir(f"/proc/{node.pid}/fd")) < 100, slow(10), "descriptors to be closed")
    before = memory_of(node)
    round_of(800)
    wait_until(lambda: len(os.listdir(f"/proc/{node.pid}/fd")) < 100, slow(10), "descriptors to be closed")
    if not is_sanitized():
        assert memory_of(node) - before < 8 << 20
    check_answers(node)
