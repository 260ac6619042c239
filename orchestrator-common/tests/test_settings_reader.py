"""The reader of settings."""

from pathlib import Path

import pytest

from job_orchestrator.common.config.reader import Option, SettingError, SettingsReader


def reader(**values: str) -> SettingsReader:
    return SettingsReader(values, {"FLAGGED": values.get("FLAGGED")})


def test_unset_and_blank_settings_take_the_default() -> None:
    settings = reader(BLANK="  ")
    assert settings.integer("BLANK", 3, minimum=0, maximum=9) == 3
    assert settings.duration_s("UNSET", 1.5) == 1.5
    assert settings.choice("UNSET", "a", ("a", "b")) == "a"
    assert settings.urls("UNSET") == ()
    assert settings.path("UNSET", "./x") == Path.cwd() / "x"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x", "--flagged is 'x'; it must be a whole number from 0 to 9"),
        ("10", "--flagged is '10'; it must be a whole number from 0 to 9"),
    ],
)
def test_bad_value_of_a_flag_names_the_flag(value: str, message: str) -> None:
    with pytest.raises(SettingError) as error:
        reader(FLAGGED=value).integer("FLAGGED", 3, minimum=0, maximum=9)
    assert str(error.value) == message


def test_option_gives_its_flag() -> None:
    assert Option("MAX_AGE", "1", "x").flag == "--max-age"
