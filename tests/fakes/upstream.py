"""A scripted model runner on loopback: raw sockets on an asyncio loop in a thread of the test, no HTTP library in between.

    with Upstream(models=["m"]) as up:                  # listens on up.port, answers chats with a friendly default
        up.script(stream("Hel", "lo"))                  # the next chat; more calls queue up; then up.default again
        gate = up.gate()                                # scripts await gate.wait(), the test opens it with gate.open()
        ask = up.wait_chat()                            # the next chat that came in: head, body, json, at_mono
        ask.wait_closed(1.0)                            # when the node closed that connection: ask.closed_mono

A script is "async def script(x)" with x an Exchange. Nothing in here waits for a time of its own: scripts wait for gates,
for the peer's close, or until the kernel takes their bytes. Every request that comes in is kept in up.requests.
"""
import asyncio
import collections
import json
import socket
import struct
import sys
import threading
import time

HEAD_MAX = 1 << 20
SEND_BUFFER = 32 * 1024  # small, so that a reader that stops is felt soon


class Gate:
    """Shut until open(); scripts wait in the runner's loop, the test opens it from its own thread."""

    def __init__(self, loop):
        self._loop, self._event = loop, asyncio.Event()

    def open(self):
        self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self):
        await self._event.wait()


class Request:
    """One request as it came in. *_mono: time.monotonic() of this process."""

    def __init__(self, raw_head, connection):
        lines = raw_head.decode("latin-1").split("\r\n")
        self.raw_head, self.connection = raw_head, connection
        self.method, self.target, self.version = lines[0].split(" ", 2)
        self.header_lines = [line for line in lines[1:] if line]
        self.headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in self.header_lines)}
        self.body = b""
        self.head_mono = time.monotonic()
        self.at_mono = None       # body complete
        self.closed_mono = None   # the node closed or reset the connection before the script was through
        self.is_answered = False  # the script ran to its end
        self.sent = 0             # bytes of answer that the kernel took
        self._ended = threading.Event()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def is_stream(self):
        return self.json.get("stream") is True

    def end(self, is_answered):
        self.is_answered = is_answered
        self._ended.set()

    def wait_closed(self, limit=10.0):
        """Wait for the end of this exchange and give the time at which the node left it; fails when it was answered."""
        assert self._ended.wait(limit), f"the node kept its connection to the runner for {limit} s"
        assert not self.is_answered, "the runner's answer was through before the node left"
        return self.closed_mono

    def wait_ended(self, limit=10.0):
        assert self._ended.wait(limit), f"an exchange went on for {limit} s"

    def wait_answered(self, limit=10.0):
        assert self._ended.wait(limit) and self.is_answered, "the runner's answer never came to its end"

    def __repr__(self):
        state = "answered" if self.is_answered else "closed by the node" if self.closed_mono else "open"
        return f"{self.method} {self.target} ({state}, {self.sent} bytes sent) {self.body[:300]!r}"


class Exchange:
    """What a script sees: the request, and ways to answer it."""

    def __init__(self, up, conn, request):
        self.up, self.conn, self.request = up, conn, request
        self.is_chunked = self.is_closing = False

    async def send(self, data):
        """Raw bytes, exactly these. Returns when the kernel has taken all of them."""
        await self.conn.send(data, self.request)

    async def head(self, status=200, reason="OK", content_type="application/json", length=None, **headers):
        """A head; length None: chunked, length False: neither (ends with the connection)."""
        lines = [f"HTTP/1.1 {status} {reason}"]
        if content_type:
            lines.append(f"Content-Type: {content_type}")
        lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
        self.is_chunked = length is None
        if length is None:
            lines.append("Transfer-Encoding: chunked")
        elif length is not False:
            lines.append(f"Content-Length: {length}")
        else:
            self.is_closing = True
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def sse_head(self, **headers):
        await self.head(content_type="text/event-stream", **headers)

    async def write(self, data):
        """Body bytes in the framing that the head said: one call, one chunk."""
        if isinstance(data, str):
            data = data.encode()
        if self.is_chunked:
            data = b"%x\r\n%s\r\n" % (len(data), data)
        await self.send(data)

    async def event(self, value):
        await self.write(event(value))

    async def end(self):
        if self.is_chunked:
            await self.send(b"0\r\n\r\n")
        self.is_chunked = False

    async def reply(self, value, status=200, reason="OK", **headers):
        """A whole answer with a length: bytes, text, or an object as JSON."""
        if isinstance(value, (dict, list)):
            value = json.dumps(value)
        data = value.encode() if isinstance(value, str) else value
        await self.head(status, reason, length=len(data), **headers)
        await self.send(data)

    async def closed(self):
        """Wait until the node closes the connection; does not return: there is nobody left to talk to."""
        await self.conn.gone.wait()
        raise _Gone

    def cut(self, is_reset=False):
        """Close now, in the middle of whatever was said; is_reset: with RST instead of FIN."""
        self.conn.close(is_reset)

    async def turn(self):
        """Let the other side have a go: back through the poll of the loop."""
        f = self.up.loop.create_future()
        self.up.loop.call_later(0.0002, f.set_result, None)
        await f


