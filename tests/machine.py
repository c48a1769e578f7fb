"""A machine that systemd runs, in namespaces of its own: its disk is this one's, and what it writes to it is dropped."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0
GUEST = Path("/srv/test")  # where the test's folder is inside
SOURCE = Path("/srv/checkout")  # where this checkout is inside
PREFIX = Path(sys.prefix).resolve()
ACCOUNT = "ann"
UID = 4242
# What would change the kernel that the machine shares with us, or has nothing to do here.
MASKED = [
    "systemd-udevd",
    "systemd-udev-trigger",
    "systemd-sysctl",
    "systemd-modules-load",
    "systemd-timesyncd",
    "systemd-networkd",
    "systemd-resolved",
    "systemd-binfmt",
    "systemd-random-seed",
    "systemd-pstore",
    "systemd-update-utmp",
    "systemd-firstboot",
    "systemd-journal-flush",
    "systemd-tmpfiles-clean",
    "systemd-tmpfiles-setup",  # it empties /tmp
    "kmod-static-nodes",
]
SOCKETS = [
    "systemd-journald-audit.socket",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "proc-sys-fs-binfmt_misc.automount",
    "dev-hugepages.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount",
    "dev-mqueue.mount",
]

BOOT = """
set -e
mkdir -p "$GROUP"
echo $$ > "$GROUP/cgroup.procs"
exec unshare --mount --pid --fork --kill-child --uts --ipc --cgroup --mount-proc sh -ec '
mount --make-rprivate /
mount -t tmpfs tmpfs "$SCRATCH"
mkdir "$SCRATCH/upper" "$SCRATCH/work" "$SCRATCH/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work" "$SCRATCH/root"
cd "$SCRATCH/root"
mkdir -p srv/test old
mount --bind "$SHARED" srv/test
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup
umount sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm dev/mqueue dev/hugepages
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for one in null zero full random urandom tty fuse; do
    mknod dev/$one c $((0x$(stat -c %t /dev/$one))) $((0x$(stat -c %T /dev/$one))); chmod 666 dev/$one
done
mount -t devpts devpts dev/pts
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
sh "srv/test/prepare"
mount -o bind,ro proc/sys proc/sys
pivot_root . old
umount -l /old
mount --make-rshared /
exec env -i container=test PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
    /lib/systemd/systemd --system --unit=test.target --show-status=0
