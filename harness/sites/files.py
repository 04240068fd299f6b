"""The small files that a task of the rich world offers: made from their names alone, so that nothing is stored."""

from __future__ import annotations

import struct
import zlib

from harness.sites.schema import Site


def content_of(name: str) -> bytes:
    """A valid little file of the kind that the name says; equal names give equal bytes."""
    return _MAKERS.get(name.rsplit(".", 1)[-1], _plain)(name)


def offered_files(site: Site) -> dict[str, bytes]:
    """What may be uploaded on a site, by name."""
    names = [name for item in site.fields if item.spec.kind == "file" for name in item.texts]
    return {name: content_of(name) for name in names}


def _plain(name: str) -> bytes:
    return f"This is {name}.\n".encode()


def _pdf(name: str) -> bytes:
    """One empty page with the name as its title."""
    parts = (
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] >>",
        f"<< /Title ({name}) >>",
    )
    text, places = "%PDF-1.4\n", []
    for number, part in enumerate(parts, start=1):
        places.append(len(text))
        text += f"{number} 0 obj\n{part}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    start = len(text)
    text += f"xref\n0 {len(parts) + 1}\n0000000000 65535 f \n{table}"
    text += f"trailer\n<< /Size {len(parts) + 1} /Root 1 0 R /Info 4 0 R >>\nstartxref\n{start}\n%%EOF\n"
    return text.encode("ascii")


def _png(name: str) -> bytes:
    """Eight by eight pixels in a colour that follows from the name."""
    colour = struct.pack(">I", zlib.crc32(name.encode()))[:3]
    rows = b"".join(b"\x00" + colour * 8 for _ in range(8))
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


_MAKERS = {"pdf": _pdf, "png": _png}
