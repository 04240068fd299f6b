"""An ASGI application with one form; what is sent comes back as JSON."""

from __future__ import annotations

from typing import Any

FORM = b"<!doctype html><html lang=en><title>Join</title><h1>Join</h1><form method=post><p><label>Your name \
<input name=owner></label></p><button>Send</button></form>"


async def application(scope: dict, receive: Any, send: Any) -> None:
    """Answer one request."""
    if scope["type"] != "http":
        return
    await receive()
    is_page = scope["method"] == "GET"
    kind = b"text/html" if is_page else b"application/json"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": FORM if is_page else b'{"ok": true}'})
