"""Reads declared settings from command-line flags and environment variables; flags win.

A setting that cannot be used is a ``SettingError``: one line that names the variable or flag, its
value and what is allowed.
"""

from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, TypeVar

from job_orchestrator.common.config.kinds import NotAllowed
from job_orchestrator.common.config.settings import Setting, setting_fields
from job_orchestrator.common.errors import StartupError

T = TypeVar("T")


class SettingError(StartupError):
    """A setting that cannot be used. ``source`` is its variable or flag."""

    def __init__(self, source: str, value: str | None, allowed: str) -> None:
        problem = "is not set" if value is None else f"is {value!r}"
        super().__init__(f"{source} {problem}; it must be {allowed}")


class SecretError(SettingError):
    """A secret that cannot be used. The message does not repeat it."""

    def __init__(self, source: str, allowed: str) -> None:
        StartupError.__init__(self, f"{source} can't be used; it must be {allowed}")


def remove_secrets(environment: MutableMapping[str, str], settings: Iterable[Setting[Any]]) -> None:
    """Remove the secrets from the environment, so that no child process inherits them."""
    for setting in settings:
        if setting.secret:
            environment.pop(setting.name, None)


class SettingsReader:
    """Reads settings. ``flags`` maps names of settings to the values of their flags, if given."""

    def __init__(self, environment: Mapping[str, str], flags: Mapping[str, str | None]) -> None:
        self.environment = environment
        self._flags = {name: value for name, value in flags.items() if value is not None}

    def text(self, name: str) -> str | None:
        """Return the text of a setting without surrounding blanks; None if unset or empty."""
        value = self._flags.get(name, self.environment.get(name, "")).strip()
        return value or None

    def read(self, setting: Setting[T], prefix: str = "") -> T:
        """Read one setting, whose variable has ``prefix``. Raises ``SettingError``."""
        name = prefix + setting.name
        text = self._secret(name) if setting.secret else self.text(name)
        if text is None:
            return setting.default_value()
        try:
            return setting.kind.parse(text)
        except NotAllowed as error:
            raise self.refusal(setting, error.allowed, prefix) from error

    def _secret(self, name: str) -> str | None:
        """Return a secret from its variable or from the file that ``<name>_FILE`` names.

        Child processes inherit an environment; a systemd credential is closed to others.
        """
        text, file = self.text(name), self.text(f"{name}_FILE")
        if file is None:
            return text
        if text is not None:
            raise StartupError(f"{name} and {name}_FILE are set; set one of them")
        try:
            text = Path(file).read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or "it is not text"
            raise StartupError(
                f"{name}_FILE is {file!r}, which can't be read: {problem}"
            ) from error
        if not text:
            raise StartupError(f"{name}_FILE is {file!r}, which is empty; it must hold the secret")
        return text

    def read_all(self, of: type[T], prefix: str = "", **others: Any) -> T:
        """Read all settings of a dataclass; ``others`` are its other fields.

        Raises ``SettingError`` for the first setting that cannot be used.
        """
        values = {
            name: self.read(declared, prefix)
            if isinstance(declared, Setting)
            else self.read_all(declared, prefix)
            for name, declared in setting_fields(of)
        }
        return of(**values, **others)

    def refusal(self, setting: Setting[Any], allowed: str, prefix: str = "") -> SettingError:
        """Make the error that says what the setting holds and what is allowed."""
        name = prefix + setting.name
        source = setting.flag if name in self._flags else name
        text = self.text(name)
        if setting.secret and text is not None:
            return SecretError(source, allowed)
        if setting.secret and self.text(f"{name}_FILE") is not None:
            return SecretError(f"The content of {name}_FILE", allowed)
        return SettingError(source, text, allowed)
