"""What one request gets: lists, replies, streams, tools, errors. Each check takes an end and the bed; run compares.

A row is (name, check, flags). What a check returns is compared between the ends when the flag SAME is set (a server that
does not repeat itself is forgiven), else shown as a note. OPTIONAL: both ends may refuse.
"""
import json
import time

from end import Failed, Refused, Skipped, calls_of, hold_error, hold_calls, need, text_of

SAME, OPTIONAL = 1, 2
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"]}}}
CALLING = {"tools": [TOOL], "tool_choice": "required", "max_tokens": 200, "seed": 3}
WORDS = "Grüße, 世界 \U0001f469\u200d\U0001f680 \"q\" \\ \n e\u0301"
GRAMMAR = "root ::= " + json.dumps(WORDS, ensure_ascii=False)


def content(reply):
    return reply["choices"][0]["message"]["content"]


def finish(reply_or_chunks):
    if isinstance(reply_or_chunks, dict):
        return reply_or_chunks["choices"][0]["finish_reason"]
    return [c for c in reply_or_chunks if c["choices"]][-1]["choices"][0]["finish_reason"]


def models(end, bed):
    status, _, text = end.ask("GET", "/models")
    end.must_take(status, text)
    listed = json.loads(text)
    ids = {m["id"] for m in listed["data"]}
    if end.is_relayed:
        need(listed["object"] == "list", "no list")
        lost = [i for i in bed.straight_ids if i not in ids and f"{bed.name}/{i}" not in ids]
        need(not lost, f"lost: {lost}")
        for m in listed["data"]:
            need(m["object"] == "model" and isinstance(m["created"], int) and isinstance(m["owned_by"], str), f"model {m}")
        need(json.loads(end.ask("GET", "/models")[2]) == listed, "the list changes from call to call")
        for name in (end.model, end.model.replace("/", "%2F"), bed.straight.model):
            need(end.ask("GET", f"/models/{name}")[0] == 200, f"/models/{name} is not found")
    return f"{len(ids)} models"


def plain(end, bed):
    reply = end.chat()
    need(content(reply), "no content")
    return content(reply), finish(reply)


def members(end, bed):
    """What a reply holds beyond the standard (timings, fingerprint) comes through."""
    reply = end.chat()
    choice = reply["choices"][0]
    found = set(reply) | {f"choices[].{k}" for k in choice} | {f"message.{k}" for k in choice["message"]}
    if not end.is_relayed:
        bed.members = found
        return f"{len(found)} members"
    need(bed.members <= found, f"left out: {sorted(bed.members - found)}")
    return f"added: {' '.join(sorted(found - bed.members))}"


def streamed(end, bed):
    chunks = end.stream()
    need(text_of(chunks), "no content")
    return text_of(chunks), finish(chunks)


def at_once(end, bed):
    """Events come when they are made, not at the end: the first part of a long answer long before its last."""
    c, began, first, text, reads = end.open(), time.monotonic(), None, b"", 0
    c.request("POST", end.prefix + "/chat/completions", json.dumps(end.body(stream=True, max_tokens=600, ignore_eos=True)), end.headers)
    r = c.getresponse()
    end.must_take(r.status, b"" if r.status == 200 else r.read())
    while piece := r.read1(65536):
        text, reads = text + piece, reads + 1
        if first is None and b'"content":"' in text.replace(b'"content":""', b""):
            first = time.monotonic() - began
    c.close()
    whole = time.monotonic() - began
    need(first is not None, "no content")
    need(reads > 2 and first < whole / 2, f"first content after {first * 1000:.0f} of {whole * 1000:.0f} ms, {reads} reads")
    return f"first {first * 1000:.1f} ms, all {whole * 1000:.0f} ms, {reads} reads"


def usage(end, bed):
    """The same numbers plain and streamed; hold_stream has seen that they come when asked for, and only then."""
    told = end.chat()["usage"]
    chunks = end.stream(stream_options={"include_usage": True})
    seen = next(c["usage"] for c in reversed(chunks) if c.get("usage"))
    need(seen["prompt_tokens"] == told["prompt_tokens"], f"prompt: {seen} streamed, {told} plain")
    if end.is_relayed:
        end.stream(stream_options={"include_usage": False})
    return told["prompt_tokens"], told["completion_tokens"], seen["completion_tokens"]


