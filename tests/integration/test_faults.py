"""The world fails: a full disk under the store, a name server that never answers."""
import json
import time

from conftest import config_for, is_listed, keep_full, slow, stop
from node import Node, wait_until
from upstream import answer
from wire import CHAT, chat_body



def test_full_disk_refuses_writes_and_serves_the_rest(upstream, small_disk):
    """Chats and reads go on, a write is refused and says why, and it heals without hands."""
    state = small_disk / "state"
    state.mkdir(mode=0o700)
    (state / "config.json").write_text(json.dumps(config_for(upstream)))
    quiet = {"MSWARM_SELF_HOSTED_NODE_STATE_PATH": str(state / "config.json"), "MSWARM_MCODA_SOURCE": "0", "MSWARM_OLLAMA_SOURCE": "0",
             "MSWARM_DISCOVERY_SOURCE": "0"}
    node = Node(env=quiet)
    upstream.default = answer("x")
    try:
        node.start(limit=slow(20))
        wait_until(lambda: is_listed(node, "m"), slow(10), "the model")
        key = json.loads(node.cli("keys", "add", "before", "--json").stdout)["key"]
        bearer = {"Authorization": f"Bearer {key}"}
        with keep_full(small_disk / "fill"):
            fitted = []                     # as many as the log file has room for that it had taken before
            while (refused := node.cli("keys", "add", f"during{len(fitted)}")).returncode == 0 and len(fitted) < 100:
                fitted.append(f"during{len(fitted)}")
            assert refused.returncode == 1 and "disk" in refused.stderr and "msk_" not in refused.stdout
            for _ in range(3):
                assert node.request("POST", CHAT, chat_body(), bearer, limit=slow(5))[0] == 200
                assert node.request("GET", "/v1/models", headers=bearer)[0] == 200
            code, _, body = node.request("GET", "/healthz")
            assert code == 503 and "disk_full" in json.loads(body)["reason"]
        wait_until(lambda: node.cli("keys", "add", "after").returncode == 0, slow(20), "the store to heal")
        assert node.request("GET", "/healthz")[0] == 200
        names = [k["name"] for k in json.loads(node.cli("keys", "list", "--json").stdout)["keys"]]
        assert names == ["before", *fitted, "after"], "what was refused is not there, what was acknowledged is"
        stop(node)
    finally:
        node.close()


def test_a_name_server_that_hangs_holds_nobody_else(make_node, upstream, preload):
    upstream.default = answer("x")
    lost = {"name": "lost", "base_url": "http://hang.example:8000/v1", "models": ["gone"]}
    node = make_node(upstream, lost, env={"LD_PRELOAD": preload("hang_lookup")}, llm_connect_ms=500, probe_timeout_ms=500)
    for _ in range(10):
        started = time.monotonic()
        assert node.request("POST", CHAT, chat_body(), limit=slow(5))[0] == 200
        assert time.monotonic() - started < slow(1)
    started = time.monotonic()
    code, _, body = node.request("POST", CHAT, chat_body(model="gone"), limit=slow(10))
    assert code in (502, 503, 504) and json.loads(body)["error"]["message"]
    assert time.monotonic() - started < slow(3)
    started = time.monotonic()
    stop(node)
    assert time.monotonic() - started < slow(5), "a look-up in flight must not hold the stop"
    node.start(env={"LD_PRELOAD": preload("hang_lookup")})