class _Gone(Exception):
    """The node has closed the connection."""


class _Connection:
    def __init__(self, up, sock, number):
        self.up, self.sock, self.number = up, sock, number
        self.buffer = b""
        self.gone = asyncio.Event()
        self.arrived = asyncio.Event()
        self.is_closed = False

    async def send(self, data, request):
        view = memoryview(data)
        while view:
            if self.gone.is_set() or self.is_closed:
                raise _Gone
            try:
                n = self.sock.send(view)
            except BlockingIOError:
                await self._writable()
                continue
            except OSError:
                self.leave()
                raise _Gone from None
            request.sent += n
            view = view[n:]

    async def _writable(self):
        loop, fd = self.up.loop, self.sock.fileno()
        ready = loop.create_future()
        loop.add_writer(fd, lambda: ready.done() or ready.set_result(None))
        left = asyncio.ensure_future(self.gone.wait())
        await asyncio.wait([ready, left], return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        if not self.is_closed:
            loop.remove_writer(fd)

    async def read_all(self):
        """Runs as long as the connection: the only reader, so that a close is noticed whatever the script does."""
        while True:
            try:
                data = await self.up.loop.sock_recv(self.sock, 65536)
            except OSError:
                data = b""
            if not data:
                self.leave()
                return
            self.buffer += data
            self.arrived.set()

    def leave(self):
        """The peer has gone, seen by whoever looks first."""
        if not self.gone.is_set():
            self.gone_mono = time.monotonic()
        self.gone.set()
        self.arrived.set()

    async def more(self):
        if self.gone.is_set():
            raise _Gone
        self.arrived.clear()
        await self.arrived.wait()

    async def take(self, n):
        while len(self.buffer) < n:
            await self.more()
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    async def take_until(self, mark):
        while mark not in self.buffer:
            assert len(self.buffer) < HEAD_MAX, "an endless head"
            await self.more()
        data, _, self.buffer = self.buffer.partition(mark)
        return data

    async def read_request(self):
        request = Request(await self.take_until(b"\r\n\r\n"), self.number)
        if request.headers.get("transfer-encoding", "").lower() == "chunked":
            while True:
                n = int((await self.take_until(b"\r\n")).split(b";")[0], 16)
                request.body += (await self.take(n + 2))[:n]
                if n == 0:
                    break
        else:
            request.body = await self.take(int(request.headers.get("content-length", "0")))
        request.at_mono = time.monotonic()
        return request

    def close(self, is_reset=False):
        if self.is_closed:
            return
        self.is_closed = True
        self.up.loop.remove_reader(self.sock.fileno())
        self.up.loop.remove_writer(self.sock.fileno())
        if is_reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Upstream:
    """owned_by tells the node what kind of runner this is: "llamacpp" (default), "vllm", "library" (Ollama), or any word."""

    def __init__(self, models=("m",), owned_by="llamacpp", name="lab"):
        self.models, self.owned_by, self.name = list(models), owned_by, name
        self.default = answer()
        self.models_script = None      # in place of the model list
        self.requests = []             # all, in the order of their arrival
        self.connections = 0           # ever accepted
        self._chats = []
        self._handed_out = 0
        self._scripts = collections.deque()
        self._open = set()
        self._failures = []
        self._news = threading.Condition()
        self._listener = None
        # Bound as long as we live, never listening: while we have vanished, nobody else is given this port.
        self._held = self._bound(0)
        self.port = self._held.getsockname()[1]
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="upstream", daemon=True)
        self._thread.start()
        self.listen()

    # -- life --

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def _in_loop(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    @staticmethod
    def _bound(port):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        return s

    def listen(self):
        """Listen, after vanish() on the same port again."""
        self._listener = self._bound(self.port)
        self._listener.listen(1024)
        self._listener.setblocking(False)
        self._accepting = asyncio.run_coroutine_threadsafe(self._accept(self._listener), self.loop)

    async def _stop(self):
        self._accepting.cancel()
        if self._listener:
            self.loop.remove_reader(self._listener.fileno())
            self._listener.close()
        self._listener = None
        for conn in list(self._open):
            conn.close(is_reset=True)
            conn.leave()

    def vanish(self):
        """Stop listening and reset every connection, as a runner that was killed."""
        self._in_loop(self._stop())

    def close(self):
        if not self.loop.is_running():
            return
        self._held.close()
        self.vanish()
        self._in_loop(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    async def _cancel_all(self):
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for t in tasks:
            t.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- for tests --

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def entry(self, **members):
        """This runner as an entry of "upstreams" in config.json."""
        return {"name": self.name, "base_url": self.base_url, **members}

    def gate(self):
        return Gate(self.loop)

    def script(self, *scripts):
        self._scripts.extend(scripts)

    @property
    def chats(self):
        """Chats that came in whole, in their order (probes and model lists are not among them)."""
        with self._news:
            return list(self._chats)

    def wait_chat(self, limit=10.0):
        """The next chat that this method has not given yet."""
        with self._news:
            assert self._news.wait_for(lambda: len(self._chats) > self._handed_out, limit), f"no chat came within {limit} s"
            self._handed_out += 1
            return self._chats[self._handed_out - 1]

    def wait_list(self, count=1, limit=10.0):
        """Until the model list has been asked for count times in all."""
        def asked():
            return sum(r.target.endswith(("/models", "/api/tags")) for r in self.requests) >= count
        with self._news:
            assert self._news.wait_for(asked, limit), f"the model list was not asked for {count} times within {limit} s"

    def check(self):
        assert not self._failures, self._failures[0]

    def show(self):
        print(f"---- runner {self.name}: {len(self.requests)} requests ----", file=sys.stderr)
        for r in self.requests[-20:]:
            print(f"  {r!r}", file=sys.stderr)

    # -- serving --

    async def _accept(self, listener):
        while True:
            try:
                sock, _ = await self.loop.sock_accept(listener)
            except OSError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            self.connections += 1
            self.loop.create_task(self._serve(_Connection(self, sock, self.connections)))

    async def _serve(self, conn):
        self._open.add(conn)
        reading = self.loop.create_task(conn.read_all())
        try:
            while not conn.is_closed:
                request = await conn.read_request()
                if not await self._answer(conn, request):
                    return
        except _Gone:
            pass
        finally:
            reading.cancel()
            self._open.discard(conn)
            conn.close()

    def _record(self, request):
        with self._news:
            self.requests.append(request)
            if request.method == "POST":
                self._chats.append(request)
            self._news.notify_all()

    def _choose(self, request):
        if request.method == "POST":
            return self._scripts.popleft() if self._scripts else self.default
        if request.target.endswith("/models"):
            return self.models_script or _list_models
        if request.target.endswith("/api/tags"):
            return _list_tags
        return status(404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}})

    async def _answer(self, conn, request):
        """One exchange; False when the connection is over."""
        script = self._choose(request)
        self._record(request)
        x = Exchange(self, conn, request)
        work = self.loop.create_task(script(x))
        left = self.loop.create_task(conn.gone.wait())
        await asyncio.wait([work, left], return_when=asyncio.FIRST_COMPLETED)
        is_through = work.done() and not work.cancelled() and work.exception() is None
        if not is_through and conn.gone.is_set():
            request.closed_mono = conn.gone_mono
            work.cancel()
        left.cancel()
        try:
            await work
        except (_Gone, asyncio.CancelledError):
            pass
        except Exception as e:  # a mistake in a script must not look like a runner's behaviour
            self._failures.append(e)
            conn.close()
        request.end(is_through)
        return is_through and not x.is_closing and not conn.is_closed and request.headers.get("connection", "").lower() != "close"


