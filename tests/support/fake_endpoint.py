"""An endpoint on this machine that answers as it is told: well, late, wrong, with nonsense, or not at all."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """See the module.

    Attributes:
        answers: What to do next: a content, (status, headers, body), or a callable of the connection; the last for ever.
        asked: Path, headers and body of each request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked = ["a cat at night"], []
        self.lock = threading.Lock()

    def handle_error(self, *_):
        """Of an asker that has hung up: it is meant to."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append((self.path, dict(self.headers), body))
            answer = self.server.answers[0] if len(self.server.answers) == 1 else self.server.answers.pop(0)
        if callable(answer):
            answer = answer(body)
        if isinstance(answer, str):
            answer = 200, {}, json.dumps({"choices": [{"message": {"content": answer}}]})
        status, headers, text = answer
        if status is None:  # hang up
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text.encode())), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    """A server while the block lasts."""
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()
