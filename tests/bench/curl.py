"""curl, fed in two ways with the same bytes: as 4 MiB requests, and as one body.

For the requests the file is cut into pieces of 4 MiB beforehand (as page-cached as the whole). One curl process uploads
them with -T over one connection, from a config file whose requests are separated by `next`: the URLs, method and headers
that dumbwaiter sends, its answers thrown away. The context of each answer cannot be read by curl; the sink always gives
the same one, so it stands in the config file.
"""

import os
from typing import Any
from urllib.parse import quote

from tests.bench import process
from tests.bench.nos_sink import CONTEXT
from tests.bench.sink import SinkProcess
from tests.bench.vendor import BUCKET, OBJECT, token

CHUNK = 4 * 1024 * 1024
COPY = 1024 * 1024


def cut(file: str, folder: str) -> list[str]:
    """Writes a file's pieces into a folder and returns their paths in order."""
    os.makedirs(folder)
    pieces: list[str] = []
    with open(file, "rb") as source:
        while block := source.read(CHUNK):
            pieces.append(os.path.join(folder, f"{len(pieces):06}"))
            with open(pieces[-1], "wb") as piece:
                piece.write(block)
    return pieces


def requests(pieces: list[str], sink: str, place: str) -> list[str]:
    """Writes the config file for the pieces to `place` and returns the command."""
    offset = 0
    blocks = []
    for piece in pieces:
        last = piece == pieces[-1]
        blocks.append(_request(piece, _url(sink, offset, complete=last)))
        offset += os.path.getsize(piece)
    return _command("\nnext\n".join(blocks), place)


def one_body(file: str, sink: str, place: str) -> list[str]:
    """Writes the config file for the whole to `place` and returns the command."""
    return _command(_request(file, _url(sink, 0, complete=True)), place)


def send(command: list[str], size: int, sink: SinkProcess) -> dict[str, float]:
    """Runs curl and returns the measured figures."""
    usage = process.measure(command)
    arrival: dict[str, Any] = sink.arrival()
    assert arrival["bytes"] == size, f"{arrival['bytes']} bytes reached the sink, not {size}"
    return {
        "first": arrival["first"],
        "seconds": usage.ended - arrival["first"],
        "whole": usage.ended - usage.started,
        "wire": arrival["last"] - arrival["first"],
        "cpu": usage.cpu,
        "peak": usage.peak,
        "requests": arrival["requests"],
        "connections": arrival["connections"],
    }


def _command(config: str, place: str) -> list[str]:
    with open(place, "w", encoding="utf-8") as file:
        file.write(config)
    return ["curl", "-q", "--config", place]


def _request(file: str, url: str) -> str:
    lines = {
        "url": url,
        "upload-file": file,
        "request": "POST",
        "output": os.devnull,
        "noproxy": "*",
    }
    headers = (
        f"x-nos-token: {token()}",
        "Content-Type: application/octet-stream",
        "Expect:",  # as dumbwaiter: it does not wait for leave to send
    )
    return "\n".join(
        [
            *(f'{name} = "{value}"' for name, value in lines.items()),
            *(f'header = "{value}"' for value in headers),
            "silent",
            "show-error",
            "fail",
        ]
    )


def _url(sink: str, offset: int, *, complete: bool) -> str:
    path = f"{quote(BUCKET, safe='')}/{quote(OBJECT, safe='')}"
    context = f"&context={CONTEXT}" if offset else ""
    return f"{sink}/{path}?offset={offset}&complete={str(complete).lower()}{context}&version=1.0"