def length(end, bed):
    reply, chunks = end.chat(max_tokens=3, ignore_eos=True), end.stream(max_tokens=3, ignore_eos=True)
    need(finish(reply) == finish(chunks) == "length", f"{finish(reply)}, streamed {finish(chunks)}")
    if end.is_relayed:                      # the newer name; the node says max_tokens to the server
        renamed = end.body(max_completion_tokens=3, ignore_eos=True)
        del renamed["max_tokens"]
        other = end.reply_of(*end.ask("POST", "/chat/completions", renamed))
        need(finish(other) == "length" and other["usage"]["completion_tokens"] <= 3, f"max_completion_tokens: {other}")
    return content(reply), text_of(chunks)


def stop(end, bed):
    word = bed.stop_word
    reply, chunks = end.chat(stop=[word]), end.stream(stop=word)
    need(word not in content(reply) and word not in text_of(chunks), f"stop text {word!r} in the answer")
    need(finish(reply) == "stop" == finish(chunks), f"{finish(reply)}, streamed {finish(chunks)}")
    return content(reply), text_of(chunks)


def json_object(end, bed):
    wish = {"response_format": {"type": "json_object"}, "max_tokens": 120}
    reply, chunks = end.chat(**wish), end.stream(**wish)
    for text, why in ((content(reply), finish(reply)), (text_of(chunks), finish(chunks))):
        need(why == "length" or isinstance(json.loads(text), dict), f"no JSON object: {text[:80]!r}")
    return content(reply), text_of(chunks)


def json_schema(end, bed):
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"], "additionalProperties": False}
    reply = end.chat(response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": True}})
    return content(reply)


def logprobs(end, bed):
    wish = {"logprobs": True, "top_logprobs": 2, "max_tokens": 4, "ignore_eos": True}
    reply, chunks = end.chat(**wish), end.stream(**wish)
    told = (reply["choices"][0].get("logprobs") or {}).get("content")
    seen = [t for c in chunks if c["choices"] and c["choices"][0].get("logprobs") for t in c["choices"][0]["logprobs"]["content"]]
    if not told and not end.is_relayed:
        raise Refused("no logprobs in the answer")
    need(told and seen, f"{len(told or [])} plain, {len(seen)} streamed")
    need(all({"token", "logprob", "bytes", "top_logprobs"} <= set(t) and len(t["top_logprobs"]) == 2 for t in told + seen), f"{told[0]}")
    return [t["token"] for t in told], [t["token"] for t in seen]


def tools(end, bed):
    reply = end.chat(**CALLING)
    calls = reply["choices"][0]["message"].get("tool_calls") or []
    need(calls and finish(reply) == "tool_calls", f"no call: {reply['choices'][0]}")
    return [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls]


def tools_streamed(end, bed):
    chunks = end.stream(**CALLING)
    calls = calls_of(chunks)
    need(calls and finish(chunks) == "tool_calls", f"no call: {chunks[-1]}")
    if end.is_relayed:
        hold_calls(calls)
        end.stream(stream_options={"include_usage": True}, **CALLING)
    return [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls]


def tools_parallel(end, bed):
    """Several calls in one answer, if the model makes some."""
    add = {"type": "function", "function": {"name": "add", "description": "Add two numbers", "parameters": {
        "type": "object", "properties": {"a": {"enum": [1, 2, 3]}, "b": {"enum": [4, 5, 6]}}, "required": ["a", "b"]}}}
    most = 0
    for seed in range(1, 11):
        wish = {**CALLING, "tools": [add], "parallel_tool_calls": True, "max_tokens": 260, "seed": seed, "temperature": 1,
                "text": "weather and add"}
        try:
            calls = calls_of(end.stream(**wish)) if end.is_relayed else end.chat(**wish)["choices"][0]["message"].get("tool_calls") or []
        except Refused as e:
            if not end.is_relayed or bed.is_refused("tools"):
                raise
            raise Failed(str(e)) from e
        if end.is_relayed:
            hold_calls(calls)
        most = max(most, len(calls))
    return f"at most {most} calls in one answer"


def tool_result(end, bed):
    turn = [{"role": "user", "content": "weather?"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": {
                "name": "get_weather", "arguments": "{\"city\":\"Köln\"}"}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "{\"degrees\": 7}"}]
    reply = end.chat(messages=turn)
    return reply["usage"]["prompt_tokens"], content(reply)


