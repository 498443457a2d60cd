"""A client on a bare socket, for what http.client hides: when bytes come, how they come apart, and closing at any moment.

    with Wire(node) as w:
        w.post("/v1/chat/completions", {...})
        status, headers = w.head()
        for data in w.events(): ...                     # SSE data as it arrives; comments are kept in w.comments
"""
import json
import socket
import ssl
import struct

CHAT = "/v1/chat/completions"


def chat_body(model="m", stream=None, **members):
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **members}
    if stream is not None:
        body["stream"] = stream
    return body


class Closed(Exception):
    """The node closed the connection where more was due."""


class Wire:
    def __init__(self, node, limit=10.0, receive_buffer=None, tls=None):
        self.node = node
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(limit)
        sock.connect((node.host, node.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = tls.wrap_socket(sock, server_hostname="localhost") if tls else sock
        self.buffer = b""
        self.comments = []
        self.headers = {}
        self.is_chunked, self.left = False, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # -- asking --

    def send(self, data):
        self.sock.sendall(data.encode() if isinstance(data, str) else data)

    def ask(self, method, path, body=None, headers=None):
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        lines = [f"{method} {path} HTTP/1.1"]
        given = {k.lower() for k in headers or {}}
        if "host" not in given:
            lines.append(f"Host: 127.0.0.1:{self.node.port}")
        if body is not None and "content-type" not in given:
            lines.append("Content-Type: application/json")
        if body is not None and not given & {"content-length", "transfer-encoding"}:
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{k}: {v}" for k, v in (headers or {}).items()]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))
        return self

    def post(self, path, body, headers=None):
        return self.ask("POST", path, body, headers)

    def chat(self, model="m", stream=True, headers=None, **members):
        return self.post(CHAT, chat_body(model, stream, **members), headers)

    # -- reading --

    def _more(self):
        try:
            data = self.sock.recv(65536)
        except (ConnectionResetError, ssl.SSLEOFError):
            data = b""
        if not data:
            raise Closed(f"closed after {self.buffer[:200]!r}")
        self.buffer += data

    def _line(self):
        while b"\r\n" not in self.buffer:
            self._more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def _take(self, n):
        while len(self.buffer) < n:
            self._more()
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def head(self):
        """Status and headers (lower-case names) of the next answer; 100 Continue is read over."""
        while True:
            status = int(self._line().split(b" ")[1])
            self.headers = {}
            while line := self._line():
                name, _, value = line.decode("latin-1").partition(":")
                self.headers[name.lower()] = value.strip()
            if status != 100:
                break
        self.is_chunked = self.headers.get("transfer-encoding") == "chunked"
        self.left = int(self.headers.get("content-length", 0))
        return status, self.headers

    def piece(self):
        """The next piece of the body as it comes, b"" at its end."""
        if self.is_chunked:
            n = int(self._line(), 16)
            data = self._take(n)
            self._take(2)
            return data
        if self.left and not self.buffer:
            self._more()
        data, self.buffer = self.buffer[:self.left], self.buffer[self.left:]
        self.left -= len(data)
        return data

    def body(self):
        out = b""
        while data := self.piece():
            out += data
        return out

    def answer(self):
        """(status, headers, body) of a whole answer."""
        status, headers = self.head()
        return status, headers, self.body()

    def events(self):
        """Data of SSE events one by one, parsed unless it is [DONE]. Any line that is neither data nor comment is an error."""
        text = b""
        while data := self.piece():
            text += data
            while b"\n\n" in text:
                block, _, text = text.partition(b"\n\n")
                for line in block.split(b"\n"):
                    if line.startswith(b":"):
                        self.comments.append(line.decode())
                        continue
                    assert line.startswith(b"data: "), f"no data line: {block!r}"
                    yield "[DONE]" if line[6:] == b"[DONE]" else json.loads(line[6:])
        assert not text, f"a stream ended inside an event: {text!r}"

    def is_closed_by_node(self, limit=10.0):
        """Read until the node closes; True when it did within the limit."""
        self.sock.settimeout(limit)
        try:
            while True:
                self._more()
        except Closed:
            return True
        except TimeoutError:
            return False


def text_of(events):
    """Text of a stream of chunks of one choice."""
    return "".join(c["delta"].get("content") or "" for e in events if isinstance(e, dict) for c in e.get("choices", []))