'
"""


def missing() -> str:
    """Says why no machine can be booted here; nothing when one can."""
    if os.geteuid() != 0:
        return "booting systemd in a namespace needs root"
    if not os.path.exists("/lib/systemd/systemd") or not shutil.which("unshare"):
        return "systemd or unshare is not installed"
    if _unified() is None:
        return "there is no cgroup2 file system"
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--cgroup", "true"], check=False, capture_output=True
    )
    return "" if done.returncode == 0 else "no namespace can be made here"


def _unified() -> Path | None:
    with open("/proc/mounts", encoding="utf-8") as lines:
        found = [line.split()[1] for line in lines if line.split()[2] == "cgroup2"]
    return Path(found[0]) if found else None


class Machine:
    """One booted machine; `shared` is GUEST inside it, and Python finds modules in `path`."""

    def __init__(self, shared: Path, scratch: Path, path: str = f"{SOURCE}/daemon:{SOURCE}/fs") -> None:
        self._path = path
        unified = _unified()
        assert unified is not None
        self._group = unified / f"dumbwaiter-test-{uuid.uuid4().hex[:12]}"
        (shared / "prepare").write_text(self._prepare())
        self._log = (shared / "boot.log").open("w+", encoding="utf-8")
        self._boot = subprocess.Popen(
            ["sh", "-c", BOOT],
            env=os.environ | {"SHARED": str(shared), "SCRATCH": str(scratch), "GROUP": str(self._group)},
            stdin=subprocess.DEVNULL,
            stdout=self._log.fileno(),
            stderr=subprocess.STDOUT,
        )
        self._init: int | None = None
        self.until(self._up)

    def _prepare(self) -> str:
        """Returns a script that makes the machine's disk ready; it runs in its root, before it starts."""
        lines = [
            "chmod 711 root",  # the interpreter may live there
            f"echo '{ACCOUNT}:x:{UID}:{UID}::/home/{ACCOUNT}:/bin/sh' >> etc/passwd",
            f"echo '{ACCOUNT}:x:{UID}:' >> etc/group",
            f"echo '{ACCOUNT}:*:19000:0:99999:7:::' >> etc/shadow",
            f"mkdir -p home/{ACCOUNT}; chown {UID}:{UID} home/{ACCOUNT}; chmod 700 home/{ACCOUNT}",
            "rm -rf etc/systemd/system/*.wants etc/systemd/system/*.requires var/lib/systemd/linger/*",
            "printf '[Unit]\\nRequires=basic.target dbus.socket systemd-logind.service\\n' > etc/systemd/system/test.target",
            "mkdir -p etc/systemd/system.conf.d etc/systemd/user.conf.d",
            *(
                f"printf '[Manager]\\nDefaultEnvironment=PYTHONPATH={self._path}\\n' > etc/systemd/{one}.conf.d/t.conf"
                for one in ("system", "user")
            ),
        ]
        # Either may lie in /tmp, which is another one inside.
        for place, inside in ((ROOT, SOURCE), (PREFIX, PREFIX)):
            at = inside.relative_to("/")
            lines.append(f"mkdir -p {at}; mount --bind {place} {at}; mount -o remount,bind,ro {at}")
        folder = "etc/systemd/system/dumbwaiter@.service.d"  # whose /tmp is another one again
        lines.append(f"mkdir {folder}; printf '[Service]\\nBindReadOnlyPaths={PREFIX}\\n' > {folder}/program.conf")
        lines += [f"ln -sf /dev/null etc/systemd/system/{one}.service" for one in MASKED]
        lines += [f"ln -sf /dev/null etc/systemd/system/{one}" for one in SOCKETS]
        return "\n".join(["set -e", *lines, ""])

    def _up(self) -> bool:
        assert self._boot.poll() is None, self.log()
        if self._init is None:
            children = Path(f"/proc/{self._boot.pid}/task/{self._boot.pid}/children").read_text().split()
            if not children or Path(f"/proc/{children[0]}/comm").read_text() != "systemd\n":
                return False
            self._init = int(children[0])
        return self("systemctl", "is-active", "test.target").stdout == "active\n"

    def __call__(self, *words: str, account: str = "root", check: bool = False) -> "subprocess.CompletedProcess[str]":
        """Runs a program inside, as a person who is logged in would."""
        done = subprocess.run(
            self.inside(*words, account=account),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, (words, done.stdout, done.stderr, self.log())
        return done

    def inside(self, *words: str, account: str = "root") -> list[str]:
        """Returns what runs a program inside, for those who keep it running."""
        who = pwd.getpwnam("root") if account == "root" else None
        home = "/root" if who else f"/home/{account}"
        uid = 0 if who else UID
        environment = [
            f"HOME={home}", f"USER={account}", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            f"XDG_RUNTIME_DIR=/run/user/{uid}", f"PYTHONPATH={self._path}", "LC_ALL=C.UTF-8",
        ]  # fmt: skip
        switch = [] if who else ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
        return [
            "nsenter", f"--target={self._init}", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--wd=/",
            "env", "-i", *environment, *switch, *words,
        ]  # fmt: skip

    def dumbwaiter(self, *words: str, account: str = "root", check: bool = False) -> "subprocess.CompletedProcess[str]":
        return self(f"{PREFIX}/bin/python", "-m", "dumbwaiter", *words, account=account, check=check)

    def show(self, unit: str, name: str, *flags: str, account: str = "root") -> str:
        """Returns a property of a unit."""
        return self("systemctl", *flags, "show", unit, f"--property={name}", "--value", account=account).stdout.strip()

    def log(self) -> str:
        """Returns the latest that was said inside."""
        if self._init is None:
            self._log.seek(0)
            return self._log.read()
        return self("sh", "-c", "journalctl --no-pager -o cat | tail -60").stdout

    def until(self, true: Any, patience: float = PATIENCE) -> None:
        """Waits for another process to have done something that gives no event here."""
        deadline = time.monotonic() + patience
        while not true():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def close(self) -> None:
        """Ends everything inside, and leaves nothing outside."""
        self._boot.send_signal(signal.SIGKILL)  # unshare takes the first process with it, and that all others
        self._boot.wait()
        self._log.close()
        self.until(lambda: all(_removed(folder) for folder in _groups(self._group)))


def _groups(top: Path) -> Sequence[Path]:
    return [*sorted((path for path in top.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts)), top]


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # a process in it is still on its way out
        return False
    return True
