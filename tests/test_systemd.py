"""The units are what systemd takes, and they keep the promises that their comments make."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parent.parent / "systemd"
PROGRAM = Path(shutil.which("true") or "/bin/true")

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def read(name: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name)
    return parser["Service"]


@needs_systemd
@pytest.mark.parametrize("scope", ["--user", "--system"])
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path, scope: str) -> None:
    for unit in UNITS.glob("*.service"):
        # The program is wherever it was installed; its place is no part of the check.
        text = unit.read_text().replace("/usr/local/bin/dumbwaiter", str(PROGRAM))
        (tmp_path / unit.name).write_text(text.replace("Documentation=man:dumbwaiter(1)\n", ""))
    done = subprocess.run(
        ["systemd-analyze", scope, "verify", *map(str, tmp_path.glob("*.service"))],
        capture_output=True,
        text=True,
        check=False,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    ours = [line for line in done.stderr.splitlines() if "dumbwaiter" in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


def test_a_restart_is_not_tried_where_it_would_change_nothing() -> None:
    assert read("dumbwaiter.service")["RestartPreventExitStatus"] == "2 21"


def test_the_mount_is_cleared_away_after_a_crash() -> None:
    assert read("dumbwaiter-mount.service")["ExecStopPost"].endswith("umount")


def test_nothing_keeps_fusermount_from_working() -> None:
    assert not {key for key in read("dumbwaiter-mount.service") if key.startswith(("Protect", "Private", "NoNew"))}
