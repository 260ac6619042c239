"""``jo-server token``: the tokens of API_TOKENS_FILE. A running server takes changes up."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from job_orchestrator.common.config.numbers import Whole
from job_orchestrator.common.config.reader import SettingsReader
from job_orchestrator.common.errors import DomainError, StartupError
from job_orchestrator.server.auth.token_file import (
    Token,
    TokenFileUnusable,
    create_token,
    read_tokens,
    revoke_token,
)
from job_orchestrator.server.settings.server import MAX_USER_ID, MIN_USER_ID, tokens_file_of_process

MAX_VALID_S = 36_500 * 86_400.0

Flags = Mapping[str, str | None]


class _Row(msgspec.Struct, frozen=True):
    """A token in the list for programs; ``user_id`` None: an administrator's."""

    id: str
    user_id: int | None
    admin: bool
    label: str
    created_at: datetime
    expires_at: datetime | None
    expired: bool

    @classmethod
    def of(cls, kept: Token, now: float) -> "_Row":
        """What is told of a token at ``now``, in seconds since the epoch."""
        return cls(
            id=kept.id,
            user_id=kept.user_id,
            admin=kept.user_id is None,
            label=kept.label,
            created_at=kept.created_at,
            expires_at=kept.expires_at,
            expired=kept.has_expired(now),
        )


@click.group()
def token() -> None:
    """Make, list and revoke API tokens; API_TOKENS_FILE says where they are kept."""


@token.command()
@click.option(
    "--user",
    type=Whole("user_id", MIN_USER_ID, MAX_USER_ID),
    metavar="NUMBER",
    help="For the jobs of this user_id",
)
@click.option("--admin", is_flag=True, help="For everything")
@click.option("--label", default="", help="What it is for, for the list")
@click.option("--expires", metavar="TIME", help="How long it is valid, such as 90d; without: ever")
@click.pass_obj
def create(flags: Flags, user: int | None, admin: bool, label: str, expires: str | None) -> None:
    """Make a token and print it. It is kept hashed, so it can't be shown again."""
    if (user is None) is not admin:
        raise click.UsageError("Say for whom: either --user NUMBER or --admin")
    if not label.isprintable():
        raise click.UsageError("The label holds a control character")
    with _told(flags) as path:
        made, kept = create_token(path, user_id=user, label=label, valid_s=_duration_s(expires))
    click.echo(f"Token {kept.id} for {_scope(kept)}; it is not shown again:", err=True)
    click.echo(made)


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs")
@click.pass_obj
def list_tokens(flags: Flags, as_json: bool) -> None:
    """Show what there is, but for the tokens themselves. Times are in UTC."""
    with _told(flags) as path:
        tokens = read_tokens(path)
    now = time.time()
    if as_json:
        rows = [_Row.of(kept, now) for kept in tokens]
        click.echo(msgspec.json.encode(rows))
        return
    for kept in tokens:
        line = f"{kept.id}  {_scope(kept):<16}  made {_minute(kept.created_at)}"
        click.echo(f"{line}  {_expiry(kept, now):<24}  {kept.label}".rstrip())


@token.command()
@click.argument("token_id", metavar="ID")
@click.pass_obj
def revoke(flags: Flags, token_id: str) -> None:
    """Make a token useless, a second later at most. ID is the first column of the list."""
    with _told(flags) as path:
        revoked = revoke_token(path, token_id)
    click.echo(f"Token {revoked.id} for {_scope(revoked)} is revoked", err=True)


@contextlib.contextmanager
def _told(flags: Flags) -> Iterator[Path]:
    """The file of the tokens; what is wrong with it is told in a line, with exit status 2."""
    try:
        path = tokens_file_of_process(flags)
        try:
            yield path
        except TokenFileUnusable as error:
            raise StartupError(f"API_TOKENS_FILE: {error}") from error
    except DomainError as error:
        click.echo(f"jo-server: {error}", err=True)
        raise SystemExit(2) from error


def _duration_s(text: str | None) -> float | None:
    if text is None:
        return None
    valid_s = SettingsReader({}, {"EXPIRES": text}).duration_s("EXPIRES", 0.0)
    if valid_s > MAX_VALID_S:
        raise click.UsageError("A token can expire in 100 years at most; leave --expires out")
    return valid_s


def _scope(kept: Token) -> str:
    return "admin" if kept.user_id is None else f"user {kept.user_id}"


def _expiry(kept: Token, now: float) -> str:
    if kept.expires_at is None:
        return "does not expire"
    word = "EXPIRED" if kept.has_expired(now) else "expires"
    return f"{word} {_minute(kept.expires_at)}"


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"