# ---- what runners say ----

def event(value):
    """One SSE event: text as it is, an object as a line of JSON."""
    return f"data: {value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}\n\n"


def chunk(delta=None, finish=None, index=0, **top):
    """A chunk as llama.cpp sends it: no role, keys in its order."""
    return {"choices": [{"finish_reason": finish, "index": index, "delta": delta or {}}], "created": 1700000000,
            "id": "chatcmpl-fake", "model": "m", "object": "chat.completion.chunk", **top}


def usage(prompt=3, completion=2):
    return {"completion_tokens": completion, "prompt_tokens": prompt, "total_tokens": prompt + completion}


def completion(text="Hello", finish="stop", **message):
    """A plain answer."""
    return {"choices": [{"finish_reason": finish, "index": 0, "message": {"role": "assistant", "content": text, **message}}],
            "created": 1700000000, "model": "m", "object": "chat.completion", "usage": usage(), "id": "chatcmpl-fake"}


async def _list_models(x):
    data = [{"id": m, "object": "model", "created": 1700000000, "owned_by": x.up.owned_by} for m in x.up.models]
    await x.reply({"object": "list", "data": data})


async def _list_tags(x):
    await x.reply({"models": [{"name": m, "model": m, "size": 1, "digest": "0"} for m in x.up.models]})


