"""How connections are treated: many at once, reuse, idle ones, clients that leave. Rows as in checks.py.

What the node holds open towards the server is read from /proc: sockets of its process whose far port is the server's. Whether the
server still works is read from /slots, where llama.cpp shows it (--slots).
"""
import http.client
import json
import os
import pathlib
import socket
import threading
import time

from checks import finish
from end import Skipped, need, text_of
from node import wait_until

FOREVER = {"max_tokens": 20000, "ignore_eos": True}     # seconds, if nobody stops it; the limits below are shorter


def held_open(bed):
    """Established connections of the node to the server."""
    inodes = set()
    for fd in pathlib.Path(f"/proc/{bed.node.pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(fd))
        except FileNotFoundError:
            pass
    count = 0
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/{bed.node.pid}/net/{table}").read_text().splitlines()[1:]:
            part = line.split()
            far_port = int(part[2].rpartition(":")[2], 16)
            count += part[3] == "01" and far_port == bed.straight.port and f"socket:[{part[9]}]" in inodes
    return count


def busy_slots(bed):
    status, _, text = bed.straight.ask("GET", "/slots", prefix="")
    if status != 200:
        raise Skipped("no /slots to look at")
    slots = json.loads(text)
    return sum(bool(s.get("is_processing")) for s in slots), len(slots)


def until_free(bed):
    """Wait for what earlier checks may have left running; the number of slots."""
    wait_until(lambda: busy_slots(bed)[0] == 0, 60, "the server to have nothing to do")
    return busy_slots(bed)[1]


def send(end, **more):
    """A chat sent on a socket of its own, nothing read yet."""
    body = json.dumps(end.body(**more)).encode()
    head = [f"POST {end.prefix}/chat/completions HTTP/1.1", f"host: {end.host}:{end.port}", f"content-length: {len(body)}"]
    head += [f"{k}: {v}" for k, v in end.headers.items()]
    s = socket.create_connection((end.host, end.port), timeout=60)
    s.sendall("\r\n".join([*head, "", ""]).encode() + body)
    return s


def all_free(bed, limit, began):
    wait_until(lambda: busy_slots(bed)[0] == 0, limit, "the server to stop")
    return f"free after {(time.monotonic() - began) * 1000:.0f} ms"


def has_slots(bed):
    return bed.straight.ask("GET", "/slots", prefix="")[0] == 200


def leave(end, bed, is_stream):
    """The server stops, as /slots tells it; where it does not tell, the node has at least closed its connection."""
    is_told = has_slots(bed)
    if not is_told and not end.is_relayed:
        raise Skipped("no /slots to look at")
    if is_told:
        until_free(bed)
    s = send(end, stream=is_stream, **FOREVER)
    seen = b""
    while is_stream and b'"content":"' not in seen.replace(b'"content":""', b""):
        piece = s.recv(65536)
        need(piece, f"closed after {seen[-200:]!r}")
        seen += piece
    wait_until(lambda: busy_slots(bed)[0] == 1 if is_told else held_open(bed), 5, "the server to begin")
    held, began = held_open(bed), time.monotonic()
    s.close()
    if end.is_relayed:
        wait_until(lambda: held_open(bed) < held, 1, "the node to close its connection")
    if not is_told:
        return f"closed after {(time.monotonic() - began) * 1000:.0f} ms (no /slots to look at)"
    return all_free(bed, 1 if end.is_relayed else 10, began)


def leave_stream(end, bed):
    return leave(end, bed, True)


def leave_plain(end, bed):
    if not end.is_relayed:
        raise Skipped("llama.cpp notices late or never")
    return leave(end, bed, False)


def leave_queued(end, bed):
    """All slots are taken, one more waits at the server; it leaves. Its connection is closed at once, and it never runs for long."""
    if not end.is_relayed:
        raise Skipped("nothing to compare")
    slots = until_free(bed)
    takers = [send(bed.straight, stream=True, **FOREVER) for _ in range(slots)]
    try:
        wait_until(lambda: busy_slots(bed)[0] == slots, 5, "all slots to be busy")
        waiting = [send(end, stream=is_stream, **FOREVER) for is_stream in (True, False)]
        wait_until(lambda: held_open(bed) == 2, 5, "the node to ask")
        began = time.monotonic()
        for s in waiting:
            s.close()
        wait_until(lambda: held_open(bed) == 0, 1, "the node to close")
        gone = time.monotonic() - began
    finally:
        for s in takers:
            s.close()
    all_free(bed, 5, began)
    return f"closed after {gone * 1000:.0f} ms"


def together(end, bed):
    """More than the server has slots for, streams and plain ones mixed; the node goes on answering others."""
    done, errors = [], []

    def one(i):
        try:
            wish = {"text": f"number {i}", "max_tokens": 60, "seed": i}
            done.append(text_of(end.stream(**wish)) if i % 3 else finish(end.chat(**wish)))
        except Exception as e:              # shown below: a thread has nobody to raise to
            errors.append(f"{type(e).__name__}: {e}")
    threads = [threading.Thread(target=one, args=(i,)) for i in range(12)]
    for t in threads:
        t.start()
    began = time.monotonic()
    if end.is_relayed:
        need(bed.node.request("GET", "/healthz")[0] == 200 and time.monotonic() - began < 1, "the node is slow meanwhile")
    for t in threads:
        t.join()
    need(len(done) == 12 and all(done), f"{len(done)} of 12: {errors[:2]}")
    return f"12 in {(time.monotonic() - began) * 1000:.0f} ms"


def reuse(end, bed):
    """Plain, stream, error and list on one connection, several times over. Straight: as long as the server keeps it open."""
    c, local, kept = end.open(), None, 0
    for _ in range(5):
        for path, body in (("/chat/completions", end.body()), ("/models", None), ("/chat/completions", b"{"),
                           ("/chat/completions", end.body(stream=True)), ("/models", None)):
            try:
                status, headers, text = end.ask_on(c, "POST" if body else "GET", path, body)
            except (http.client.RemoteDisconnected, ConnectionResetError):
                need(not end.is_relayed, "the node closed a kept connection")
                status, headers, text = end.ask_on(c, "POST" if body else "GET", path, body)    # llama.cpp closes after streams
            if body == b"{":
                need(status >= 400, f"status {status} to no JSON")
            elif body and body.get("stream"):
                end.chunks_of(status, headers, text)
            else:
                need(status == 200, f"status {status}")
            now = c.sock.getsockname() if c.sock else None
            kept += now is not None and now == local
            local = now
    c.close()
    need(not end.is_relayed or kept == 24, f"the connection was kept {kept} of 24 times")
    return f"kept {kept} of 24 times"


def starve(end, bed):
    """After a burst, and with idle clients at the node, the server has threads for others (llama.cpp: slots + 2)."""
    if not end.is_relayed:
        raise Skipped("nothing to compare")
    idle = [end.open() for _ in range(8)]
    errors = []

    def one(c):
        try:
            end.reply_of(*end.ask_on(c, "POST", "/chat/completions", end.body(max_tokens=8)))
        except Exception as e:              # shown below
            errors.append(f"{type(e).__name__}: {e}")
    threads = [threading.Thread(target=one, args=(c,)) for c in idle]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    need(not errors, f"{errors[:2]}")
    if bed.is_llama:
        wait_until(lambda: held_open(bed) <= 1, 1, f"the node to hold at most one connection ({held_open(bed)})")
    slowest = 0.0
    others = [bed.straight.open(20) for _ in range(2)]      # two, kept open, as other clients of the server would have
    for c in others:
        began = time.monotonic()
        need(bed.straight.ask_on(c, "GET", "/models")[0] == 200, "the server does not answer others")
        slowest = max(slowest, time.monotonic() - began)
    began = time.monotonic()
    end.chat(max_tokens=2)
    slowest = max(slowest, time.monotonic() - began)
    for c in idle + others:
        c.close()
    need(not bed.is_llama or slowest < 2, f"an answer took {slowest:.1f} s")
    return f"{held_open(bed)} held, slowest {slowest * 1000:.0f} ms"


def after_idle(end, bed):
    """A server closes idle connections (llama.cpp after 5 s); the request that comes just then works all the same."""
    c = bed.straight.open(20)
    bed.straight.ask_on(c, "GET", "/models")
    end.chat(max_tokens=2)
    if end.is_relayed and c.sock and not bed.straight.is_tls:
        c.sock.settimeout(7)
        try:
            c.sock.recv(1)
        except TimeoutError:
            c.close()
            return "the server keeps idle connections for longer than 7 s"
    c.close()
    for _ in range(3):
        end.chat(max_tokens=2)


ROWS = [
    ("12 at once", together, 0), ("leave a stream", leave_stream, 0), ("leave a plain request", leave_plain, 0),
    ("leave while queued", leave_queued, 0), ("one connection", reuse, 0), ("idle connections", starve, 0), ("after idle", after_idle, 0),
]
