"""Who is at the other end of a Unix socket, by the kernel's word: a path may lead anywhere, and anyone may claim anything."""

import os
import socket
import sys


def user(connection: socket.socket) -> int:
    """Returns the user id of the process that connected, or of the one that listens."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # process, user, group
    return int.from_bytes(credentials[4:8], sys.byteorder)


def believed(connection: socket.socket, state: str) -> bool:
    """Says whether the daemon of a state folder may be who listens: ourselves, root, or the owner of that folder."""
    uid = user(connection)
    if uid in {os.geteuid(), 0}:
        return True
    try:
        return uid == os.stat(state).st_uid
    except OSError:
        return False
