"""dumbwaiter: watches folders, uploads what is dropped there with short-lived credentials, and keeps a catalog."""

import sys

__version__ = "0.1.0"

# httpx has a command line, and would load rich and pygments for it: 0.1 seconds and 5 MiB in every process.
sys.modules["httpx._main"] = None  # type: ignore[assignment]
