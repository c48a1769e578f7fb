"""The binding to libfuse, whichever there is: fusepy over libfuse 2, else mfusepy, its twin, over libfuse 3.

DUMBWAITER_FUSE names one of the two where both would do.
"""

import functools
import os
from typing import Any

_NAMES = ("fusepy", "mfusepy")


def _load() -> tuple[str, Any]:
    wanted = os.environ.get("DUMBWAITER_FUSE")
    trouble: Exception = OSError("DUMBWAITER_FUSE is neither of " + ", ".join(_NAMES))
    for name in _NAMES:
        if wanted not in {None, "", name}:
            continue
        try:
            if name == "mfusepy":
                import mfusepy

                return name, mfusepy
            import fuse

            if not 20 <= int(fuse._libfuse.fuse_version()) < 30:  # noqa: SLF001 - the binding offers no other way
                raise OSError("libfuse is not of version 2")
            return name, fuse
        except (OSError, AttributeError, ImportError) as error:
            trouble = error
    raise OSError(f"there is no libfuse: {trouble}")


NAME, module = _load()
library: Any = module._libfuse  # noqa: SLF001
FuseOSError: Any = module.FuseOSError
Operations: Any = module.Operations


def serve(operations: Any, folder: str, encoding: str, options: dict[str, Any]) -> None:
    """Mounts and answers until the mount is taken off, in libfuse's own loop."""
    if NAME == "mfusepy":
        limits = {}
        if module.fuse_version_major >= 3:
            limits = {name: options[name] for name in ("max_read", *_AGREED) if name in options}
            options = {name: value for name, value in options.items() if name not in _AGREED}
            if (module.fuse_version_major, module.fuse_version_minor) >= (3, 12):
                options |= {"max_threads": _THREADS, "max_idle_threads": _IDLE}
        operations, options = _OneByOne(operations, limits), {**options, "errors": "strict"}
    module.FUSE(operations, folder, raw_fi=True, encoding=encoding, foreground=True, **options)


# Options of libfuse 2; in libfuse 3 they are agreed on when the kernel greets the mount, together with `max_read`, which
# has to stand in both places.
_AGREED = ("max_readahead", "max_background")
_IDLE = 10  # threads that are kept; by itself it would keep all
_THREADS = 1000  # at once, when so many readers wait; by itself libfuse 3 would let ten of them hold up everybody


class _OneByOne:
    """Hands each operation out as a function: mfusepy does not call the object itself."""

    use_ns = True

    def __init__(self, operations: Any, limits: dict[str, int]) -> None:
        self._operations = operations
        self._limits = limits

    def init_with_config(self, connection: Any, _config: Any) -> None:
        for name, value in self._limits.items():
            setattr(connection, name, value)
        self._operations("init", "/")

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._operations, name)
        if getattr(found, "libfuse_ignore", False):  # a place holder of the binding's own
            raise AttributeError(name)
        return functools.partial(self._operations, name) if callable(found) else found
