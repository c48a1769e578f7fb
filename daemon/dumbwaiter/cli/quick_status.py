"""`status` without options, as scripts and prompts ask for it all the time: a socket and JSON are all that is loaded.

Whatever else is typed, and every trouble on the way, is left to the rest of the program.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator, Sequence

from dumbwaiter.cli.words import hour, place, rests, size, to_put_away, when
from dumbwaiter.naming import counted
from dumbwaiter.peers import believed
from dumbwaiter.places import places, short

TYPE_CHECKING = False  # `typing` would take a tenth of the whole time
if TYPE_CHECKING:
    from typing import Any

PLAIN = {("status",): False, ("status", "--json"): True, ("--json", "status"): True}
LISTED = 1000  # jobs of one kind in an answer, at most
PATIENCE = 5.0  # seconds; the rest of the program has more


def answered(words: Sequence[str]) -> bool:
    """Prints the daemon's status if that is all that is wanted, and returns whether it did."""
    as_json = PLAIN.get(tuple(words))
    if as_json is None or (facts := _asked()) is None:
        return False
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
    else:
        try:
            print_status(facts)
        except KeyError:
            return False
    sys.stdout.flush()
    return True


def _asked() -> dict[str, Any] | None:
    """Returns the running daemon's status; None for any trouble, of which the rest of the program tells."""
    try:
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as answer:
            connection.settimeout(PATIENCE)
            where = places()
            with short(where.socket) as path:
                connection.connect(path)
            if not believed(connection, where.state):
                return None
            connection.sendall(b"GET /status HTTP/1.0\r\n\r\n")  # the answer ends with the connection
            head, _, body = answer.read().partition(b"\r\n\r\n")
        facts: dict[str, Any] = json.loads(body)
    except (OSError, ValueError):
        return None
    return facts if head.split()[1:2] == [b"200"] else None


def print_status(facts: dict[str, Any]) -> None:
    """Prints all of it, or raises KeyError for what a daemon of another version says."""
    print("\n".join([*_lines(facts)]))


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    totals = facts["totals"]
    yield "running" if facts["running"] else "not running"
    if facts["trouble"]:
        yield f"! {facts['trouble']}"
    for pause in facts["paused"]:
        yield f"! {rests(pause['name'], pause['until'])}"
    for watch in facts["watches"]:
        waits = f", waits for {hour(watch['opens_at'])}" if watch["opens_at"] else ""
        yield (
            f"{watch['name']}: {watch['state']}{waits}, {counted(watch['files'], 'file')} uploaded, {watch['pending']} to go"
            f"  {watch['path']} → {watch['provider']}"
        )
        if watch["message"]:
            yield f"  ! {watch['message']}"
    for provider in facts["providers"]:
        if provider["error"]:
            again = f", next try {when(provider['next_at'])}" if provider["next_at"] else ""
            yield f"! {provider['name']} {provider['state']}{again}: {provider['error']}"
    yield from errand_lines(facts["errands"])
    for job in facts["jobs"]:
        yield f"{job['id']:>6}  {_stage(job):<24}  {place(job)}{'  ' + job['error'] if job['error'] else ''}"
    more = totals["pending"] + totals["stored"] + totals["rejected"] - len(facts["jobs"])
    if more > 0 and len(facts["jobs"]) >= LISTED:
        yield f"        and {counted(more, 'more file')}"
    yield (
        f"{totals['done']} done, {totals['pending'] + totals['stored'] + facts['settling']} to go, {to_put_away(totals)}"
        f"{totals['in_need']} need a person; "
        f"{size(totals['bytes_sent'])} sent, {size(totals['bytes_resent'])} more in vain or again"
    )


def errand_lines(errands: Sequence[dict[str, Any]]) -> Iterator[str]:
    for one in errands:
        yield f"! {one['what']} of {place(one)}: {one['error']} ({then(one)})"


def then(errand: dict[str, Any]) -> str:
    """Returns what comes next of something that failed once a job had ended."""
    if errand["due_at"]:
        return f"next try {when(errand['due_at'])}"
    if errand["what"] == "follow_up":
        return f"once you have seen to it: dumbwaiter forget {errand['job']}; put --again sends the file again"
    return f"given up: dumbwaiter retry {errand['job'] or '--all'}"


def _stage(job: dict[str, Any]) -> str:
    if job["state"] == "pending" and job["sent"]:
        return f"{job['sent'] * 100 // max(job['size'], 1)} % of {size(job['size'])}"
    return f"{job['state']} {size(job['size'])}"
