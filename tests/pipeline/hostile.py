"""Requests to a served model that ask for more than an answer to an image.

Each is (content type, body). None of them may open a file or a connection, and each must end with a
4xx status and a sentence.
"""

import base64
import io
import json
import struct
import zlib
from pathlib import Path

import pandas as pd

JSON = "application/json"
SECRET = "root:x:the-canary:/root"


def places(canary: Path, folder: Path, port: int) -> list[str]:
    """Texts that name something: the canary file, other files, and a listening port."""
    web = f"http://127.0.0.1:{port}/x.jpg"
    references = json.dumps({"version": 1, "refs": {"x": [f"file://{canary}", 2, 20]}})
    return [
        *(str(canary), f"file://{canary}", f"FILE://{canary}", f"file:{canary}"),
        *(f"file://localhost{canary}", f"local://{canary}", f"../../../../../../..{canary}"),
        *("~/.netrc", "/etc/passwd", "/dev/zero", "/dev/stdin", "/proc/self/environ"),
        *("/proc/self/fd/0", str(folder), str(folder / "pipe")),
        *(
            web,
            web.replace("http", "https"),
            web.replace("http", "HTTP"),
            f"ftp://127.0.0.1:{port}/x",
        ),
        *("http://127.0.0.1:99999/x.jpg", "http://[::1/x.jpg"),
        *(f"simplecache::{web}", f"filecache::file://{canary}", f"blockcache::{web}"),
        *(f"reference://x::file://{canary}", "reference://x::data:", f"reference://{references}"),
        *(f"zip://x.jpg::{canary}", f"tar://x.jpg::{canary}", f"libarchive://x::{canary}"),
        *("github://o:r@main/x", f"git://{folder}:x@main", "memory://x", "dask://x"),
        *("s3://bucket/x", "gs://bucket/x", "abfs://bucket/x", "hdfs://127.0.0.1/x"),
        *(f"ssh://127.0.0.1:{port}/x", f"sftp://127.0.0.1:{port}/x", f"smb://127.0.0.1:{port}/x"),
        *("data:text/plain,hello", "data:image/png;base64,aGVsbG8=", "dir://x", "generic://x"),
        *("", " ", "a\0b", "x" * 100_000, "/9j/" * 50_000, "📷.jpg"),
    ]


def images() -> list[bytes]:
    """Files that are no usable photo, and some that would be if memory had no end."""
    return [
        b"GIF89a" + b"\xff" * 500,
        b"BM" + SECRET.encode(),
        b"BM" + bytes(12) + b"\x28\0\0\0" + b"\x7f" * 60,
        b"\xff\xd8\xff" + SECRET.encode(),
        b"II*\0" + SECRET.encode(),
        b"RIFF....WEBP" + SECRET.encode(),
        png(60_000, 60_000)[:200],
        png(60_000, 60_000),
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"root:x:0:0:x",
    ]


def png(width: int, height: int) -> bytes:
    """A 1-bit PNG of any size, in few bytes."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * 10, 9)  # the first ten; more are not needed
    parts = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def request(cell: object) -> tuple[str, bytes]:
    return JSON, json.dumps({"dataframe_split": {"columns": ["image"], "data": [[cell]]}}).encode()


def requests(canary: Path, folder: Path, port: int) -> list[tuple[str, bytes]]:
    """All of them; well over thirty."""
    cells: list[object] = [*places(canary, folder, port)]
    cells += [base64.b64encode(image).decode() for image in images()]
    cells += [3, -1.5, True, None, [], [str(canary)], {"path": str(canary)}, {"bytes": None}]
    path = str(canary)
    bodies: list[object] = [
        *({}, [], 3, "text", {"dataframe_split": {}}, {"dataframe_split": {"columns": ["image"]}}),
        {"dataframe_split": {"columns": ["path"], "data": [[path]]}},
        {"dataframe_split": {"columns": ["image", "image"], "data": [[path, path]]}},
        *({"dataframe_records": [{"image": path}]}, {"dataframe_records": path}),
        *({"instances": [path]}, {"inputs": path}, {"inputs": {"image": [path]}}),
        *({"inputs": [{"image": path}]}, {"instances": {"image": path}}, {"messages": path}),
        {"dataframe_records": [{"image": path}], "params": {"image_schemes": ["file"]}},
        {"dataframe_records": [{"image": path}], "model_config": {"image_schemes": ["file"]}},
    ]
    table = pd.DataFrame({"image": [path]})
    parquet = io.BytesIO()
    table.to_parquet(parquet)
    return [
        *(request(cell) for cell in cells),
        *((JSON, json.dumps(body).encode()) for body in bodies),
        *((JSON, b""), (JSON, b"{"), (JSON, b"\xff\xfe"), (JSON, b"[" * 500)),
        *(("text/csv", table.to_csv(index=False).encode()), ("text/csv", b"\xff,")),
        *(("application/x-parquet", parquet.getvalue()), ("text/plain", path.encode())),
        ("application/json; charset=latin-1", b"{}"),
    ]
