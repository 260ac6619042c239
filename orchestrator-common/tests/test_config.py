"""Declarations of settings, their kinds, the reader, and the flags for click."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from job_orchestrator.common.config.kinds import (
    Choice,
    Duration,
    FilePath,
    Integer,
    Kind,
    Number,
    Secret,
    Size,
    Switch,
    Text,
    Urls,
    one_of,
)
from job_orchestrator.common.config.options import (
    environment_help,
    kind_option,
    setting_flags,
)
from job_orchestrator.common.config.reader import SettingError, SettingsReader, remove_secrets
from job_orchestrator.common.config.settings import (
    DefaultInWords,
    Setting,
    all_settings,
    group,
    misspelled_variables,
    no_default,
    setting,
    setting_of,
)
from job_orchestrator.common.config.units import duration_text, size_text
from job_orchestrator.common.errors import StartupError


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A group of settings."""

    folder: Path = setting("FOLDER", FilePath(), default="./x", help="Folder")
    space_bytes: int = setting("SPACE", Size(), default=no_default(0), help="Space")


@dataclass(frozen=True, kw_only=True)
class Example:
    """Settings of a service."""

    wait_s: float = setting("WAIT", Duration(), default="1.5m", help="Time to wait")
    workers: int = setting(
        "WORKERS", Integer(1, 9), default=DefaultInWords("a few", lambda: 3), help="Workers"
    )
    disk: Disk = group(Disk)
    token: str | None = setting(
        "TOKEN", Secret(), default=no_default(None), help="Token", secret=True
    )
    started_at: float
    """A field that is not a setting."""


def read(environment: dict[str, str], flags: dict[str, str | None] | None = None) -> Example:
    return SettingsReader(environment, flags or {}).read_all(Example, started_at=7.0)


def test_settings_that_are_unset_or_blank_have_their_defaults() -> None:
    assert read({"WAIT": "  ", "TOKEN": ""}) == Example(
        wait_s=90.0,
        workers=3,
        disk=Disk(folder=Path.cwd() / "x", space_bytes=0),
        token=None,
        started_at=7.0,
    )
    assert read({}) == Example(started_at=7.0)


def test_relative_default_is_resolved_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read({}).disk.folder == tmp_path / "x"


def test_flag_wins_over_the_environment() -> None:
    settings = read({"WORKERS": "1", "SPACE": "1kB"}, {"WORKERS": "2", "SPACE": None})
    assert (settings.workers, settings.disk.space_bytes) == (2, 1000)


def test_declarations_are_listed_in_order_with_those_of_groups() -> None:
    declared = all_settings(Example)
    assert [setting.name for setting in declared] == ["WAIT", "WORKERS", "FOLDER", "SPACE", "TOKEN"]
    assert [setting.default_text for setting in declared] == [
        "1.5m",
        "a few",
        "./x",
        "none",
        "none",
    ]
    assert setting_of(Example, "wait_s") is declared[0]
    assert declared[0].flag == "--wait"
    assert Setting("MAX_AGE", Duration(), "1", "x").flag == "--max-age"


def test_group_is_not_a_setting() -> None:
    with pytest.raises(TypeError, match="disk is a group"):
        setting_of(Example, "disk")


@pytest.mark.parametrize("value", ["x", "10"])
def test_bad_flag_is_named_as_a_flag(value: str) -> None:
    with pytest.raises(SettingError) as error:
        read({"WORKERS": "1"}, {"WORKERS": value})
    assert str(error.value) == f"--workers is {value!r}; it must be a whole number from 1 to 9"


def test_bad_variable_with_a_prefix_is_named_with_it() -> None:
    reader = SettingsReader({"A_WORKERS": "0", "WORKERS": "1"}, {})
    with pytest.raises(SettingError, match=r"^A_WORKERS is '0'; it must be a whole number"):
        reader.read_all(Example, "A_", started_at=0)


def test_secret_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("hush-hush-hush-hush-hush\n")
    environment = {"TOKEN_FILE": str(file)}
    assert read(environment).token == "hush-hush-hush-hush-hush"
    assert list(misspelled_variables(environment, all_settings(Example))) == []


@pytest.mark.parametrize(
    ("content", "others", "problem"),
    [
        (None, {}, "which can't be read: No such file or directory"),
        (b"\n", {}, "which is empty; it must hold the secret"),
        (b"\xff", {}, "which can't be read: it is not text"),
        (b"hush", {"TOKEN": "shh"}, "TOKEN and TOKEN_FILE are set; set one of them"),
    ],
)
def test_unusable_file_of_a_secret_stops_the_start(
    tmp_path: Path, content: bytes | None, others: dict[str, str], problem: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartupError, match=problem):
        read({"TOKEN_FILE": str(file), **others})


