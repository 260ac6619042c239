"""The command ``jo-server token``, which edits API_TOKENS_FILE.

A running server notices changes of the file.
"""

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from job_orchestrator.common.config.kinds import Duration, Integer
from job_orchestrator.common.config.options import kind_option
from job_orchestrator.common.errors import DomainError, StartupError
from job_orchestrator.server.auth.token_file import (
    Token,
    TokenFileUnusable,
    create_token,
    read_tokens,
    revoke_token,
)
from job_orchestrator.server.model import MAX_USER_ID, MIN_USER_ID
from job_orchestrator.server.settings.server import tokens_file_of_process

MAX_VALID_S = 36_500 * 86_400.0

Flags = Mapping[str, str | None]

_SERVICE = re.compile(r"[a-z0-9_.-]{1,100}")


class TokenRow(msgspec.Struct, frozen=True):
    """A token in the JSON list. ``user_id`` is None for an administrator, and for a client.

    ``services`` and ``uses`` are those of a client's token; None there: it is not one, and any
    number of clients may use it.
    """

    id: str
    user_id: int | None
    admin: bool
    label: str
    created_at: datetime
    expires_at: datetime | None
    expired: bool
    services: tuple[str, ...] | None = None
    uses: int | None = None

    @classmethod
    def of(cls, kept: Token, now: float) -> "TokenRow":
        """Describe a token at the time ``now``, in seconds since the epoch."""
        return cls(
            id=kept.id,
            user_id=kept.user_id if kept.services is None else None,
            admin=kept.user_id is None,
            services=kept.services,
            uses=kept.uses,
            label=kept.label,
            created_at=kept.created_at,
            expires_at=kept.expires_at,
            expired=kept.has_expired(now),
        )


@click.group()
def token() -> None:
    """Create, list and revoke API tokens in API_TOKENS_FILE."""


@token.command()
@kind_option(
    "--user",
    kind=Integer(MIN_USER_ID, MAX_USER_ID),
    help="Allow access to the jobs of this user_id",
)
@click.option("--admin", is_flag=True, help="Allow everything")
@click.option(
    "--client", is_flag=True, help="Allow a jo-client to register itself, and nothing else"
)
@click.option(
    "--services",
    metavar="NAME,…",
    help="With --client: the services whose jobs the client may run, comma-separated",
)
@kind_option(
    "--uses",
    kind=Integer(1, 1_000_000),
    help="With --client: number of different clients that may use the token; without it, any",
)
@click.option("--label", default="", metavar="TEXT", help="Purpose of the token, shown in the list")
@kind_option(
    "--expires",
    "valid_s",
    kind=Duration(),
    help="Time until the token expires, such as 90d; without it, the token does not expire",
)
@click.pass_obj
def create(
    flags: Flags,
    user: int | None,
    *,
    admin: bool,
    client: bool,
    services: str | None,
    uses: int | None,
    label: str,
    valid_s: float | None,
) -> None:
    """Create a token and print it. Only its hash is stored, so it cannot be shown again."""
    if (user is not None) + admin + client != 1:
        raise click.UsageError("Give one of --user NUMBER, --admin and --client")
    if not client and (services is not None or uses is not None):
        raise click.UsageError("--services and --uses need --client")
    names = _service_names(services) if client else None
    if not label.isprintable():
        raise click.UsageError("The label contains a control character")
    if valid_s is not None and valid_s > MAX_VALID_S:
        raise click.UsageError("A token can be valid for 100 years at most; omit --expires instead")
    with _tokens_file(flags) as path:
        made, kept = create_token(
            path, user_id=user, label=label, valid_s=valid_s, services=names, uses=uses
        )
    click.echo(f"Token {kept.id} for {_scope(kept)}; it is not shown again:", err=True)
    click.echo(made)


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs")
@click.pass_obj
def list_tokens(flags: Flags, as_json: bool) -> None:
    """List the tokens, without their secret parts. Times are in UTC."""
    with _tokens_file(flags) as path:
        tokens = read_tokens(path)
    now = time.time()
    if as_json:
        rows = [TokenRow.of(kept, now) for kept in tokens]
        click.echo(msgspec.json.encode(rows))
        return
    for kept in tokens:
        line = f"{kept.id}  {_scope(kept):<16}  made {_minute(kept.created_at)}"
        click.echo(f"{line}  {_expiry(kept, now):<24}  {kept.label}".rstrip())


@token.command()
@click.argument("token_id", metavar="ID")
@click.pass_obj
def revoke(flags: Flags, token_id: str) -> None:
    """Revoke the token with ID, the first column of the list.

    A running server refuses the token within one second.
    """
    with _tokens_file(flags) as path:
        revoked = revoke_token(path, token_id)
    click.echo(f"Token {revoked.id} for {_scope(revoked)} is revoked", err=True)


@contextlib.contextmanager
def _tokens_file(flags: Flags) -> Iterator[Path]:
    """Yield the path of the token file. Print an error as one line and exit with status 2."""
    try:
        path = tokens_file_of_process(flags)
        try:
            yield path
        except TokenFileUnusable as error:
            raise StartupError(f"API_TOKENS_FILE: {error}") from error
    except DomainError as error:
        click.echo(f"jo-server: {error}", err=True)
        raise SystemExit(2) from error


def _service_names(text: str | None) -> tuple[str, ...]:
    names = tuple(name.strip().lower() for name in (text or "").split(",") if name.strip())
    if not names:
        raise click.UsageError(
            "--client needs --services NAME,…: whoever runs the jobs of a service sees its files"
        )
    if not all(_SERVICE.fullmatch(name) for name in names):
        raise click.UsageError("--services must be names of services, separated by commas")
    return tuple(dict.fromkeys(names))


def _scope(kept: Token) -> str:
    if kept.services is not None:
        uses = "" if kept.uses is None else f", {kept.uses} uses" if kept.uses > 1 else ", one use"
        return f"client of {', '.join(kept.services)}{uses}"
    return "admin" if kept.user_id is None else f"user {kept.user_id}"


def _expiry(kept: Token, now: float) -> str:
    if kept.expires_at is None:
        return "does not expire"
    word = "EXPIRED" if kept.has_expired(now) else "expires"
    return f"{word} {_minute(kept.expires_at)}"


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"
