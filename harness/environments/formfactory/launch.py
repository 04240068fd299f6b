"""Serves the application of a checkout on loopback. Run as a script, with nothing but the standard library, since the
interpreter may be that of the user's own environment: `launch.py <file>:<attribute>`, in the folder it belongs to.

The first line on stdout is the port. The process ends when its stdin does, and so with whoever started it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    """Load the application and serve it."""
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
    server = make_server("127.0.0.1", 0, getattr(module, attribute), _Server, _Quiet)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    print(server.server_port, file=out, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
