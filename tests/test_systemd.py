"""The units are what systemd takes, and they keep the promises that their comments make."""

import configparser
import re
import shutil
import subprocess
import sys
import zipfile
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


def analyze(*words: str, home: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["systemd-analyze", *words],
        capture_output=True,
        text=True,
        check=False,
        env={"XDG_RUNTIME_DIR": str(home), "PATH": "/usr/bin:/bin", "HOME": str(home)},
    )


@needs_systemd
@pytest.mark.parametrize(("scope", "pattern"), [("--user", "*[!@].service"), ("--system", "*@.service")])
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path, scope: str, pattern: str) -> None:
    for unit in UNITS.glob(pattern):
        # The program is wherever it was installed; its place is no part of the check.
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/local/bin/dumbwaiter", str(PROGRAM)))
    units = [str(path) for path in tmp_path.glob("*.service")]
    assert len(units) == 2
    done = analyze(scope, "verify", *units, home=tmp_path)
    assert [line for line in done.stderr.splitlines() if "dumbwaiter" in line] == []
    assert done.returncode == 0, done.stderr


@needs_systemd
@pytest.mark.parametrize(("name", "most"), [("dumbwaiter@.service", 2.0), ("dumbwaiter.service", 6.5)])
def test_the_uploader_is_exposed_as_little_as_is_promised(tmp_path: Path, name: str, most: float) -> None:
    done = analyze("security", "--offline=true", "--no-pager", str(UNITS / name), home=tmp_path)
    level = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert level is not None, done.stderr
    assert float(level[1]) <= most


def test_the_units_come_with_the_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=UNITS.parent, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        for unit in UNITS.glob("*.service"):
            assert wheel.read(f"dumbwaiter/systemd/{unit.name}") == unit.read_bytes()
        assert {"index.html", "page.js", "style.css"} <= {
            name.rpartition("/")[2] for name in wheel.namelist() if name.startswith("dumbwaiter/web/static/")
        }


@pytest.mark.parametrize("name", ["dumbwaiter.service", "dumbwaiter@.service"])
def test_a_restart_is_not_tried_where_it_would_change_nothing(name: str) -> None:
    assert read(name)["RestartPreventExitStatus"] == "2 21"


@pytest.mark.parametrize("name", ["dumbwaiter-mount.service", "dumbwaiter-mount@.service"])
def test_the_mount_is_cleared_away_after_a_crash_and_nothing_keeps_fusermount_from_working(name: str) -> None:
    unit = read(name)
    assert unit["ExecStopPost"].endswith("umount")
    assert unit.get("CapabilityBoundingSet") in {None, "CAP_SYS_ADMIN CAP_DAC_READ_SEARCH"}  # for a closed home
    assert not {key for key in unit if key.startswith(("Protect", "Private", "NoNew", "Restrict", "SystemCall"))}
