"""Who may call /v1: keys and what they are limited to, pages of other sites, tunnels, and TLS. What the list shows is in test_models.py."""
import json

import pytest
from conftest import slow, tls_config, trusting
from node import wait_until
from upstream import chunk, stall, stream, words
from wire import CHAT, Wire, chat_body


def add_key(node, name, *options):
    done = node.cli("keys", "add", name, *options, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def bearer(key):
    return {"authorization": f"Bearer {key['key']}"}


def chat(node, key=None, model="m", **headers):
    """(status, headers, error code or None)"""
    given = {**(bearer(key) if key else {}), **{k.replace("_", "-"): v for k, v in headers.items()}}
    code, head, body = node.request("POST", CHAT, chat_body(model), given, limit=slow(10))
    return code, head, json.loads(body).get("error", {}).get("code")


# ---- keys ----

def test_open_until_the_first_key_then_keyed(node, upstream):
    assert chat(node)[0] == 200
    assert chat(node, authorization="Bearer whatever")[0] == 200, "clients send any word, because their libraries insist on one"
    key = add_key(node, "laptop")
    code, headers, error = chat(node)
    assert (code, error) == (401, "invalid_api_key") and headers["www-authenticate"] == "Bearer"
    assert chat(node, authorization="Bearer whatever")[0] == 401
    assert chat(node, authorization=f"Bearer {key['key']}x")[0] == 401
    assert chat(node, authorization=f"Basic {key['key']}")[0] == 401
    assert chat(node, key)[0] == 200
    assert chat(node, authorization=key["key"])[0] == 200, "Bearer may be left out (direct-api.md 1.1)"
    assert chat(node, authorization=f"bearer   {key['key']}")[0] == 200
    # and it stays keyed when the last key has gone, until the owner says otherwise
    assert node.cli("keys", "revoke", key["id"]).returncode == 0
    assert chat(node, key)[0] == 401 and chat(node)[0] == 401
    assert node.cli("access", "open").returncode == 0
    assert chat(node)[0] == 200
    assert len(upstream.chats) == 6


def test_a_refused_chat_never_reaches_the_runner_nor_is_its_body_looked_at(node, upstream):
    add_key(node, "k")
    assert node.request("POST", CHAT, b"{" * 1000, {"content-type": "application/json"})[0] == 401
    assert not upstream.chats


def test_key_limited_to_models(make_node, make_upstream):
    node = make_node(make_upstream(models=["m", "other"]))
    key = add_key(node, "k", "--models", "m")
    assert chat(node, key)[0] == 200
    assert chat(node, key, "other")[::2] == (404, "model_not_found")
    assert chat(node, add_key(node, "all"), "other")[0] == 200


def test_key_with_requests_a_minute(node):
    key, other = add_key(node, "k", "--rpm", "3"), add_key(node, "other")
    assert [chat(node, key)[0] for _ in range(3)] == [200] * 3
    code, headers, error = chat(node, key)
    assert (code, error) == (429, "rate_limit_exceeded") and 1 <= int(headers["retry-after"]) <= 20
    assert node.request("GET", "/v1/models", headers=bearer(key))[0] == 429
    assert chat(node, other)[0] == 200


def test_key_with_requests_at_a_time(node, upstream):
    key, other = add_key(node, "k", "--concurrent", "2"), add_key(node, "other")
    upstream.script(stall(chunk({"content": "a"})), stall(chunk({"content": "a"})))
    wires = [Wire(node, slow(10)).chat(headers=bearer(key)) for _ in range(2)]
    for _ in wires:
        upstream.wait_chat(slow(10))
    code, headers, error = chat(node, key)
    assert (code, error) == (429, "rate_limit_exceeded") and int(headers["retry-after"]) >= 1
    assert chat(node, other)[0] == 200
    wires[0].close()
    wait_until(lambda: chat(node, key)[0] == 200, slow(5), "a free place of the key")
    wires[1].close()


def test_revoked_key_ends_new_requests_at_once_and_lets_a_stream_finish(node, upstream):
    key = add_key(node, "k")
    gate = upstream.gate()
    upstream.script(stream(chunk({"content": "a"}), gate, *words("b")))
    with Wire(node, slow(10)) as w:
        w.chat(headers=bearer(key))
        assert w.head()[0] == 200
        events = w.events()
        next(events)
        assert node.cli("keys", "revoke", "k").returncode == 0
        assert chat(node, key)[0] == 401
        gate.open()
        assert list(events)[-1] == "[DONE]"


def test_no_key_in_the_log(node):
    key = add_key(node, "k")
    chat(node, key)
    chat(node, authorization="Bearer msk_" + "x" * 40)
    wait_until(lambda: f"key={key['id']}" in node.log(), slow(5), "the key's id in the access log")
    assert key["key"] not in node.whole_log() and "x" * 40 not in node.whole_log()
    for path in node.state_dir.rglob("*"):
        assert not path.is_file() or key["key"].encode() not in path.read_bytes(), path


# ---- a tunnel or proxy in front ----

@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "Via", "X-Real-IP", "CF-Connecting-IP", "cf-ray",
                                  "x-forwarded-anything"])
def test_forwarded_requests_need_a_key(node, upstream, name):
    assert chat(node, **{name: "1.2.3.4"})[::2] == (403, "forwarded_denied")
    assert not upstream.chats
    key = add_key(node, "k")
    assert chat(node, key, **{name: "1.2.3.4"})[0] == 200
    assert node.request("GET", "/healthz", headers={name: "1.2.3.4"})[0] == 200


