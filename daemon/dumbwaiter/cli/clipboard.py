"""The clipboard: by a program of the desktop, else by asking the terminal (OSC 52), which works over SSH too."""

import base64
import os
import shutil
import subprocess

from dumbwaiter.errors import Failure

PROGRAMS = (  # the desktop's variable, and who serves its clipboard
    ("WAYLAND_DISPLAY", ["wl-copy"]),
    ("DISPLAY", ["xclip", "-selection", "clipboard"]),
    ("DISPLAY", ["xsel", "--clipboard", "--input"]),
)


def copy(text: str) -> str:
    """Puts `text` into the clipboard and returns who did it. Raises `Failure` when nobody can."""
    content = text.encode("utf-8", "backslashreplace")
    for variable, command in PROGRAMS:
        if os.environ.get(variable) and shutil.which(command[0]) and _served(command, content):
            return command[0]
    try:
        with open("/dev/tty", "wb", buffering=0) as terminal:
            terminal.write(b"\x1b]52;c;" + base64.b64encode(content) + b"\x07")
    except OSError:
        raise Failure("nothing was copied: there is no terminal, and no wl-copy, xclip or xsel of a desktop") from None
    return "the terminal"


def _served(command: list[str], content: bytes) -> bool:
    # They stay to serve what they hold: with our output in their hands, whoever reads it would wait for them.
    done = subprocess.run(
        command, input=content, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=10.0, check=False
    )
    return done.returncode == 0
