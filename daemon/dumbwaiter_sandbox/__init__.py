"""The vendors on loopback: for tests, for the demo, for anyone without an account.

They check what the vendors check, with code of their own: this package imports nothing of `dumbwaiter`, so that an error in
one is not cancelled by the same error in the other.
"""

from dumbwaiter_sandbox.clock import Clock
from dumbwaiter_sandbox.sandbox import Sandbox, config, serve

__all__ = ["Clock", "Sandbox", "config", "serve"]
