"""A server of the tests' own, started by a command, that writes what it received to a file: `server.py <port> <file>`.

It listens where it is told, keeps a child process running, and sends its pages wherever its test wants.
"""

from __future__ import annotations

import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FORM = "<h1>Join</h1><form method=post><p><label>Your name <input name=owner></label></p><button>Send</button></form>"
PAGES = {
    "/": FORM,
    "/away": FORM + "<a href=http://127.0.0.1:9/other>Other</a>",
    "/picture": FORM + "<img src=http://127.0.0.1:9/a.png><script>new WebSocket('ws://127.0.0.1:9/')</script>",
}


class Handler(BaseHTTPRequestHandler):
    """Answers in HTML."""

    def do_GET(self) -> None:
        """Serve a page, or lead away."""
        if self.path == "/elsewhere":
            self._answer(302, "", Location="http://127.0.0.1:9/there")
        else:
            self._answer(200, PAGES.get(self.path, "<p>Thank you.</p>"))

    def do_POST(self) -> None:
        """Take what is sent, and count what was taken since the last reset."""
        sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
        file = Path(sys.argv[2])
        taken = file.read_text() if file.exists() else ""
        file.write_text(f"{taken}{sent}\n")
        self._answer(200, f"<p>You are number {len(taken.splitlines()) + 1}.</p>")

    def _answer(self, status: int, body: str, **headers: str) -> None:
        content = f"<!doctype html><html lang=en><title>Join</title>{body}".encode()
        self.send_response(status)
        for name, value in {"Content-Type": "text/html", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(f"{sys.argv[2]}.pid").write_text(str(child.pid))
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
