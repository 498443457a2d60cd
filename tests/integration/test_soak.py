"""Many clients that do all they should and should not, at random, against a runner of the same kind; afterwards nothing
of them is left: no descriptor, no slot, no growing memory. MSWARM_FULL=1: 200 clients for 40 seconds.

What each client does is drawn from a seed of its own; the seed of the run stands in the output of a test that failed.
"""
import os
import random
import signal
import socket
import ssl
import threading
import time

import pytest
from conftest import local_requests, slow, tls_config, trusting
from node import is_sanitized, wait_until
from test_backpressure import memory_of
from test_disconnect import connections_of
from test_node_job import ENV, PATH as JOBS, job, shared, token
from upstream import answer, chunk, cut, endless, silent, stall, status, stream, words
from wire import CHAT, Closed, Wire, chat_body

IS_FULL = bool(os.environ.get("MSWARM_FULL"))
CLIENTS, SECONDS = (200, 40) if IS_FULL else (40, 4)
PIECE = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % (b"y" * 3000)
# Short limits, so that what only they end ends within the test.
LIMITS = {"keep_alive_ms": 50, "http_write_ms": 1500, "http_body_ms": 1000, "http_header_ms": 1000, "max_local_requests": 24}


async def choose(x):
    scripts = [answer("a", "b"), stream(*words(*"some words of an answer".split())), answer(*["x" * 4096] * 200), endless(PIECE),
               silent, stall(chunk({"content": "a"})), cut(chunk({"content": "a"})), cut(is_reset=True),
               status(503, {"error": {"message": "busy"}}), status(500, b"no")]
    await random.choice(scripts)(x)


def request_bytes(r, node):
    """One request, or more, maybe broken off."""
    body = chat_body(stream=r.random() < 0.7)
    path, auth = CHAT, {}
    kind = r.random()
    if kind < 0.05:
        body["messages"][0]["content"] = "z" * r.choice([70_000, 400_000, 2_000_000])
    elif kind < 0.10:
        body = b'{"model": "m", "messages": ['
    elif kind < 0.25:
        path, body, auth = JOBS, job(stream=r.random() < 0.5), {"authorization": f"Bearer {token()}"}
    wire = Recorder(node)
    wire.post(path, body, {**auth, **({"connection": "close"} if r.random() < 0.2 else {})})
    one = wire.data
    if kind > 0.9:
        return one[:r.randrange(len(one))]
    if kind > 0.8:
        return one + b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n" + one[:r.randrange(len(one))]
    return one


class Recorder(Wire):
    """A wire that only writes down."""

    def __init__(self, node):  # pylint: disable=super-init-not-called
        self.node, self.data = node, b""

    def send(self, data):
        self.data += data

    def close(self):
        pass


def visit(r, node, tls):
    """Connect, ask, read for a while or do nothing, leave in one of the ways there are."""
    w = Wire(node, 3, receive_buffer=r.choice([None, 4096, 16384]), tls=tls)
    try:
        data = request_bytes(r, node)
        at = r.randrange(len(data) + 1) if r.random() < 0.3 else len(data)
        w.send(data[:at])
        w.send(data[at:])
        if r.random() < 0.1 and not tls:
            w.sock.shutdown(socket.SHUT_WR)
        end = time.monotonic() + r.expovariate(4)
        w.sock.settimeout(0.2)
        while time.monotonic() < end:
            try:
                if r.random() < 0.1 or not w.sock.recv(r.choice([1, 100, 4096, 65536])):
                    break
            except TimeoutError:
                pass
        if r.random() < 0.4:
            w.reset()
    except (OSError, Closed, ssl.SSLError):
        pass
    finally:
        w.close()


