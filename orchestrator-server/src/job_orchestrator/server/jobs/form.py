"""What a submitted form says of its job, checked."""

import re
from dataclasses import dataclass

from job_orchestrator.common.config.units import parse_duration_s
from job_orchestrator.common.protocol.multipart_reader import ReceivedForm
from job_orchestrator.server.auth.principal import Principal
from job_orchestrator.server.callbacks.rules import CallbackRules
from job_orchestrator.server.errors import InvalidSubmission
from job_orchestrator.server.model import MAX_USER_ID, MIN_USER_ID, JobOptions

MAX_NAME = 200
MAX_TAG = 100
MAX_PRIORITY = 100
MAX_TIME_LIMIT_S = 365 * 86400.0
MAX_KEY = 255

_INTEGER = re.compile(r"[+-]?\d{1,10}", re.ASCII)


@dataclass(frozen=True)
class JobForm:
    """Whose job it is, for which service, and what else was said of it."""

    user_id: int
    service: str
    options: JobOptions


def read_job_form(
    form: ReceivedForm,
    principal: Principal,
    idempotency_key: str | None,
    callback_rules: CallbackRules,
) -> JobForm:
    """Read the fields of a form. Raises ``InvalidSubmission``; ``Forbidden`` for another's user_id.

    A user need not name themselves. Whether the service is a configured one is for the caller to
    see.
    """
    user_id = principal.narrow(_user_id(_text(form, "user_id")))
    if user_id is None:
        raise InvalidSubmission("Missing user_id field")
    return JobForm(
        user_id=user_id,
        service=_text(form, "service").lower(),
        options=JobOptions(
            name=_words(form, "name", MAX_NAME),
            tag=_words(form, "tag", MAX_TAG),
            priority=_priority(_text(form, "priority")),
            time_limit_s=_time_limit_s(_text(form, "time_limit")),
            callback_url=_callback_url(_text(form, "callback_url"), callback_rules),
            idempotency_key=_key(idempotency_key),
        ),
    )


def _text(form: ReceivedForm, name: str) -> str:
    return form.fields.get(name, "").strip()


def _user_id(text: str) -> int | None:
    if not text:
        return None
    if text.startswith("+") or not _INTEGER.fullmatch(text):
        raise InvalidSubmission("Invalid user_id, should be a number")
    number = int(text)
    if not MIN_USER_ID <= number <= MAX_USER_ID:
        raise InvalidSubmission("Invalid user_id, should be a number")
    return number


def _words(form: ReceivedForm, name: str, longest: int) -> str:
    text = _text(form, name)
    if len(text) > longest or not text.isprintable():
        raise InvalidSubmission(
            f"Invalid {name}, should be at most {longest} printable characters on one line"
        )
    return text


def _priority(text: str) -> int:
    if not text:
        return 0
    number = int(text) if _INTEGER.fullmatch(text) else MAX_PRIORITY + 1
    if abs(number) > MAX_PRIORITY:
        raise InvalidSubmission(
            f"Invalid priority, should be a whole number from {-MAX_PRIORITY} to {MAX_PRIORITY}"
        )
    return number


def _time_limit_s(text: str) -> float | None:
    if not text:
        return None
    seconds = parse_duration_s(text)
    if seconds is None or not 0 < seconds <= MAX_TIME_LIMIT_S:
        raise InvalidSubmission(
            "Invalid time_limit, should be seconds, or a number with s, m, h or d, such as 30m;"
            " at most 365d"
        )
    return seconds


def _callback_url(text: str, rules: CallbackRules) -> str | None:
    if not text:
        return None
    rules.check(text)
    return text


def _key(text: str | None) -> str | None:
    if text is None:
        return None
    if not (0 < len(text) <= MAX_KEY and text.isascii() and text.isprintable()):
        raise InvalidSubmission(
            f"Invalid Idempotency-Key, should be 1 to {MAX_KEY} printable ASCII characters"
        )
    return text
