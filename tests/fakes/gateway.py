"""A gateway for tests: a real HTTP server that keeps books, checks every request against the protocol, and can be scripted.

    gw = Gateway(node_id="shn_1", token="msn_tok")
    gw.offer(job("j1"))                        # handed out by the next poll
    gw.script("result", lost)                  # the next result is taken, but its answer is lost
    gw.script("heartbeat", says(503), says(503))
    gw.wait_result("j1")

Scripts are those of upstream.py (a coroutine that gets the exchange), one a request of that kind, in order; then the default,
which behaves. kinds: bootstrap register claim enroll heartbeat models uninstall healthz poll start events result.
Nothing that the protocol does not know passes: check() at the end of a test tells what was wrong with which request.
"""
import asyncio
import base64
import collections
import copy
import hashlib
import hmac
import json
import re
import time
import urllib.parse

from upstream import Upstream, status

BASE = "/v1/swarm/self-hosted/node/"
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
NODE_PATHS = {"bootstrap", "register", "register/claim", "enroll", "heartbeat", "models", "uninstall"}
CAPACITY = ["protocol_version", "runtime_protocol_version", "load_balancer_protocol_version", "catalog_metadata_version", "catalog_fingerprint",
            "max_concurrency", "max_concurrent_llm_jobs", "max_concurrent_generic_jobs", "active_jobs", "queued_jobs", "free_slots", "drain_mode",
            "execution_class_capacity"]
HEARTBEAT = ["node_id", "node_version", "runtime_protocol_version", "config_version", "status", "runtime", "discovery", "ollama", "capacity",
             "health", "local_agent_catalog", "models", "capabilities"]
BOOTSTRAP = {"machine_fingerprint": str, "server_name": str, "label": str, "relay_mode": str, "direct_base_url": (str, type(None)), "node_version": str,
             "discovery_mode": str, "expose_all_models": bool, "model_allowlist": list, "model_blocklist": list, "heartbeat_interval_seconds": int,
             "max_concurrent_jobs": int, "max_concurrent_llm_jobs": int, "drain_mode": bool, "load_reporting_enabled": bool,
             "hardware_telemetry_enabled": bool, "generic_job_max_concurrency": int}
LOAD = {"max_concurrency", "active_jobs", "queued_jobs", "free_slots"}


class Wrong(AssertionError):
    """A request that the protocol does not know."""


def need(condition, what):
    if not condition:
        raise Wrong(what)


def is_int(v):
    return isinstance(v, int) and not isinstance(v, bool)


def job(job_id, text="hi", model="m", stream=False, node_id="shn_1", request=None, **members):
    """A job as the gateway gives it out."""
    ask = {"model": model, "messages": [{"role": "user", "content": text}], **(request or {})}
    if stream:
        ask["stream"] = True
    return {"job_id": job_id, "request_id": f"req-{job_id}", "node_id": node_id, "agent_slug": model, "openai_request": ask, **members}


# ---- the protocol: what each body must be ----

def check_capacity(c):
    if set(c) == {"active_jobs", "queued_jobs"}:
        need(all(is_int(v) for v in c.values()), "capacity: integers")
        return
    need(list(c) == CAPACITY, f"capacity: keys {list(c)}")
    need(all(is_int(c[k]) for k in CAPACITY if k not in ("catalog_fingerprint", "drain_mode", "execution_class_capacity")), "capacity: integers")
    need(re.match(r"^sha256:[0-9a-f]{64}$", c["catalog_fingerprint"]), "capacity: fingerprint")
    classes = c["execution_class_capacity"]
    need(list(classes) == ["chat", "agentic", "generic_job"], "classes")
    need(all(set(v) == LOAD and all(is_int(n) and n >= 0 for n in v.values()) for v in classes.values()), "classes: members")
    need(c["free_slots"] >= 0 and (not c["drain_mode"] or c["free_slots"] == 0), "capacity: free slots")


def check_signature(payload, token):
    body = {k: v for k, v in payload.items() if k != "signature"}
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    mac = base64.urlsafe_b64encode(hmac.new(token.encode(), text, hashlib.sha256).digest()).rstrip(b"=").decode()
    s = payload["signature"]
    need(list(s) == ["alg", "value", "signed_at", "key_id"] and s["alg"] == "HS256" and s["key_id"] == "self_hosted_runtime_token", "signature: members")
    need(s["value"] == mac, "signature: wrong")