# ---- scripts ----

def words(*texts, finish="stop", is_done=True):
    """The events of a good stream."""
    return [chunk({"content": t}) for t in texts] + [chunk({}, finish, usage=usage())] + (["[DONE]"] if is_done else [])


def answer(*texts):
    """As asked: a stream of these texts or all of them in one."""
    texts = texts or ("Hel", "lo")

    async def script(x):
        if x.request.target.endswith("/api/chat"):
            await x.reply({"model": x.request.json["model"], "message": {"role": "assistant", "content": "".join(texts)},
                           "done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 2})
        elif x.request.is_stream:
            await stream(*words(*texts))(x)
        else:
            await x.reply(completion("".join(texts)))
    return script


def stream(*parts, is_ended=True):
    """An SSE stream of parts: objects and text become events, bytes go out raw as a chunk, a Gate is waited for."""
    async def script(x):
        await x.sse_head()
        for part in parts:
            if isinstance(part, Gate):
                await part.wait()
            elif isinstance(part, bytes):
                await x.write(part)
            else:
                await x.event(part)
        if is_ended:
            await x.end()
    return script


def then(*scripts):
    """One after the other on the same exchange."""
    async def script(x):
        for s in scripts:
            await s(x)
    return script


def bytes_in(data, size=1):
    """Raw bytes of a whole answer, size at a time."""
    return raw(*[data[i:i + size] for i in range(0, len(data), size)])


def raw(*pieces, is_closing=True):
    """Raw bytes of a whole answer, each piece by itself; a Gate is waited for."""
    async def script(x):
        for piece in pieces:
            if isinstance(piece, Gate):
                await piece.wait()
            else:
                await x.send(piece)
                await x.turn()
        x.is_closing = is_closing
    return script


def status(code, body=b"", content_type="application/json", **headers):
    async def script(x):
        await x.reply(body, code, "Status", content_type=content_type, **headers)
    script.code = code
    return script


async def silent(x):
    """Takes the request and never says a word."""
    await x.closed()


def stall(*parts):
    """These parts of a stream, then nothing until the node leaves."""
    return then(stream(*parts, is_ended=False), silent)


def cut(*parts, is_reset=False):
    """These parts of a stream, then the connection is gone: no last chunk."""
    async def script(x):
        if parts:
            await stream(*parts, is_ended=False)(x)
        await x.turn()
        x.cut(is_reset)
    return script


def endless(piece, head=None):
    """piece again and again as chunks of a stream until the node has enough of it."""
    async def script(x):
        if head:
            await x.head(**head)
        else:
            await x.sse_head()
        while True:
            await x.write(piece)
            await x.turn() if x.request.sent % (1 << 20) < len(piece) else None
    return script


def held(gate, then_script=None):
    """Nothing until the gate opens, then the answer."""
    async def script(x):
        await gate.wait()
        await (then_script or answer())(x)
    return script


TOOLS_REFUSAL = {"error": {"code": 500, "message": "Cannot use tools with stream", "type": "server_error"}}


async def refuses_tool_streams(x):
    """As llama.cpp b4748 (corpus, chat-tools-stream)."""
    if x.request.is_stream:
        await x.reply(TOOLS_REFUSAL, 500, "Internal Server Error")
    else:
        call = {"type": "function", "function": {"name": "look", "arguments": "{\"a\":1}"}, "id": ""}
        await x.reply(completion(None, "tool_calls", tool_calls=[call]))
