"""Every command that a page shows, typed in the order of the page, by Ann at a machine of hers.

The machine has a systemd of its own and none of this one's disk is written to, so what installs, mounts, enables, restarts
or removes is run like everything else. The README is read by `test_readme.py` as well, on any machine.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from machine import ACCOUNT, GUEST, PREFIX, SOURCE, UID, Machine, missing
from program import PATIENCE, Vendors
from terminal import until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("machine")]
booted = pytest.mark.skipif(bool(missing()), reason=missing())

ROOT = Path(__file__).parents[2]
HOME = f"/home/{ACCOUNT}"
SITE = next(PREFIX.glob("lib/python*/site-packages"))
PAGES = sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
# What cannot be typed here, and why. It goes from here when no page shows it.
NEVER = {
    "make test": "it is what runs this",
    "ssh -L 8384:127.0.0.1:8384 ann@server": "there is no other machine",
}
ELSEWHERE = {"make demo": "test_demo.py", "createdb dumbwaiter": "test_postgresql.py"}
# What stays until Ann presses Ctrl-C, and what she sees before she does.
EVENTS = 'curl -sN --unix-socket "$XDG_RUNTIME_DIR/dumbwaiter/control.sock" http://localhost/events'
METRICS = 'curl -s --unix-socket "$XDG_RUNTIME_DIR/dumbwaiter/control.sock" http://localhost/metrics'
STAYS = {
    "dumbwaiter status --watch": "files? done, ",
    "dumbwaiter -v run": "scanned",
    "dumbwaiter run": "scanned",
    EVENTS: "event: snapshot",
}
# What Ann does before a line, where a page shows one way and then another.
FROM_SYSTEM = ["sudo dumbwaiter service uninstall --system --for ann", "dumbwaiter service install"]
MOVED = [
    "sudo mkdir -p /var/lib/dumbwaiter",
    "sudo mv -T /home/ann/.local/state/dumbwaiter /var/lib/dumbwaiter/ann",
]
SECRET = 's|{ env = "VOD_SECRET" }|{ file = "vod.secret" }|'
IN_CHECKOUT = ["cd ~/dumbwaiter"]
FIRST = {
    "README.md": {
        "dumbwaiter service install": [f"sed -i '{SECRET}' ~/.config/dumbwaiter/config.toml"],
        "dumbwaiter mount ~/Uploads --background": ["systemctl --user stop dumbwaiter-mount"],
    },
    "docs/install.md": {
        "python3 -m venv ~/.local/share/dumbwaiter-env": ["pipx uninstall dumbwaiter"],
        "pipx install dist/dumbwaiter-*.whl": ["rm ~/.local/bin/dumbwaiter"],
        "pipx install --force .": IN_CHECKOUT,
        "systemctl --user restart dumbwaiter dumbwaiter-mount": FROM_SYSTEM,
    },
    "docs/operating.md": {"sudo dumbwaiter service install --system --for ann": MOVED, METRICS: FROM_SYSTEM},
    "docs/troubleshooting.md": {"dumbwaiter -v run": ["systemctl --user stop dumbwaiter"]},
}
INSTALLED = {"docs/operating.md", "docs/troubleshooting.md", "docs/api.md"}  # they speak to who has the service
# What a line says, where it is not enough that it ends well.
SAYS = {
    "dumbwaiter --version": "^dumbwaiter, version [0-9]",
    "dumbwaiter put film.mov": "^http",
    "dumbwaiter link drop/film.mov": "^http",
    "dumbwaiter link drop/film.mov --format markdown": r"^\[film\.mov\]\(http",
    "dumbwaiter status ~/Drop/film.mov": "^job 2: done",
    "dumbwaiter status masters/film.mov": "^job 1: done",
    "dumbwaiter check --online film.mov": "film.mov",
    "dumbwaiter service status": "^dumbwaiter.service: active",
    "sudo dumbwaiter service status --system --for ann": "^dumbwaiter@ann.service: active",
    "ls ~/Uploads/files/drop": "^film.mov$",
    METRICS: "^dumbwaiter_jobs",
    "systemd-analyze security --offline=true systemd/dumbwaiter@.service": r"level for .*: 1\.4 OK",
}
# Programs of others that a sentence mentions, and how Ann types them.
PROGRAMS = "sudo|systemctl|journalctl|fuser|rm|chmod|make|pip|getfattr"
TYPED = {
    "systemctl --user status dumbwaiter": "systemctl --user status dumbwaiter",
    "systemctl --user restart dumbwaiter": "systemctl --user restart dumbwaiter",
    "journalctl --user -u dumbwaiter": "journalctl --user -u dumbwaiter",
    "journalctl --user -u dumbwaiter -p warning": "journalctl --user -u dumbwaiter -p warning",
    "fuser -vm DIR": "cd ~/Uploads && fuser -vm ~/Uploads; code=$?; cd ~/dumbwaiter; (exit $code)",
    "fuser -v FILE": "exec 9>>~/held; fuser -v ~/held; code=$?; exec 9>&-; rm ~/held; (exit $code)",
    "chmod 600 ~/.config/dumbwaiter/config.toml": "chmod 600 ~/.config/dumbwaiter/config.toml",
    "systemctl --user stop dumbwaiter": "systemctl --user stop dumbwaiter",
    "rm -r ~/.local/state/dumbwaiter": "rm -r ~/.local/state/dumbwaiter",
    "pip install --upgrade .": "sudo /opt/dumbwaiter/bin/pip install --upgrade .",
}
NOT_TYPED = {
    "sudo apt-get install libfuse2 fuse": "fetches packages; tools/system-packages does that for `make`",
    "sudo apt-get install libfuse2t64 fuse3": "the same, on another system",
    "sudo apt-get install libfuse3-4 fuse3": "the same, on another system",
    "sudo dnf install fuse fuse-libs": "another system's",
    "sudo pacman -S fuse2": "another system's",
    "sudo systemctl edit dumbwaiter@ann": "opens an editor",
    "systemctl --user edit dumbwaiter": "opens an editor",
    "sudo dumbwaiter service uninstall --system --for ann": "test_units.py types it",
    "getfattr -n user.dumbwaiter.error FILE": "tests/fs/test_semantics.py types it",
    "make demo": "test_demo.py types it",
    "make test": "it is what runs this",
    "make torture": "what `make test` leaves out because it takes long",
    "make soak SECONDS=600": "as long as it says",
    "make check": "it is no test",
    "make bench": "takes an hour on a machine that does nothing else",
    "make bench ARGS=--quick": "minutes, on a machine that does nothing else",
}


def shown(page: str) -> list[str]:
    """Returns what a page tells to type, without the remarks."""
    text = (ROOT / page).read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    return [typed for line in lines if (typed := re.sub(r"\s+#.*", "", line).strip())]


# Both languages of the README tell the same, see test_readme.py.
SHOWN = {page: lines for page in PAGES if page != "README.zh-CN.md" and (lines := shown(page))}
# How the program gets there for the whole machine: typed before any page is read.
FOR_ALL = [line for line in SHOWN["docs/install.md"] if line.startswith("sudo ") and "/opt/dumbwaiter" in line]


PYTHON = getattr(sys, "_base_executable", sys.executable)
# What the machine has: the installers, and in pipx' own place what dumbwaiter needs, so that nothing is downloaded.
FURNISH = f"""
ln -s {PREFIX}/bin/pip {PREFIX}/bin/pipx /usr/local/bin
printf '#!/bin/sh\\nexec {PYTHON} "$@"\\n' > /usr/local/bin/python3
chmod 755 /usr/local/bin/python3
mkdir -p /var/log/journal  # a journal that is kept has a file for each account
journalctl --flush
mkdir -p -m 777 /srv/pipx
mkdir /srv/pipx/shared
mount --bind {PREFIX} /srv/pipx/shared
cd {GUEST}
touch folder settings
chmod 666 folder settings
"""
# What Ann has, each time anew: a checkout with a film in it, and she is logged in.
SETTLE = f"""
loginctl enable-linger {ACCOUNT}
export PYTHONPATH={SITE}:{SOURCE}/daemon
as_ann() {{ setpriv --reuid={UID} --regid={UID} --clear-groups env HOME={HOME} XDG_RUNTIME_DIR=/run/user/{UID} "$@"; }}
as_ann {PREFIX}/bin/python -m dumbwaiter service uninstall
{PREFIX}/bin/python -m dumbwaiter service uninstall --system --for {ACCOUNT}
rm -rf {HOME} /var/lib/dumbwaiter /var/cache/dumbwaiter
mkdir -p {HOME}/dumbwaiter {HOME}/.config/dumbwaiter
cd {SOURCE}
cp -r pyproject.toml README.md LICENSE daemon fs systemd {HOME}/dumbwaiter
echo film > {HOME}/dumbwaiter/film.mov
chown -R {ACCOUNT}: {HOME}
"""


class Ann:
    """Ann at a terminal of her machine, with the vendors in its network."""

    def __init__(self, folder: Path) -> None:
        self.shared = folder / "shared"
        self.shared.mkdir(parents=True)
        (folder / "scratch").mkdir()
        with ExitStack() as stack:
            self.vendors = Vendors(self.shared / "vendors")
            stack.callback(self.vendors.close)
            self.account = self.vendors.sandbox.accounts["netease"]
            self.machine = Machine(self.shared, folder / "scratch", str(SITE))
            stack.callback(self.machine.close)
            self._root(FURNISH)
            self.settle()
            for line in FOR_ALL:
                self.type(line)
            self.close = stack.pop_all().close

    def settle(self) -> None:
        """Makes her home and her services as they are before she reads a page."""
        self._root(SETTLE)
        (self.shared / "vod.secret").write_text(self.account["app_secret"])
        self._root(f"install -D -m 600 -o {ACCOUNT} {GUEST}/vod.secret {HOME}/.config/dumbwaiter/vod.secret")
        (self.shared / "folder").write_text(f"{HOME}/dumbwaiter\n")
        (self.shared / "settings").write_text("")

    def install(self, more: str = "") -> None:
        """Brings her to where a page finds her that speaks to somebody who has the service."""
        secret = "--secret-file ~/.config/dumbwaiter/vod.secret"
        self.type("mkdir ~/masters && cp film.mov ~/masters")
        self.type(f"dumbwaiter init --app-key KEY {secret} --watch ~/masters {more}")
        self.type("sed -i s/watch.drop/watch.masters/ ~/.config/dumbwaiter/config.toml")
        self.type("dumbwaiter service install")
        self.type("dumbwaiter wait")

    def _root(self, line: str) -> None:
        self.machine("sh", "-ec", line, check=True)

    def _inside(self, line: str) -> list[str]:
        """Returns what runs a line in bash, where the line before it left her."""
        settings = {
            "PATH": f"{HOME}/.local/bin:/usr/local/bin:/usr/bin:/bin",
            "PIP_NO_INDEX": "1",  # what dumbwaiter needs is there, in this test's own environment
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIPX_SHARED_LIBS": "/srv/pipx/shared",
            "PIPX_DISABLE_SHARED_LIBS_AUTO_UPGRADE": "1",
            "TERM": "xterm",
        }
        sudo = line.startswith("sudo ")
        script = f'cd "$(cat {GUEST}/folder)" && '
        script += (
            line.removeprefix("sudo ")
            if sudo
            else f". {GUEST}/settings\n{line}\ncode=$?\nexport -p > {GUEST}/settings; pwd > {GUEST}/folder; exit $code"
        )
        words = ["env", "--chdir=/", *(f"{name}={value}" for name, value in settings.items()), "bash", "-c", script]
        return self.machine.inside(*words, account="root" if sudo else ACCOUNT)

    def _meant(self, line: str) -> str:
        """Returns a line with what a page cannot know."""
        urls = self.vendors.sandbox.urls
        forms = self.vendors.sandbox.accounts["jiandaoyun"]
        line = line.replace("export VOD_SECRET=SECRET", f"export VOD_SECRET={self.account['app_secret']}")
        line = line.replace("https://api.jiandaoyun.com", urls["forms"]).replace("$JDY_KEY", forms["api_key"])
        line = line.replace("59264073a2a60c0c08e20bfb", forms["app_id"]).replace(
            "59264073a2a60c0c08e20bfd", forms["entry_id"]
        )
        if " init " in line:
            line = re.sub("--app-key [^ ]+", f"--app-key {self.account['app_key']}", line)
            places = {"api": urls["vod"], "lbs": urls["lbs"], "cdn": urls["cdn"] + "/{bucket}"}
            line += "".join(f" --set {key}='{url}'" for key, url in places.items())
        return line

    def type(self, line: str) -> str:
        """Types a line and returns what it says."""
        words = self._inside(self._meant(line))
        if line in STAYS:
            return until(words, STAYS[line])
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        good = {0, 1} if line.startswith("dumbwaiter doctor") else {0}  # it need not like this machine
        assert done.returncode in good, (line, done.stdout, done.stderr, self.machine.log())
        assert "Traceback" not in done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ann]:
    made = Ann(tmp_path_factory.mktemp("ann"))
    yield made
    made.close()


@booted
def test_the_programs_of_others_that_a_sentence_mentions_do_their_work(ann: Ann) -> None:
    ann.settle()
    ann.install("--mount ~/Uploads")
    for line in TYPED.values():
        ann.type(line)


def test_no_program_of_others_is_mentioned_untried() -> None:
    prose = [
        re.sub("```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL) for page in (*PAGES, "fs/SEMANTICS.md")
    ]
    mentioned = {" ".join(one.split()) for text in prose for one in re.findall(f"`((?:{PROGRAMS}) [^`…]*)`", text)}
    # Short forms of what is typed in full elsewhere: a word, and an option alone.
    assert {one for one in mentioned if one not in {"systemctl stop", "chmod 600"}} == TYPED.keys() | NOT_TYPED.keys()


@booted
@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", SHOWN)
def test_every_command_of_a_page_does_its_work(ann: Ann, page: str) -> None:
    ann.settle()
    if page in INSTALLED:
        ann.install()
    for line in SHOWN[page]:
        if line in NEVER or line in ELSEWHERE or line in FOR_ALL:
            continue
        for first in FIRST.get(page, {}).get(line, ()):
            ann.type(first)
        said = ann.type(line)
        assert re.search(SAYS.get(line, ""), said, re.MULTILINE), (line, said)


def test_what_is_left_out_or_treated_in_its_own_way_is_still_shown() -> None:
    lines = {line for page in SHOWN.values() for line in page}
    assert NEVER.keys() | ELSEWHERE.keys() | STAYS.keys() | SAYS.keys() <= lines
    for page, own in FIRST.items():
        assert own.keys() <= set(SHOWN[page])
    for line, test in ELSEWHERE.items():
        words = ", ".join(f'"{word}"' for word in line.split())
        assert words in Path(__file__).with_name(test).read_text()
