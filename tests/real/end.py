"""One way to a model server, straight or through the node, and what its answers are held to. Used by run and the checks.

The straight server is asked for little: a status of 200 and the parts that a check looks at. Relayed answers are held to
llm-execution.md 8.2 (event lines), 8.3 (errors), 8.5.1 (replies) and 8.5.2 (streams).
"""
import http.client
import json
import urllib.parse

FINISH = {"stop", "length", "tool_calls", "content_filter", "function_call"}


class Failed(Exception):
    """The check does not hold."""


class Refused(Exception):
    """The server says no to a whole request. Relayed, the refusal itself has the right shape."""


class Skipped(Exception):
    """The check means nothing here; the text says why."""


def need(ok, text):
    if not ok:
        raise Failed(text)


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def hold_error(error):
    """8.3: four members, a text, a type."""
    need(isinstance(error, dict) and set(error) == {"message", "type", "param", "code"}, f"not an error of four members: {error}")
    need(error["message"] and isinstance(error["message"], str) and isinstance(error["type"], str), f"error without words: {error}")
    need(all(error[k] is None or isinstance(error[k], str) for k in ("param", "code")), f"param or code is no text: {error}")


def hold_usage(usage):
    counts = [usage.get(k) for k in ("prompt_tokens", "completion_tokens", "total_tokens")]
    need(all(is_count(n) for n in counts) and counts[0] + counts[1] == counts[2], f"usage {usage}")


def hold_reply(reply, model):
    """8.5.1."""
    need(reply["id"] and isinstance(reply["id"], str) and is_count(reply["created"]), f"id or created of {reply}")
    need(reply["object"] == "chat.completion", f"object {reply['object']!r}")
    need(reply["model"] == model, f"model {reply['model']!r}, asked for {model!r}")
    for i, choice in enumerate(reply["choices"]):
        message, calls = choice["message"], choice["message"].get("tool_calls")
        need(choice["index"] == i and choice["finish_reason"] in FINISH and "logprobs" in choice, f"choice {choice}")
        need(message["role"] == "assistant" and message["refusal"] is None, f"message {message}")
        need(isinstance(message["content"], str) or calls and message["content"] is None, f"content of {message}")
        need("tool_calls" not in message or calls, "empty tool_calls")
        need(bool(calls) == (choice["finish_reason"] == "tool_calls") or choice["finish_reason"] == "length", f"finish_reason of {choice}")
        hold_calls(calls or [])
    if "usage" in reply:
        hold_usage(reply["usage"])


def hold_calls(calls):
    for call in calls:
        need(isinstance(call["id"], str) and call["id"] and call["type"] == "function" and call["function"]["name"], f"call {call}")
        need(isinstance(call["function"]["arguments"], str), f"arguments of {call}")
    need(len({call["id"] for call in calls}) == len(calls), "two calls with one id")


def hold_stream(chunks, model, wants_usage):
    """8.5.2, for one choice."""
    parts = [c for c in chunks if c["choices"]]
    choices = [c["choices"][0] for c in parts]
    need(choices and choices[0]["delta"].get("role") == "assistant", f"no role first: {chunks[:1]}")
    need(not [c for c in choices[1:] if "role" in c["delta"]], "role said twice")
    need(choices[-1]["finish_reason"] in FINISH and choices[-1]["delta"] == {}, f"last part {choices[-1]}")
    need(all(c["finish_reason"] is None and c["delta"] for c in choices[:-1]), "an empty delta or finish_reason in the middle")
    need({c["object"] for c in chunks} == {"chat.completion.chunk"}, "object")
    need({c["model"] for c in chunks} == {model}, f"model {sorted({c['model'] for c in chunks})}, asked for {model!r}")
    need(len({c["id"] for c in chunks}) == 1 and len({c["created"] for c in chunks}) == 1, "id or created changes")
    if not wants_usage:
        need(not [c for c in chunks if c.get("usage")] and len(parts) == len(chunks), "usage without being asked")
        return
    need(chunks[-1]["choices"] == [] and len(parts) == len(chunks) - 1, "no usage chunk at the end")
    hold_usage(chunks[-1]["usage"])
    need(all("usage" in c and c["usage"] is None for c in parts), "usage is not null before the end")


