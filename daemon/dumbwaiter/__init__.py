"""dumbwaiter: watches folders, uploads what is dropped there with short-lived credentials, and keeps a catalog."""

__version__ = "0.1.0"