def test_bad_secret_is_not_repeated() -> None:
    with pytest.raises(SettingError) as error:
        read({"TOKEN": "hush"})
    assert str(error.value).startswith("TOKEN can't be used; it must be at least 16 letters, ")
    assert "hush" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Text(), "a b", "a b"),
        (Secret(), "x" * 16, "x" * 16),
        (Integer(0, 9), "9", 9),
        (Number(2.0), "1.5", 1.5),
        (Duration(), "2d", 172_800.0),
        (Size(), "10 GiB", 10 * 2**30),
        (Size(minimum=1000), "0", 0),
        (Size(maximum=1 << 20), "1MiB", 1 << 20),
        (Switch(), "Yes", True),
        (Switch(), "off", False),
        (one_of("text", "json"), "JSON", "json"),
        (Choice({"none": False, "all": True}), "ALL", True),
        (Urls(), "http://a/x/, https://b", ("http://a/x", "https://b")),
    ],
)
def test_kind_converts_text(kind: Kind[object], text: str, value: object) -> None:
    assert kind.parse(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "allowed"),
    [
        (Secret(), "x" * 15 + "\u00e4", "at least 16 letters, digits and signs"),
        (Integer(0, 9), "1e0", "a whole number from 0 to 9"),
        (Number(2.0), "-1", "a number from 0 to 2"),
        (Duration(), "1 week", "a time: seconds, or a number with s, m, h or d"),
        (Size(), "10QB", "a size: bytes, or a number with kB"),
        (Size(minimum=1000), "1", "at least 1 kB, or 0"),
        (Size(minimum=1, zero=False), "0", "at least 1 B$"),
        (Size(maximum=1 << 20), "1048577", "at most 1 MiB$"),
        (FilePath(), "~nobody-of-this-name/x", "a path; the user after ~"),
        (Switch(), "maybe", r"1 \(on\) or 0 \(off\)"),
        (one_of("text", "json"), "xml", "one of text, json"),
        (Urls(), "http://a:99999", "an http:// or https:// URL"),
    ],
)
def test_kind_refuses_text_and_says_what_is_allowed(
    kind: Kind[object], text: str, allowed: str
) -> None:
    declared = Setting("X", kind, no_default(None), "x")
    with pytest.raises(SettingError, match=f"^X is .*; it must be {allowed}"):
        SettingsReader({"X": text}, {}).read(declared)


def test_variable_whose_name_is_almost_that_of_a_setting_is_reported() -> None:
    environment = {"MAX_AGES": "1", "MAX_AGE": "2", "HOSTNAME": "h", "WORKER": "3"}
    known = [Setting("MAX_AGE", Duration(), "1", "x"), Setting("WORKERS", Integer(0, 1), "0", "x")]
    assert list(misspelled_variables(environment, known)) == [
        "MAX_AGES is ignored; did you mean MAX_AGE?"
    ]


def test_flags_arrive_as_text_by_name_of_their_setting() -> None:
    received: dict[str, Any] = {}

    @click.command()
    @setting_flags(all_settings(Example))
    def command(**flags: str | None) -> None:
        received.update(flags)

    assert CliRunner().invoke(command, ["--wait", "soon"]).exit_code == 0
    assert received == {"WAIT": "soon", "WORKERS": None, "FOLDER": None, "SPACE": None}
    shown = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert "--wait TIME Time to wait [env WAIT; default 1.5m]" in shown
    assert "--token" not in shown


@pytest.mark.parametrize(
    ("arguments", "status", "output"),
    [
        (["--wait", "2m"], 0, "120.0"),
        ([], 0, "None"),
        (["--wait", "soon"], 2, "Invalid value for '--wait': 'soon'; it must be a time: seconds"),
    ],
)
def test_option_of_a_kind_is_converted_or_refused(
    arguments: list[str], status: int, output: str
) -> None:
    @click.command()
    @kind_option("--wait", kind=Duration(), help="Time to wait")
    def command(wait: float | None) -> None:
        click.echo(str(wait))

    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == status
    assert output in result.output


def test_settings_without_flag_are_described() -> None:
    token = setting_of(Example, "token")
    assert environment_help([token], "SERVICE_<NAME>_") == (
        "SERVICE_<NAME>_TOKEN: Token [default none]. TOKEN_FILE: a file that holds it"
    )


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(2 * 10**9, "2 GB"), (1536 * 2**20, "1536 MiB"), (0, "0 GB"), (7, "7 B")],
)
def test_size_is_written_exactly(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text


def test_secret_of_a_file_that_is_not_acceptable_names_the_file_without_its_content(
    tmp_path: Path,
) -> None:
    token = setting_of(Example, "token")
    (tmp_path / "token").write_text("too short")
    with pytest.raises(SettingError, match=r"of TOKEN_FILE can't be used; .* 16") as raised:
        SettingsReader({"TOKEN_FILE": str(tmp_path / "token")}, {}).read(token)
    assert "too short" not in str(raised.value)


def test_secrets_are_removed_from_the_environment_and_nothing_else_is() -> None:
    environment = {"TOKEN": "0123456789abcdef", "PATH": "/bin"}
    remove_secrets(environment, all_settings(Example))
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (172800, "2 days"),
        (86400, "1 day"),
        (5400, "90 min"),
        (7200, "2 h"),
        (90, "90 s"),
        (1.5, "1.5 s"),
        (0, "0 s"),
    ],
)
def test_duration_is_written_with_the_largest_exact_unit(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
