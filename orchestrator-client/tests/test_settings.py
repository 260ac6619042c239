"""Settings of jo-client: defaults, flags, and the errors of values that are refused."""

import os
from pathlib import Path

import pytest

from job_orchestrator.client.settings import SETTINGS, read_settings
from job_orchestrator.common.errors import StartupError


def test_defaults_are_the_documented_ones() -> None:
    settings = read_settings({}, {})
    assert (settings.host, settings.port) == ("0.0.0.0", 9000)  # noqa: S104
    assert settings.data_path == Path("data").absolute()
    assert settings.max_age_s == 172_800
    assert settings.max_upload_bytes == 400_000_000
    assert settings.slots == max(10, os.cpu_count() or 1)
    assert (settings.kill_grace_s, settings.drain_timeout_s) == (5, 0)
    assert (settings.log_level, settings.log_format) == ("INFO", "text")
    assert settings.script_environment == {"PATH": os.defpath, "LANG": "C.UTF-8"}


def test_flag_wins_over_the_environment() -> None:
    settings = read_settings({"PORT": "1", "SLOTS": "2"}, {"PORT": "3", "SLOTS": None})
    assert (settings.port, settings.slots) == (3, 2)


def test_time_and_size_with_unit_are_converted() -> None:
    settings = read_settings({"MAX_AGE": "2h", "KILL_GRACE": "0", "MAX_UPLOAD_SIZE": "10GB"}, {})
    assert (settings.max_age_s, settings.kill_grace_s) == (7200, 0)
    assert settings.max_upload_bytes == 10_000_000_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("SLOTS", "0"),
        ("SLOTS", "-1"),
        ("SLOTS", "many"),
        ("MAX_AGE", "2 weeks"),
        ("KILL_GRACE", "-1"),
        ("MAX_UPLOAD_SIZE", "10QB"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
        ("MEMORY_LIMIT", "1"),
        ("MEMORY_LIMIT", "1MB"),
        ("MAX_UPLOAD_SIZE", "0"),
        ("MAX_UPLOAD_SIZE", "0.5"),
    ],
)
def test_trap_43_bad_value_is_one_line_that_names_it(name: str, value: str) -> None:
    with pytest.raises(StartupError) as refused:
        read_settings({name: value}, {})
    line = str(refused.value)
    assert line.startswith(f"{name} is '{value}'; it must be ")
    assert "\n" not in line
    with pytest.raises(StartupError, match=f"--{name.lower().replace('_', '-')} is"):
        read_settings({}, {name: value})


def test_scripts_see_only_the_listed_variables() -> None:
    environment = {"PATH": "/p", "LANG": "l", "A": "1", "B": "2", "PASS_ENV": " A, C ,"}
    settings = read_settings(environment, {})
    assert settings.script_environment == {"PATH": "/p", "LANG": "l", "A": "1"}


@pytest.mark.parametrize("listed", ["FOO BAR", "FOO;BAR", "FOO=1", "A, 1B"])
def test_list_with_bad_names_of_variables_is_refused(listed: str) -> None:
    with pytest.raises(StartupError, match=f"PASS_ENV is '{listed}'; it must be names of"):
        read_settings({"PASS_ENV": listed}, {})


def test_every_declared_setting_is_read() -> None:
    read: set[str] = set()

    class Watched(dict[str, str]):
        def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
            read.add(key)
            return default

    read_settings(Watched(), {})
    files_of_secrets = {f"{setting.name}_FILE" for setting in SETTINGS if setting.secret}
    names = {setting.name for setting in SETTINGS}
    assert read == names | files_of_secrets


def test_memory_limit_can_be_the_minimum_or_0_for_none() -> None:
    assert read_settings({"MEMORY_LIMIT": "16MiB"}, {}).execution.limits.memory_bytes == 1 << 24
    assert read_settings({"MEMORY_LIMIT": "0"}, {}).execution.limits.memory_bytes == 0


def test_misspelled_variable_is_reported_as_a_warning() -> None:
    environment = {"MAX_RESULT_SIZES": "1", "PIDS_LIMITS": "1", "PATH": "/bin", "DB_PATH": "/x"}
    assert read_settings(environment, {}).warnings == (
        "MAX_RESULT_SIZES is ignored; did you mean MAX_RESULT_SIZE?",
        "PIDS_LIMITS is ignored; did you mean PIDS_LIMIT?",
    )