class Crowd:
    """Clients in threads; stop() waits for all of them."""

    def __init__(self, node, count, tls=None):
        self.node, self.tls, self.visits, self.is_over = node, tls, 0, threading.Event()
        self.seed = random.randrange(1 << 30)
        print("seed", self.seed)
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(count)]
        for t in self.threads:
            t.start()

    def run(self, number):
        r = random.Random(self.seed + number)
        while not self.is_over.is_set():
            try:
                visit(r, self.node, self.tls)
            except ConnectionError:
                self.is_over.wait(0.05)       # no room, or the node is gone
            self.visits += 1

    def last(self, seconds):
        self.is_over.wait(seconds)

    def stop(self):
        self.is_over.set()
        for t in self.threads:
            t.join(slow(20))
            assert not t.is_alive(), "a client hangs"


@pytest.fixture
def make_crowd():
    """make_crowd(node, count): a Crowd that goes home when the test fails."""
    made = []

    def make_one(*args, **kw):
        made.append(Crowd(*args, **kw))
        return made[-1]
    yield make_one
    for crowd in made:
        crowd.is_over.set()


def check_nothing_is_left(node):
    def is_free():
        counts = local_requests(node)
        return counts["running"] == 0 and counts["queued"] == 0
    wait_until(is_free, slow(5), "all slots to be free")
    wait_until(lambda: connections_of(node) == 0, slow(5), "the clients' connections to be closed")


def descriptors_of(node):
    return len(os.listdir(f"/proc/{node.pid}/fd"))


needs_noise = {"is_stall_checked": False}     # two processors for a crowd of Python threads, the runner and the node


def make(make_node, upstream, **more):
    upstream.default = choose
    return make_node(shared(upstream), env=ENV, is_waiting=False, **needs_noise, **LIMITS, **more)


@pytest.mark.parametrize("drains", [False, True])
def test_soak(make_node, make_crowd, upstream, drains):
    node = make(make_node, upstream)
    before, descriptors, resident = memory_of(node), descriptors_of(node), []
    for _ in range(2):
        crowd = make_crowd(node, CLIENTS)
        for _ in range(4):
            crowd.last(SECONDS / 8)
            if drains:
                node.cli("drain", "all", limit=slow(10))
                node.cli("drain", "off", limit=slow(10))
        crowd.stop()
        check_nothing_is_left(node)
        wait_until(lambda: descriptors_of(node) < descriptors + 64, slow(5), "descriptors")   # 64: kept to the runner
        assert crowd.visits > CLIENTS
        resident.append(memory_of(node))
    print("visits", crowd.visits, "resident MB", [n >> 20 for n in resident])
    if not is_sanitized():                    # memory is given back some seconds after the load
        wait_until(lambda: memory_of(node) < before + (24 << 20), 12, f"memory to be given back to {before >> 20} MB")
    assert any(b'"role":' in a.body for a in upstream.chats), "no chat reached the runner"
    upstream.default = answer("well")
    # a runner that failed often enough in the end is asked again after a while
    wait_until(lambda: node.request("POST", CHAT, chat_body(), limit=slow(10))[0] == 200, slow(10), "a chat as ever")


def test_soak_tls(make_node, make_crowd, upstream, certificate):
    upstream.default = choose
    node = make_node(shared(upstream), env=ENV, is_waiting=False, **needs_noise, **LIMITS, **tls_config(certificate))
    crowd = make_crowd(node, CLIENTS // 2, tls=trusting(certificate))
    crowd.last(SECONDS / 2)
    crowd.stop()
    check_nothing_is_left(node)
    assert crowd.visits > CLIENTS // 2


def test_stop_in_the_middle(make_node, make_crowd, upstream):
    """SIGTERM: a good end within its grace, whatever the clients do."""
    node = make(make_node, upstream, stop_grace_ms=1000)
    crowd = make_crowd(node, CLIENTS)
    crowd.last(SECONDS / 4)
    node.signal(signal.SIGTERM)
    began = time.monotonic()
    assert node.wait(slow(20)) == 0
    assert time.monotonic() - began < slow(1 + 3)
    crowd.stop()
    node.check_log()
