"""The policy file: groups, weights and limits of users, in TOML."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any

import msgspec

from job_orchestrator.common.errors import DomainError
from job_orchestrator.server.model import MAX_PRIORITY, MAX_USER_ID, MIN_USER_ID, Rate
from job_orchestrator.server.scheduling.base import UserTerms
from job_orchestrator.server.scheduling.rules import Terms

MAX_MEMBERS = 100_000
"""Members of all groups together."""

_RANGE = re.compile(r"(-?\d{1,10})(?:\.\.(-?\d{1,10}))?", re.ASCII)
_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_FIELD = re.compile(r"field `(\w+)`|`\$\.(\w+)")

Claimed = Mapping[str, frozenset[int]]
"""Members of each group that issuers name in their tokens."""

NOBODY: Claimed = {}

_Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
_Jobs = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class PolicyFileInvalid(DomainError):
    """The policy file can't be used. The message names the line."""


class _User(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Entry of a user, or of each member of a group."""

    weight: Annotated[float, msgspec.Meta(gt=0, le=1000)] | None = None
    runs_per_user: _Count | None = None
    runs_per_user_burst: _Count | None = None
    max_runs_per_user: _Count | None = None
    jobs_per_hour: _Jobs | None = None
    jobs_per_hour_burst: _Jobs | None = None
    max_priority: Annotated[int, msgspec.Meta(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | None = None

    @property
    def rate(self) -> Rate | None:
        if self.jobs_per_hour is None:
            return None
        return Rate(self.jobs_per_hour, self.jobs_per_hour_burst or self.jobs_per_hour)


class _Group(_User, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Entry of a group. ``max_runs`` limits its members together.

    Its members are those listed, and the users whose issuer names the group ``claim``.
    """

    members: list[int | str] | None = None
    claim: str | None = None
    max_runs: _Count | None = None
    begins: Any = msgspec.field(name="from", default=None)
    until: Any = None


@dataclass(frozen=True)
class _Period:
    """The time in which a group exists, in seconds since the epoch."""

    begin: float
    end: float

    def has(self, now: float) -> bool:
        return self.begin <= now < self.end


@dataclass(frozen=True)
class PolicyFile:
    """The entries of a valid policy file."""

    _users: Mapping[int, _User]
    _groups: Mapping[str, tuple[_Group, frozenset[int], _Period]]

    def terms_at(self, now: float, claimed: Claimed = NOBODY) -> Terms:
        """Return the terms that hold at a time. ``claimed`` are the groups that issuers name.

        A user's own entry goes first. Of several groups of a user, the most favourable value of
        each field counts.
        """
        entries: dict[int, list[_User]] = {}
        names: dict[int, list[str]] = {}
        limits: dict[str, int] = {}
        for name, (group, members, period) in self._groups.items():
            if not period.has(now):
                continue
            if group.max_runs is not None:
                limits[name] = group.max_runs
            for user_id in members | claimed.get(group.claim or "", frozenset()):
                entries.setdefault(user_id, []).append(group)
                names.setdefault(user_id, []).append(name)
        users = {
            user_id: _terms(
                self._users.get(user_id), entries.get(user_id, ()), names.get(user_id, ())
            )
            for user_id in {*self._users, *entries}
        }
        return Terms(users, limits)


def _terms(own: _User | None, groups: Any, names: Any) -> UserTerms:
    def value(name: str) -> Any:
        if own is not None and getattr(own, name) is not None:
            return getattr(own, name)
        given = [getattr(group, name) for group in groups]
        return max((each for each in given if each is not None), default=None)

    rates = [entry.rate for entry in (own, *groups) if entry is not None and entry.rate is not None]
    if own is not None and own.rate is not None:
        rates = [own.rate]
    return UserTerms(
        weight=value("weight") or 1.0,
        runs=value("runs_per_user"),
        burst=value("runs_per_user_burst"),
        total=value("max_runs_per_user"),
        groups=tuple(names),
        rate=max(rates, key=lambda rate: rate.per_hour, default=None),
        max_priority=value("max_priority"),
    )


def parse_policy(text: str) -> PolicyFile:
    """Parse and check a policy file. Raises ``PolicyFileInvalid``, with the line."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyFileInvalid(f"It is not valid TOML: {error}") from error
    for name in content:
        if name not in ("users", "groups"):
            raise _invalid(text, name, "", f"There is no {name}; there are users and groups")
    users = {}
    for name, table in _tables(text, content, "users"):
        match = _RANGE.fullmatch(name)
        if match is None or match[2] is not None or not MIN_USER_ID <= int(name) <= MAX_USER_ID:
            raise _invalid(text, f"users.{name}", "", "The name must be the id of a user")
        users[int(name)] = _convert(text, f"users.{name}", table, _User)
    groups = {}
    for name, table in _tables(text, content, "groups"):
        group = _convert(text, f"groups.{name}", table, _Group)
        if group.members is None and group.claim is None:
            raise _invalid(text, f"groups.{name}", "", "A group needs members, or a claim")
        members = frozenset(_members(text, name, group))
        groups[name] = (group, members, _period(text, name, group))
    if sum(len(members) for _, members, _ in groups.values()) > MAX_MEMBERS:
        raise PolicyFileInvalid(f"The groups have more than {MAX_MEMBERS} members")
    return PolicyFile(users, groups)


def _tables(text: str, content: Mapping[str, Any], kind: str) -> Iterator[tuple[str, Any]]:
    entries = content.get(kind, {})
    if not isinstance(entries, dict):
        raise _invalid(text, "", kind, f"{kind} must be a table, such as [{kind}.NAME]")
    yield from entries.items()


def _convert(text: str, table: str, content: Any, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        match = _FIELD.search(str(error))
        key = (match[1] or match[2]) if match else ""
        problem, _, _ = str(error).partition(" - at ")
        raise _invalid(text, table, key, problem) from error


def _members(text: str, name: str, group: _Group) -> Iterator[int]:
    for member in group.members or ():
        match = _RANGE.fullmatch(str(member))
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not MIN_USER_ID <= first <= last <= MAX_USER_ID or last - first >= MAX_MEMBERS:
            problem = f'{member!r} must be the id of a user, or a range such as "1001..1200"'
            raise _invalid(text, f"groups.{name}", "members", problem)
        yield from range(first, last + 1)


def _period(text: str, name: str, group: _Group) -> _Period:
    begin = _seconds(text, name, "from", group.begins, days=0)
    end = _seconds(text, name, "until", group.until, days=1)
    period = _Period(
        float("-inf") if begin is None else begin, float("inf") if end is None else end
    )
    if period.begin >= period.end:
        raise _invalid(text, f"groups.{name}", "until", "until must be later than from")
    return period


def _seconds(text: str, name: str, key: str, value: object, *, days: int) -> float | None:
    """Convert a date or time to seconds since the epoch. A last day counts as a whole."""
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, date):
        return (datetime.combine(value, time()) + timedelta(days=days)).timestamp()
    if value is None:
        return None
    raise _invalid(text, f"groups.{name}", key, "must be a date, such as 2026-12-24, unquoted")


def _invalid(text: str, table: str, key: str, problem: str) -> PolicyFileInvalid:
    line = _line_of(text, table, key)
    where = f" of [{table}]" if table and key else ""
    return PolicyFileInvalid(
        f"Line {line}: {key}{where}: {problem}" if key else f"Line {line}: {problem}"
    )


def _line_of(text: str, table: str, key: str) -> int:
    """Return the line of a key of a table, or of the table if the key is not found."""
    current, found, table = "", 1, table.replace(" ", "")
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            current = header[1].replace('"', "").replace("'", "").replace(" ", "")
            if current == table or current.startswith(f"{table}."):
                found = number
        elif current == table and key and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return number
    return found
