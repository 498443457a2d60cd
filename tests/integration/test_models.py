"""GET /v1/models, /v1/models/{id}, the page at /, /healthz, /readyz, and who may see them."""
import json
import re
import urllib.parse

import pytest

from conftest import is_listed, slow
from node import wait_until


def get(node, path, **headers):
    status, head, body = node.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    return status, head, json.loads(body)


def error(code, message, param=None, kind="invalid_request_error"):
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def missing(model):
    return error("model_not_found", f"The model `{model}` does not exist or you do not have access to it.", "model")


def test_list_and_retrieve(make_node, make_upstream):
    up = make_upstream(models=["plain", "org/deep/model:7b"])
    node = make_node(up)
    status, head, listed = get(node, "/v1/models")
    assert status == 200 and listed["object"] == "list"
    assert head["content-type"] == "application/json; charset=utf-8" and head["x-request-id"].startswith("req_")
    assert {m["id"] for m in listed["data"]} >= {"plain", "org/deep/model:7b"}
    for m in listed["data"]:
        assert set(m) == {"id", "object", "created", "owned_by"} and m["object"] == "model" and m["owned_by"] == "local"
        assert isinstance(m["created"], int)
        for path in (urllib.parse.quote(m["id"]), urllib.parse.quote(m["id"], safe="")):
            assert get(node, "/v1/models/" + path)[::2] == (200, m)
    for name in ("nobody", "org/deep", "plain/x"):
        assert get(node, "/v1/models/" + name)[::2] == (404, missing(name))
    assert get(node, "/v1/models")[2] == listed


def test_list_follows_the_runner(make_node, make_upstream):
    up = make_upstream(models=["first"])
    node = make_node(up, env={"MSWARM_INVENTORY_REFRESH_MS": "100"})
    up.models = ["second"]
    wait_until(lambda: is_listed(node, "second") and not is_listed(node, "first"), slow(10), "the new list")


def test_wrong_methods_and_paths(node):
    assert get(node, "/v1/nothing")[::2] == (404, error(None, "Invalid URL (GET /v1/nothing)"))
    status, _, body = node.request("POST", "/v1/models", {})
    assert status == 405 and json.loads(body)["error"]["code"] is None
    status, head, body = node.request("HEAD", "/v1/models")
    assert (status, body) == (200, b"") and int(head["content-length"]) > 20


@pytest.mark.parametrize("headers, code", [
    ({"host": "evil.example"}, "host_denied"), ({"host": "evil.example:18083"}, "host_denied"),
    ({"origin": "https://evil.example"}, "origin_denied"), ({"origin": "null"}, "origin_denied"),
    ({"sec_fetch_site": "cross-site"}, "origin_denied"), ({"x_forwarded_for": "1.2.3.4"}, "forwarded_denied"),
    ({"forwarded": "for=1.2.3.4"}, "forwarded_denied"), ({"via": "1.1 x"}, "forwarded_denied"),
    ({"x_real_ip": "1.2.3.4"}, "forwarded_denied"), ({"cf_ray": "x"}, "forwarded_denied"),
])
def test_who_is_kept_out(node, headers, code):
    status, _, body = get(node, "/v1/models", **headers)
    assert status == 403 and body["error"]["code"] == code
    if code != "forwarded_denied":  # that one is about keys, not about the route
        assert get(node, "/healthz", **headers)[0] == 403


def test_allowed_hosts_and_origins(make_node, upstream):
    node = make_node(upstream, allowed_hosts=["node.lan"], cors_origins=["https://app.example"])
    assert get(node, "/v1/models", host="node.lan:1234")[0] == 200
    status, head, _ = get(node, "/v1/models", origin="https://app.example", sec_fetch_site="cross-site")
    assert status == 200 and head["access-control-allow-origin"] == "https://app.example" and head["vary"] == "origin"
    status, head, _ = get(node, "/v1/models", origin="https://other.example")
    assert status == 403 and "access-control-allow-origin" not in head
    status, head, _ = node.request("OPTIONS", "/v1/chat/completions", headers={"origin": "https://app.example"})
    assert status == 204 and "authorization" in head["access-control-allow-headers"]


def test_same_origin_page_may_call(node):
    assert get(node, "/v1/models", origin=node.url, sec_fetch_site="same-origin")[0] == 200


def test_key_limits(make_node, make_upstream):
    node = make_node(make_upstream(models=["a", "b"]))
    made = node.cli("keys", "add", "limited", "--models", "a", "--rpm", "4", "--json")
    assert made.returncode == 0, made.stderr
    key = re.search(r"msk_[0-9A-Za-z]{40}", made.stdout)[0]
    auth = {"authorization": f"Bearer {key}"}
    assert get(node, "/v1/models")[0] == 401
    status, head, body = get(node, "/v1/models", authorization="Bearer msk_" + "x" * 40)
    assert status == 401 and head["www-authenticate"] == "Bearer" and body["error"]["code"] == "invalid_api_key"
    status, _, listed = get(node, "/v1/models", **auth, x_forwarded_for="1.2.3.4")
    assert status == 200 and [m["id"] for m in listed["data"]] == ["a"]
    assert get(node, "/v1/models/a", **auth)[0] == 200
    assert get(node, "/v1/models/b", **auth)[::2] == (404, missing("b"))
    assert get(node, "/v1/models/a", **auth)[0] == 200
    status, head, body = get(node, "/v1/models/a", **auth)
    assert status == 429 and body["error"]["code"] == "rate_limit_exceeded" and 1 <= int(head["retry-after"]) <= 15
    assert key not in node.whole_log()


def test_page(make_node, make_upstream):
    node = make_node(make_upstream(models=["<b>'x'&\"y\"</b>"]))
    status, head, body = node.request("GET", "/")
    page = body.decode()
    assert status == 200 and head["content-type"] == "text/html; charset=utf-8"
    policy = head["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "script" not in policy
    assert "<b>" not in page and "&lt;b&gt;&#39;x&#39;&amp;&quot;y&quot;&lt;/b&gt;" in page
    assert f"{node.url}/v1" in page and "curl -N" in page and node.node_id in page and "{{" not in page
    assert not re.search(r"(src|href)=\"(?!/)", page) and "<script" not in page
    # the line that it shows works
    line = __import__("html").unescape(re.search(r"<pre[^>]*>(curl .*?)</pre>", page, re.S)[1])
    done = __import__("subprocess").run(["bash", "-c", line.replace("curl -N", "curl -sN")], capture_output=True, text=True, timeout=slow(20))
    assert done.stdout.endswith("data: [DONE]\n\n"), done


def test_page_style_is_the_one_that_the_policy_names(node):
    import base64
    import hashlib
    _, head, body = node.request("GET", "/")
    style = re.search(rb"<style>(.*?)</style>", body, re.S)[1]
    assert f"'sha256-{base64.b64encode(hashlib.sha256(style).digest()).decode()}'" in head["content-security-policy"]


def test_health_and_readiness(make_node, upstream):
    node = make_node(upstream)
    assert get(node, "/healthz")[::2] == (200, {"service": "mswarm-self-hosted-node", "status": "ok", "node_id": node.node_id})
    assert get(node, "/readyz")[::2] == (200, {"status": "ready"})
    assert node.cli("drain", "on").returncode == 0
    assert get(node, "/readyz")[0] == 200
    assert node.cli("drain", "all").returncode == 0
    assert get(node, "/readyz")[::2] == (503, {"status": "not_ready", "reason": "node_draining"})
    assert get(node, "/healthz")[0] == 200