def unicode_in(end, bed):
    """Bytes and \\u escapes of one prompt are the same prompt, and reach the server whole."""
    seen = []
    for text, is_ascii in ((WORDS, False), (WORDS, True), ("\u0007\u2028\ufeff \U0001f600", True)):
        body = json.dumps(end.body(text), ensure_ascii=is_ascii).encode()
        reply = end.reply_of(*end.ask("POST", "/chat/completions", body))
        seen.append((reply["usage"]["prompt_tokens"], content(reply)))
    parts = [{"role": "user", "content": [{"type": "text", "text": WORDS}]}]
    seen.append(end.chat(messages=parts)["usage"]["prompt_tokens"])
    need(seen[0][0] == seen[1][0], f"escapes count otherwise: {seen}")
    return seen


def unicode_out(end, bed):
    """Characters that the server makes of several tokens, quotes, backslashes: by a grammar, which llama.cpp takes."""
    if not bed.is_llama:
        raise Skipped("needs llama.cpp's grammar")
    reply, chunks = end.chat(grammar=GRAMMAR, max_tokens=100), end.stream(grammar=GRAMMAR, max_tokens=100)
    need(content(reply) == text_of(chunks) == WORDS, f"{content(reply)!r}, streamed {text_of(chunks)!r}")


def unknown_model(end, bed):
    if not end.is_relayed:
        raise Skipped("the server's own affair")
    for name in ("no-such-model", f"{end.model}-not", f"{bed.name}/", "x/" + bed.straight.model):
        for is_stream in (False, True):
            status, _, text = end.ask("POST", "/chat/completions", end.body(model=name, stream=is_stream))
            need(status in (400, 404), f"{name!r}: {status} {text[:120]!r}")
            error = json.loads(text)["error"]
            hold_error(error)
            need(error["param"] == "model" and (status == 400 or error["code"] == "model_not_found"), f"{name!r}: {error}")


def mistakes(end, bed):
    if not end.is_relayed:
        raise Skipped("the server's own affair")
    good = end.body()
    bodies = [b"{", b"[]", b"", {**good, "messages": []}, {**good, "messages": "hi"}, {**good, "temperature": "hot"},
              {**good, "stream_options": {"include_usage": True}}, {**good, "top_logprobs": 2},
              {**good, "messages": [{"role": "king", "content": "a"}]}]
    for body in bodies:
        status, _, text = end.ask("POST", "/chat/completions", body)
        need(status == 400, f"{body}: {status} {text[:120]!r}")
        hold_error(json.loads(text)["error"])


def too_long(end, bed):
    """Refused before the stream with a status, or inside as the last event; llama.cpp may also cut the prompt and answer."""
    out = []
    for is_stream in (False, True):
        status, _, text = end.ask("POST", "/chat/completions", end.body("word " * 60000, stream=is_stream))
        need(status in (200, 400, 413) or not end.is_relayed and status == 500, f"status {status}: {text[:160]!r}")
        inside = b'data: {"error"' in text or text.startswith(b"error:")
        if end.is_relayed and status != 200:
            hold_error(json.loads(text)["error"])
        elif end.is_relayed and inside:
            hold_error(json.loads(text.decode().strip().split("\n\n")[-1][6:])["error"])
        out.append(f"{status}{' and an error inside' if inside else ''}")
    return ", streamed ".join(out)


ROWS = [
    ("models", models, 0), ("plain", plain, SAME), ("members", members, 0), ("streamed", streamed, SAME), ("streamed at once", at_once, 0),
    ("usage", usage, SAME), ("max_tokens", length, SAME), ("stop", stop, SAME), ("json_object", json_object, SAME | OPTIONAL),
    ("json_schema", json_schema, SAME | OPTIONAL), ("logprobs", logprobs, SAME | OPTIONAL), ("tools", tools, SAME | OPTIONAL),
    ("tools, streamed", tools_streamed, SAME | OPTIONAL), ("tools, parallel", tools_parallel, OPTIONAL),
    ("tool result", tool_result, SAME | OPTIONAL), ("unicode in", unicode_in, SAME), ("unicode out", unicode_out, 0),
    ("unknown model", unknown_model, 0), ("mistakes", mistakes, 0), ("prompt too long", too_long, 0),
]