def test_public_direct_url_needs_a_key(make_node, upstream):
    node = make_node(upstream, env={"MSWARM_SELF_HOSTED_DIRECT_BASE_URL": "https://node.example.com"}, is_waiting=False)
    assert chat(node)[0] == 401 and chat(node, Host="node.example.com")[0] == 401
    assert chat(node, add_key(node, "k"), Host="node.example.com")[0] == 200


# ---- pages ----

@pytest.mark.parametrize("headers", [
    {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:1"}, {"Origin": "https://127.0.0.1"},
    {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example"}, {"Host": "10.0.0.1"},
    {"Origin": "file://"}, {"Origin": "http://127.0.0.1@evil.example"},
], ids=str)
def test_pages_of_others_are_kept_out_of_every_route(node, upstream, headers):
    for method, path, body in (("POST", CHAT, chat_body()), ("GET", "/v1/models", None), ("GET", "/", None), ("GET", "/healthz", None),
                               ("GET", "/readyz", None), ("POST", "/v1/swarm/self-hosted/node/jobs", {}), ("OPTIONS", CHAT, None)):
        code, head, _ = node.request(method, path, body, headers)
        assert code == 403, (method, path)
        assert "access-control-allow-origin" not in head
    assert not upstream.chats


def test_cors_preflight_and_call(make_node, upstream):
    node = make_node(upstream, cors_origins=["https://app.example"])
    origin = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}
    code, head, _ = node.request("OPTIONS", CHAT, headers={**origin, "Access-Control-Request-Method": "POST",
                                                           "Access-Control-Request-Headers": "authorization,content-type"})
    assert code == 204 and head["access-control-allow-origin"] == "https://app.example"
    assert "POST" in head["access-control-allow-methods"] and "authorization" in head["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in head
    for body in (chat_body(), chat_body(stream=True), b"{"):     # errors too, or a page cannot read them
        code, head, _ = node.request("POST", CHAT, body, {**origin, "content-type": "application/json"})
        assert head["access-control-allow-origin"] == "https://app.example" and "origin" in head["vary"].lower()
    assert node.request("OPTIONS", CHAT, headers={"Origin": "https://other.example"})[0] == 403
    assert node.request("POST", CHAT, chat_body(), {"Origin": "https://app.example.evil.example"})[0] == 403


def test_preflight_of_a_keyed_node_needs_no_key(make_node, upstream):
    node = make_node(upstream, cors_origins=["https://app.example"])
    key = add_key(node, "k")
    origin = {"Origin": "https://app.example"}
    assert node.request("OPTIONS", CHAT, headers={**origin, "Access-Control-Request-Method": "POST"})[0] == 204
    code, head, _ = node.request("POST", CHAT, chat_body(), origin)
    assert code == 401 and head["access-control-allow-origin"] == "https://app.example"
    assert node.request("POST", CHAT, chat_body(), {**origin, **bearer(key)})[0] == 200


# ---- TLS ----

@pytest.fixture
def tls_node(make_node, upstream, certificate):
    return make_node(upstream, is_waiting=False, **tls_config(certificate))


def test_tls(tls_node, upstream, certificate):
    for is_stream in (True, False):
        with Wire(tls_node, slow(10), tls=trusting(certificate)) as w:
            w.chat(stream=is_stream)
            code, _ = w.head()
            assert code == 200
            assert list(w.events())[-1] == "[DONE]" if is_stream else json.loads(w.body())["choices"]
            w.chat(stream=False)                               # the same connection
            assert w.answer()[0] == 200
    # plain HTTP on the same port is no way around it
    with Wire(tls_node, slow(10)) as w:
        w.chat()
        assert w.is_closed_by_node(slow(10))
    assert len(upstream.chats) == 4


def test_tls_large_answers_and_bodies(make_node, upstream, certificate):
    tls_node = make_node(upstream, is_waiting=False, is_stall_checked=False, **tls_config(certificate))
    upstream.script(stream(*words(*["x" * 4000] * 250)))
    with Wire(tls_node, slow(20), tls=trusting(certificate)) as w:
        w.chat(stream=False, messages=[{"role": "user", "content": "y" * 1000000}])
        code, _, body = w.answer()
        assert code == 200 and len(json.loads(body)["choices"][0]["message"]["content"]) == 1000000


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("is_stream", [True, False])
def test_tls_client_that_leaves_is_noticed(tls_node, upstream, certificate, is_stream, leave):
    upstream.script(stall(chunk({"content": "a"})))
    w = Wire(tls_node, slow(10), tls=trusting(certificate)).chat(stream=is_stream)
    request = upstream.wait_chat(slow(10))
    getattr(w, leave)()
    request.wait_closed(slow(2))


def test_tls_same_origin_is_https(tls_node, certificate):
    for origin, wanted in ((f"https://127.0.0.1:{tls_node.port}", 200), (f"http://127.0.0.1:{tls_node.port}", 403)):
        with Wire(tls_node, slow(10), tls=trusting(certificate)) as w:
            w.ask("GET", "/v1/models", headers={"Origin": origin})
            assert w.head()[0] == wanted


@pytest.mark.parametrize("settings", [{"tls_cert": "cert.pem"}, {"tls_cert": "key.pem", "tls_key": "cert.pem"},
                                      {"tls_cert": "none.pem", "tls_key": "key.pem"}], ids=str)
def test_tls_mistakes_stop_the_start(make_node, certificate, settings):
    from node import Node
    node = Node(config={k: str(certificate / v) for k, v in settings.items()})
    try:
        node.launch()
        assert node.wait(slow(10)) > 0
        assert "tls" in node.log().lower() or "certificate" in node.log() or "none.pem" in node.log()
    finally:
        node.close()