def events_of(text):
    """Data of the events of a whole body, [DONE] left as text. 8.2: data lines and comments only, nothing after [DONE]."""
    need(text.endswith("\n\n"), f"ends inside an event: {text[-80:]!r}")
    out = []
    for block in text[:-2].split("\n\n"):
        for line in block.split("\n"):
            if line.startswith(":"):
                continue
            need(line.startswith("data: "), f"no data line: {block[:120]!r}")
            need(not out or out[-1] != "[DONE]", "an event after [DONE]")
            out.append("[DONE]" if line == "data: [DONE]" else json.loads(line[6:]))
    return out


def text_of(chunks):
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


def calls_of(chunks):
    """The calls of a stream, joined as clients join them: by index, id and name once, fragments of arguments."""
    calls = []
    for part in (p for c in chunks if c["choices"] for p in c["choices"][0]["delta"].get("tool_calls") or []):
        if part["index"] == len(calls):
            calls.append({"id": part["id"], "type": part["type"], "function": {"name": part["function"]["name"], "arguments": ""}})
        need(part["index"] == len(calls) - 1, f"part out of turn: {part}")
        calls[-1]["function"]["arguments"] += part["function"].get("arguments") or ""
    return calls


class End:
    def __init__(self, name, base, model, key):
        self.name, self.model, self.base, self.key = name, model, base, key
        u = urllib.parse.urlsplit(base)
        self.is_tls = u.scheme == "https"
        self.host, self.port = u.hostname, u.port or (443 if self.is_tls else 80)
        self.prefix = u.path.rstrip("/")
        self.extra = {}                     # members of every request of ours
        self.headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}

    @property
    def is_relayed(self):
        return self.name == "relayed"

    def open(self, limit=120):
        kind = http.client.HTTPSConnection if self.is_tls else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=limit)

    def ask_on(self, c, method, path, body=None, prefix=None):
        """One request on the connection c: (status, headers, body bytes). body: bytes, or an object."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        c.request(method, (self.prefix if prefix is None else prefix) + path, body, self.headers)
        r = c.getresponse()
        headers, text = {k.lower(): v for k, v in r.getheaders()}, r.read()
        if self.is_relayed:
            need(headers.get("x-request-id"), "no x-request-id")
        return r.status, headers, text

    def ask(self, method, path, body=None, limit=120, prefix=None):
        c = self.open(limit)
        try:
            return self.ask_on(c, method, path, body, prefix)
        finally:
            c.close()

    def must_take(self, status, text):
        if status == 200:
            return
        if self.is_relayed:
            hold_error(json.loads(text)["error"])
        raise Refused(f"status {status}: {text[:200].decode('utf-8', 'replace')}")

    def body(self, text="hello there", **more):
        return {"model": self.model, "messages": [{"role": "user", "content": text}], "max_tokens": 24, "seed": 1, "temperature": 0,
                **self.extra, **more}

    def reply_of(self, status, headers, text):
        self.must_take(status, text)
        reply = json.loads(text)
        if self.is_relayed:
            need(headers["content-type"].startswith("application/json"), f"content-type {headers['content-type']}")
            hold_reply(reply, self.model)
        return reply

    def chunks_of(self, status, headers, text, wants_usage=False):
        self.must_take(status, text)
        need(headers.get("content-type", "").startswith("text/event-stream"), f"content-type {headers.get('content-type')}")
        events = events_of(text.decode())
        need(events and events[-1] == "[DONE]", f"no [DONE]: {text[-200:]!r}")
        if self.is_relayed:
            need(headers["content-type"] == "text/event-stream; charset=utf-8" and headers["cache-control"] == "no-cache", f"{headers}")
            hold_stream(events[:-1], self.model, wants_usage)
        return events[:-1]

    def chat(self, **more):
        return self.reply_of(*self.ask("POST", "/chat/completions", self.body(**more)))

    def stream(self, **more):
        wants_usage = (more.get("stream_options") or {}).get("include_usage", False)
        return self.chunks_of(*self.ask("POST", "/chat/completions", self.body(stream=True, **more)), wants_usage)