def check_heartbeat(gw, b):
    keys = [k for k in b if k != "client_allowlist"]
    need(keys == HEARTBEAT or keys == HEARTBEAT + ["hardware_pressure"], f"heartbeat: keys {keys}")
    need(b["node_id"] == gw.node_id, "heartbeat: node_id")
    need(b["status"] in ("online", "degraded") and b["runtime_protocol_version"] == 1, "heartbeat: status")
    runtime = dict(b["runtime"])
    runtime.pop("lifecycle", None)
    need(list(runtime) == ["protocol_version", "relay_mode", "load_reporting_enabled", "hardware_telemetry_enabled", "drain_mode"], "runtime")
    need(list(b["discovery"]) == ["source", "mcoda_status"] and list(b["ollama"]) == ["status", "version"], "discovery")
    check_capacity(b["capacity"])
    health = b["health"]
    need(list(health)[:4] == ["avg_latency_ms", "recent_failure_count", "recent_failures", "last_success_at"], "health")
    need(is_int(health["avg_latency_ms"]) and len(health["recent_failures"]) <= 10, "health: numbers")
    for f in health["recent_failures"]:
        need(list(f) == ["execution_class", "code", "at"] and TIME.match(f["at"]), "health: a failure")
    catalog = b["local_agent_catalog"]
    need(list(catalog) == ["revision", "metadata_version", "model_count", "exposed_model_count"], "catalogue")
    need(catalog["model_count"] == len(b["models"]) and catalog["exposed_model_count"] == sum(m["exposed"] for m in b["models"]), "catalogue: counts")
    if "catalog_fingerprint" in b["capacity"]:
        need(catalog["revision"] == b["capacity"]["catalog_fingerprint"], "catalogue: revision")
    check_signature(b["capabilities"], gw.token)


def check_poll(gw, b):
    need(list(b) == ["node_id", "capacity", "wait_ms"], f"poll: keys {list(b)}")
    need(b["node_id"] == gw.node_id and is_int(b["wait_ms"]), "poll: members")
    c = {k: v for k, v in b["capacity"].items() if k not in ("max_requested_priority", "excluded_agent_slugs")}
    need(list(c) == ["active_jobs", "queued_jobs", "max_jobs", "max_concurrency", "free_slots", "drain_mode"], f"poll: capacity {list(c)}")
    need(not c["drain_mode"], "poll: while draining")


def check_start(gw, b):
    need(list(b) == ["node_id", "agent_slug", "source_agent_slug", "model"], f"start: keys {list(b)}")
    need(b["node_id"] == gw.node_id, "start: node_id")


def check_events(gw, b):
    need(b.get("node_id") == gw.node_id and len(b) == 2, f"events: keys {list(b)}")
    if "progress_events" in b:
        need(all(e["type"] in ("agent_selected", "status", "tool_call", "tool_result", "error") for e in b["progress_events"]), "events: progress")
        return
    need(isinstance(b.get("stream_events"), list) and b["stream_events"], "events: no chunks")
    need(all(c["object"] == "chat.completion.chunk" for c in b["stream_events"]), "events: a chunk")


