"""dumbwaiter: watches folders, uploads what is dropped there with short-lived credentials, and keeps a catalog."""

from importlib.metadata import version

__version__ = version("dumbwaiter")
