"""The systemd units are valid and hardened, and agree with the settings and the documentation."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from job_orchestrator.client.executors.local.settings import ScriptUserList
from job_orchestrator.client.settings import SETTINGS as CLIENT_SETTINGS
from job_orchestrator.server.settings.server import SETTINGS as SERVER_SETTINGS

ROOT = Path(__file__).parents[1]
UNITS = ROOT / "deploy" / "systemd"
PAGE = ROOT / "docs" / "hardening.md"

# An exposure of 30 is shown as 3.0, of at most 10.
MAX_EXPOSURE = {"jo-server.service": 30, "jo-server-backup.service": 30, "jo-client.service": 50}

# Only root can start scripts as other users, and manage their cgroups.
CLIENT_CAPABILITIES = {
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_CHOWN",
    "CAP_FOWNER",
    "CAP_DAC_OVERRIDE",
    "CAP_KILL",
    "CAP_SYS_PTRACE",
}


def lines(unit: str, name: str) -> list[str]:
    """Return the values of a setting of a unit."""
    text = (UNITS / unit).read_text("utf-8")
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


def environment(unit: str) -> dict[str, str]:
    """Return the environment variables that a unit sets."""
    pairs = " ".join(lines(unit, "Environment")).split()
    return dict(pair.split("=", 1) for pair in pairs)


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``systemd-analyze``; the test is skipped where it is not installed."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(
        ["systemd-analyze", *arguments], check=False, capture_output=True, text=True, timeout=120
    )


def test_units_are_valid(tmp_path: Path) -> None:
    for unit in UNITS.glob("jo-*.*"):
        # The programs are not installed here; any program stands for them.
        text = re.sub(r"/opt/jo-\w+/bin/jo-\w+", "/bin/true", unit.read_text("utf-8"))
        (tmp_path / unit.name).write_text(text, "utf-8")
    checked = analyze("verify", "--man=no", *sorted(tmp_path.iterdir()))

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", MAX_EXPOSURE)
def test_exposure_of_a_unit_is_small(unit: str) -> None:
    threshold = f"--threshold={MAX_EXPOSURE[unit]}"
    checked = analyze("security", "--offline=true", threshold, UNITS / unit)

    assert checked.returncode == 0, checked.stdout[-300:]


def test_units_set_only_settings_that_exist() -> None:
    for unit, settings in (
        ("jo-server.service", SERVER_SETTINGS),
        ("jo-server-backup.service", SERVER_SETTINGS),
        ("jo-client.service", CLIENT_SETTINGS),
    ):
        known = {setting.name for setting in settings} | {"KEEP_DAYS"}
        # A secret can be in a file.
        known |= {f"{setting.name}_FILE" for setting in settings if setting.secret}
        assert environment(unit).keys() <= known, unit


def test_client_unit_separates_scripts() -> None:
    unit = "jo-client.service"
    users = ScriptUserList().parse(environment(unit)["RUN_AS"])

    assert len(users) >= 256, "one user for each slot"
    assert lines(unit, "Delegate") == ["yes"], "a cgroup for each payload"
    assert lines(unit, "KillMode") == ["mixed"], "the client ends its scripts itself"
    assert set(lines(unit, "CapabilityBoundingSet")[0].split()) == CLIENT_CAPABILITIES


@pytest.mark.parametrize("unit", ["jo-server.service", "jo-client.service"])
def test_token_between_the_services_is_a_credential(unit: str) -> None:
    assert lines(unit, "LoadCredential") == ["client-token:/etc/job-orchestrator/client-token"]
    assert environment(unit)["CLIENT_TOKEN_FILE"] == "%d/client-token"
    assert "CLIENT_TOKEN" not in environment(unit)


def test_set_up_page_installs_every_file() -> None:
    page = PAGE.read_text("utf-8")
    for path in UNITS.rglob("*"):
        if path.is_file():
            folder = path.parent.relative_to(ROOT)
            assert path.name in page or f"{folder}/*" in page, path.name
