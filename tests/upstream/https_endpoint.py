"""A web server of the standard library that answers publishes over HTTPS as AWS IoT documents it, or otherwise."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from lorabridge.upstream.http import MAX_BODY


class HttpsEndpoint(socketserver.ThreadingTCPServer):
    """`answer(topic)` says the status of a publish; 0 closes without one."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, context: ssl.SSLContext, answer: Callable[[str], int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.context = context
        self.answer = answer
        self.taken: list[tuple[str, bytes]] = []
        """Topic and payload of everything that was answered with 200."""
        self.retained: list[str] = []
        """Topics of those of them that are to be retained."""
        self.asked: list[str] = []
        """Topics."""
        self.clients: list[dict[str, Any]] = []
        """The certificate on each connection."""
        self.protocols: list[str | None] = []
        """What ALPN chose on each connection."""
        self.open_requests = 0
        self.most_at_once = 0
        self.closes_after_each = False
        self.idle_limit: float | None = None
        """Seconds that a connection may be idle before it is closed."""
        self.closed = 0
        self.lock = threading.Lock()
        self.may_answer = threading.Event()
        self.may_answer.set()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def finish_request(self, request: Any, client_address: Any) -> None:
        """TLS on the thread of the connection, so that a slow handshake holds up nobody."""
        with self.context.wrap_socket(request, server_side=True) as wrapped:
            self.clients.append(wrapped.getpeercert() or {})
            self.protocols.append(wrapped.selected_alpn_protocol())
            wrapped.settimeout(self.idle_limit)
            try:
                super().finish_request(wrapped, client_address)
            finally:
                with self.lock:
                    self.closed += 1

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HttpsEndpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        where = urlsplit(self.path)
        query = parse_qs(where.query)
        is_retained = query.pop("retain", ["false"]) == ["true"]
        assert query == {"qos": ["1"]}
        assert where.path.startswith("/topics/")
        topic = unquote(where.path.removeprefix("/topics/"))
        server = self.server
        with server.lock:
            server.asked.append(topic)
            server.open_requests += 1
            server.most_at_once = max(server.most_at_once, server.open_requests)
        server.may_answer.wait(60)
        status = server.answer(topic)
        with server.lock:
            server.open_requests -= 1
            if status == 200:
                server.taken.append((topic, body))
                server.retained += [topic] * is_retained
        if status:
            self._say(status)
        self.close_connection = self.close_connection or not status or server.closes_after_each

    def _say(self, status: int) -> None:
        said = json.dumps({"message": "OK" if status == 200 else "Forbidden", "traceId": "0"}).encode()
        assert len(said) < MAX_BODY
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the base class
        """Silence."""


@contextmanager
def https_endpoint(
    context: ssl.SSLContext, answer: Callable[[str], int] = lambda _topic: 200
) -> Iterator[HttpsEndpoint]:
    """A server at work; in the end its open requests are answered."""
    server = HttpsEndpoint(context, answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.may_answer.set()
        server.shutdown()
        thread.join()
        server.server_close()
