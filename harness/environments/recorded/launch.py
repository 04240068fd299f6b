"""Serves a WSGI or ASGI application on loopback. Run as a script, with nothing but the standard library, since the
interpreter may be that of the user's own environment: `launch.py <file>:<attribute> <folder>`, in the folder that it
belongs to. An ASGI application needs uvicorn there.

The first line on stdout is the port. The process ends when its stdin does, and so with whoever started it, and removes
the second argument, its copy of the user's folder: whoever was killed cannot.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import shutil
import socket
import sys
import threading
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, TextIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _end_with_parent() -> None:
    sys.stdin.read()
    shutil.rmtree(sys.argv[2], ignore_errors=True)
    os._exit(0)


def main() -> None:
    """Load the application and serve it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    file, _, attribute = sys.argv[1].rpartition(":")
    path = Path(file).resolve()
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("served_application", path)
    assert spec is not None
    assert spec.loader is not None
    # What the application prints must not be taken for the port.
    out, sys.stdout = sys.stdout, sys.stderr
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    application = getattr(module, attribute)
    if _is_asgi(application):
        _serve_asgi(application, out)
    server = make_server("127.0.0.1", 0, application, _Server, _Quiet)
    print(server.server_port, file=out, flush=True)
    server.serve_forever()


def _is_asgi(application: object) -> bool:
    return any(map(inspect.iscoroutinefunction, (application, type(application).__call__)))


def _serve_asgi(application: Any, out: TextIO) -> None:
    try:
        import uvicorn
    except ModuleNotFoundError:
        sys.exit("an ASGI application is served with uvicorn, which this Python lacks")
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    print(listener.getsockname()[1], file=out, flush=True)
    uvicorn.Server(uvicorn.Config(application, log_level="error")).run(sockets=[listener])
    os._exit(0)


if __name__ == "__main__":
    main()
