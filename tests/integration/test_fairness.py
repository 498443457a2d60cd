"""Many want a few slots: the queue is bounded and fair, and who is refused is told when to come again."""
import json

import pytest
from conftest import local_requests, slow
from node import wait_until
from test_access import add_key, bearer
from upstream import answer, chunk, held, stall
from wire import CHAT, Wire, chat_body




def test_queue_full_is_429_with_retry_after(make_node, upstream):
    node = make_node(upstream, max_local_requests=2, max_queued_requests=3)
    upstream.default = stall(chunk({"content": "a"}))
    wires = [Wire(node, slow(10)).chat() for _ in range(2)]
    for _ in wires:
        upstream.wait_chat(slow(10))
    waiting = []

    def is_full():
        w = Wire(node, slow(0.1)).chat()
        try:
            code, headers = w.head()
        except TimeoutError:
            waiting.append(w)                                  # it waits in the queue
            return False
        assert code == 429 and int(headers["retry-after"]) >= 1
        error = json.loads(w.body())["error"]
        assert error["type"] == "rate_limit_error" and error["code"] == "rate_limit_exceeded"
        w.close()
        return True
    wait_until(is_full, slow(10), "a full queue")
    assert len(waiting) == 3
    assert len(upstream.chats) == 2
    for w in wires + waiting:
        w.close()


def test_no_queue_at_all(make_node, upstream):
    node = make_node(upstream, max_local_requests=1, max_queued_requests=0)
    upstream.script(stall())
    with Wire(node, slow(10)) as w:
        w.chat()
        upstream.wait_chat(slow(10))
        assert node.request("POST", CHAT, chat_body())[0] == 429
        assert node.request("GET", "/healthz")[0] == 200 and node.request("GET", "/v1/models")[0] == 200
    wait_until(lambda: node.request("POST", CHAT, chat_body())[0] == 200, slow(5), "the slot")


def test_a_flood_of_one_key_does_not_starve_another(make_node, upstream):
    """One slot, one key has 40 requests waiting: the other's come every second time. One loop, so that age is order of sending."""
    node = make_node(upstream, max_local_requests=1, loops=1)
    flood, modest = add_key(node, "flood"), add_key(node, "modest")
    gates = [upstream.gate() for _ in range(50)]
    upstream.script(*[held(g, answer("x")) for g in gates])
    wires = []
    for n in range(40):
        wires.append(Wire(node, slow(30)).chat(stream=False, headers=bearer(flood), messages=[{"role": "user", "content": f"flood {n}"}]))
    upstream.wait_chat(slow(10))
    for n in range(5):
        wires.append(Wire(node, slow(30)).chat(stream=False, headers=bearer(modest), messages=[{"role": "user", "content": f"modest {n}"}]))
    wait_until(lambda: local_requests(node)["queued"] == 44, slow(10), "all to wait")
    order = [upstream.chats[0].json["messages"][0]["content"]]
    for n in range(16):
        gates[n].open()
        order.append(upstream.wait_chat(slow(10)).json["messages"][0]["content"])
    places = [n for n, text in enumerate(order) if text.startswith("modest")]
    assert len(places) == 5 and places[-1] <= 11, order
    assert [order[n] for n in places] == [f"modest {n}" for n in range(5)], "by age within a client"
    floods = [text for text in order if text.startswith("flood")]
    assert floods[1:] == sorted(floods[1:], key=lambda t: int(t.split()[1])), "by age within a client"
    for w in wires:
        w.close()


def decided(node):
    """Requests that were not just accepted: they run, wait or were refused."""
    got = json.loads(node.cli("node", "status", "--json").stdout)["running"]["requests"]
    return got["local"]["running"] + got["local"]["queued"] + got["refused"]


def test_a_queue_full_of_one_key_still_has_room_for_another(make_node, upstream):
    node = make_node(upstream, max_local_requests=1, max_queued_requests=64)
    flood, modest = add_key(node, "flood"), add_key(node, "modest")
    gate = upstream.gate()
    upstream.script(held(gate))
    wires = [Wire(node, slow(30)).chat(stream=False, headers=bearer(flood)) for _ in range(90)]
    upstream.wait_chat(slow(10))
    wait_until(lambda: decided(node) == 90, slow(10), "the flood to be queued or refused")
    assert node.request("POST", CHAT, chat_body(), bearer(flood), limit=slow(5))[0] == 429
    with Wire(node, slow(30)) as w:
        w.chat(stream=False, headers=bearer(modest))
        wait_until(lambda: local_requests(node)["queued"] >= 62, slow(10), "the queue")
        gate.open()
        assert w.answer()[0] == 200, "no place was kept for another"
    for w in wires:
        w.close()


def test_an_upstream_that_is_full_does_not_hold_up_another(make_node, make_upstream):
    a, b = make_upstream(name="one"), make_upstream(name="two", models=["free"])
    node = make_node({**a.entry(), "max_concurrent": 1}, b, is_waiting=False)
    a.default = stall(chunk({"content": "a"}))
    wait_until(lambda: all(m in node.request("GET", "/v1/models")[2] for m in (b'"m"', b'"free"')), slow(10), "both models")
    wires = [Wire(node, slow(10)).chat() for _ in range(5)]
    a.wait_chat(slow(10))
    assert node.request("POST", CHAT, chat_body("free"), limit=slow(5))[0] == 200
    assert len(a.chats) == 1
    for w in wires:
        w.close()


@pytest.mark.parametrize("is_stream", [True, False])
def test_queued_chats_run_in_their_order_and_end_well(make_node, upstream, is_stream):
    node = make_node(upstream, max_local_requests=2)
    wires = [Wire(node, slow(30)).chat(stream=is_stream) for _ in range(30)]
    for w in wires:
        assert w.head()[0] == 200
        assert b"".join(iter(w.piece, b""))
        w.close()
    assert len(upstream.chats) == 30