def check_result(gw, b, job_id):
    known = {"job_id", "request_id", "status", "pre_start_failure", "openai_response", "usage", "error", "stream_events", "progress_events", "timing", "node_id"}
    need(set(b) <= known, f"result: keys {sorted(set(b) - known)}")
    need(b["job_id"] == job_id and b["node_id"] == gw.node_id and b["status"] in ("success", "failed"), "result: members")
    if b["status"] == "failed":
        need({"code", "message"} <= set(b["error"]) and "openai_response" not in b, "result: error")
        return
    need("pre_start_failure" not in b and "error" not in b, "result: success with an error")
    r = b["openai_response"]
    need(r["object"] == "chat.completion" and r["id"] == f"chatcmpl-{b['request_id']}" and r["usage"]["cost_cents"] == 0, "result: response")
    need(set(b["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"} and all(is_int(v) for v in b["usage"].values()), "result: usage")


def check_bootstrap(gw, b):
    extra = {"client_allowlist"}
    need(set(b) - extra == set(BOOTSTRAP), f"bootstrap: keys {sorted(set(b) ^ set(BOOTSTRAP))}")
    for k, kind in BOOTSTRAP.items():
        need(isinstance(b[k], kind) and not (kind is int and isinstance(b[k], bool)), f"bootstrap: {k}")
    need(re.match(r"^sha256:[0-9a-f]{64}$", b["machine_fingerprint"]), "bootstrap: fingerprint")


# ---- scripts of its own ----

says = status

async def lost(x):
    """The request is taken and done; its answer never arrives."""
    x.up.serve(x.request)
    x.cut(is_reset=True)


def after(gate):
    """The request is taken when it comes; the answer waits for the gate."""
    async def script(x):
        code, body = x.up.serve(x.request)
        await gate.wait()
        await x.reply(body, code)
    return script


class Gateway(Upstream):
    """hold_s: how long a poll without work is held. interval_s, base: what bootstrap and enroll answer."""

    def __init__(self, node_id="shn_1", token="msn_tok", hold_s=0.3, owner_key="msw_owner_key_0001", enrollment_token="mse_t", interval_s=1):
        self.node_id, self.token, self.hold_s, self.owner_key = node_id, token, hold_s, owner_key
        self.enrollment_token, self.interval_s = enrollment_token, interval_s
        self.relay = {}                # members of "relay" in the answers of bootstrap and enroll
        self.beats, self.polls, self.uninstalls, self.bootstraps, self.inventories = [], [], [], [], []
        self.starts = collections.Counter()
        self.results = collections.defaultdict(list)     # every result that was taken, doubled ones too
        self.chunks = collections.defaultdict(list)
        self.chunk_posts = collections.Counter()
        self.chunk_times = collections.defaultdict(list)
        self.progress = collections.defaultdict(list)
        self.progress_count = 0
        self.claims = []               # ids in the order in which they were given out
        self.claim_monos = {}
        self.gone = {}                 # job id: status that everything about it gets
        self.attached_key = None
        self.wrong = []
        self._offers = collections.deque()
        self._by_kind = collections.defaultdict(collections.deque)
        self._offered = None
        super().__init__(name="gateway")
        self._offered = asyncio.Event()

    # -- for tests --

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def env(self, **more):
        return {"MSWARM_GATEWAY_BASE_URL": self.url, "MSWARM_SELF_HOSTED_NODE_ID": self.node_id, "MSWARM_SELF_HOSTED_RUNTIME_TOKEN": self.token,
                "MSWARM_SELF_HOSTED_RELAY_MODE": "outbound", "MSWARM_SELF_HOSTED_HEARTBEAT_INTERVAL_SECONDS": "1", **more}

    def script(self, kind, *scripts):
        self._by_kind[kind].extend(scripts)

    def offer(self, *jobs):
        """An object is a job; anything else is the whole answer of a poll."""
        with self._news:
            self._offers.extend(jobs)
        self.loop.call_soon_threadsafe(self._offered.set)

    def wait(self, what, limit=10.0, why="the gateway's books"):
        with self._news:
            assert self._news.wait_for(what, limit), f"{why}: not within {limit} s"

    def wait_result(self, job_id, limit=10.0):
        self.wait(lambda: self.results[job_id], limit, f"a result of {job_id}")
        return self.results[job_id][0]

    def wait_beat(self, is_it=lambda b: True, limit=10.0, after=0):
        """The first heartbeat from number `after` on that is it."""
        def find():
            return next((b for b in self.beats[after:] if is_it(b)), None)
        self.wait(find, limit, "a heartbeat")
        return find()

    def requests_of(self, kind):
        with self._news:
            return [r for r in self.requests if self.kind_of(r)[0] == kind]

    def text_of(self, job_id):
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in self.chunks[job_id] if c["choices"])

    def check(self):
        super().check()
        assert not self.wrong, self.wrong[0]

    # -- serving --

    @staticmethod
    def kind_of(request):
        path = request.target.partition("?")[0]
        if path == "/healthz":
            return "healthz", None
        if not path.startswith(BASE):
            return None, None
        rest = path[len(BASE):]
        if rest in NODE_PATHS:
            return rest.rpartition("/")[2], None
        if rest == "jobs/poll":
            return "poll", None
        m = re.match(r"^jobs/([^/]+)/(start|events|result)$", rest)
        return (m[2], urllib.parse.unquote(m[1])) if m else (None, None)

    def _record(self, request):
        with self._news:
            self.requests.append(request)
            self._news.notify_all()

    def _choose(self, request):
        kind, _ = self.kind_of(request)
        if kind and self._by_kind[kind]:
            return self._by_kind[kind].popleft()
        return self._poll if kind == "poll" else self._plain

    def _check(self, request, kind, job_id):
        need(request.method == ("GET" if kind == "healthz" else "POST"), "method")
        if kind == "healthz":
            return
        need(request.headers.get("content-type", "").split(";")[0] == "application/json", "content type")
        body = request.json
        need(isinstance(body, dict), "body is no object")
        if kind in ("bootstrap", "register", "claim", "enroll"):
            need("authorization" not in request.headers, f"{kind}: a token")
        else:
            need("x-api-key" not in request.headers, f"{kind}: the owner's key")
        need(self.owner_key not in request.body.decode(), f"{kind}: the owner's key in a body")
        checks = {"heartbeat": check_heartbeat, "poll": check_poll, "start": check_start, "events": check_events, "bootstrap": check_bootstrap}
        if kind == "result":
            check_result(self, body, job_id)
        elif kind in checks:
            checks[kind](self, body)

    def _authorize(self, request, kind):
        """A status to answer with, or None."""
        if kind in ("healthz", "enroll", "register", "claim"):
            return None
        if kind == "bootstrap":
            return None if request.headers.get("x-api-key") == self.owner_key else 401
        return None if request.headers.get("authorization") == f"Bearer {self.token}" else 401

    def serve(self, request):
        """Check and book one request: (status, answer)."""
        kind, job_id = self.kind_of(request)
        if not kind:
            return 404, {"error": "not_found"}
        refused = self._authorize(request, kind)
        if refused:
            return refused, {"error": "unauthorized"}
        try:
            self._check(request, kind, job_id)
        except (Wrong, KeyError, TypeError, ValueError) as e:
            self.wrong.append(f"{kind}: {type(e).__name__}: {e}: {request.body[:2000]!r}")
            return 400, {"error": "validation_failed", "message": str(e)}
        with self._news:
            answer = self._book(request, kind, job_id)
            self._news.notify_all()
        return answer

    def _joined(self, node=None):
        relay = {"mode": "outbound", "gateway_base_url": self.url, **self.relay}
        answer = {"runtime_token": self.token, "config_version": 3, "heartbeat_interval_seconds": self.interval_s, "heartbeat_timeout_seconds": 90,
                  "relay": relay}
        return 200, ({"created": True, "enrolled": True, "node": node, **answer} if node else answer)

    def _book(self, request, kind, job_id):
        body = request.json if request.body else None
        if job_id in self.gone:
            return self.gone[job_id], {"error": "gone"}
        if kind == "bootstrap":
            self.bootstraps.append(body)
            return self._joined({"node_id": self.node_id, "server_name": body["server_name"], "relay_mode": body["relay_mode"]})
        if kind == "enroll":
            if body != {"node_id": self.node_id, "enrollment_token": self.enrollment_token}:
                return 401, {"error": "unauthorized"}
            return self._joined()
        if kind == "heartbeat":
            self.beats.append(body)
        elif kind == "models":
            self.inventories.append(body)
        elif kind == "uninstall":
            self.uninstalls.append(body)
            return 200, {"accepted": True, "node": {"node_id": self.node_id, "status": "unreachable"}}
        elif kind == "start":
            self.starts[job_id] += 1
            return 200, {"accepted": True, "status": "started"}
        elif kind == "events":
            now = time.monotonic()
            if "progress_events" in body:
                self.progress[job_id].extend(body["progress_events"])
                self.progress_count += 1
            else:
                self.chunk_posts[job_id] += 1
                self.chunks[job_id].extend(body["stream_events"])
                self.chunk_times[job_id].extend([now] * len(body["stream_events"]))
        elif kind == "result":
            self.results[job_id].append(body)
        return 200, {"accepted": True}

    async def _plain(self, x):
        code, body = self.serve(x.request)
        await x.reply(body, code, "Status")

    def _take_offer(self):
        """The next offer and the answer that it makes; (None, None): there is none."""
        with self._news:
            if not self._offers:
                return None, None
            offer = answer = self._offers.popleft()
            if isinstance(offer, dict) and "openai_request" in offer:
                self.claims.append(offer["job_id"])
                self.claim_monos[offer["job_id"]] = time.monotonic()
                answer = {"job": copy.deepcopy(offer)}
                if self.attached_key:
                    answer["attached_mswarm_api_key"] = self.attached_key
            self._news.notify_all()
            return offer, answer

    async def _poll(self, x):
        code, body = self.serve(x.request)
        if code != 200:
            await x.reply(body, code, "Status")
            return
        with self._news:
            self.polls.append(x.request.json)
            self._news.notify_all()
        end = self.loop.time() + min(self.hold_s, x.request.json["wait_ms"] / 1000)
        offer, answer = self._take_offer()
        while answer is None and self.loop.time() < end:
            self._offered.clear()
            try:
                await asyncio.wait_for(self._offered.wait(), end - self.loop.time())
            except asyncio.TimeoutError:
                break
            offer, answer = self._take_offer()
        try:
            await x.reply({"job": None} if answer is None else answer)
        except BaseException:  # not delivered, as far as this end can tell: given out again
            if offer is not None:
                self._offers.appendleft(offer)
            raise


