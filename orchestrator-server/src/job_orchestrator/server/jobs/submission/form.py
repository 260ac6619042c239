"""Parsing and checks of the form fields of a submission."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from job_orchestrator.common.config.units import parse_size_bytes, size_text
from job_orchestrator.common.messages.resources import CPUS, GPUS, MEMORY, Resources
from job_orchestrator.common.protocol.durations import parse_duration_s
from job_orchestrator.common.protocol.selection import read_selection
from job_orchestrator.common.storage.form_writer import ReceivedForm
from job_orchestrator.server.callbacks.rules import check_url
from job_orchestrator.server.errors import InvalidSubmission
from job_orchestrator.server.files.unpacking import INPUTS
from job_orchestrator.server.model import (
    MAX_PRIORITY,
    MAX_USER_ID,
    MIN_USER_ID,
    CallbackRules,
    JobOptions,
    Principal,
    Service,
)
from job_orchestrator.server.store.arrays import ArrayRequest

MAX_NAME_LENGTH = 200
MAX_TAG_LENGTH = 100
MAX_TIME_LIMIT_S = 365 * 86400.0
MAX_KEY_LENGTH = 255

MAX_CPUS, MIN_CPUS = 10_000.0, 0.01
MAX_GPUS = 1000
MIN_MEMORY_BYTES = 16 * 1024 * 1024
"""With less memory, bash and a small program may not even start."""

_CPUS = re.compile(r"\d{1,5}(\.\d{1,3})?", re.ASCII)
MAX_DEPENDENCIES = 100
"""Jobs in one of the fields ``after`` and ``afterany``."""

_INDEXES = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
_AT_ONCE = re.compile(r"[1-9]\d{0,8}", re.ASCII)
_JOB_ID = re.compile(r"\d{1,18}", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,10}", re.ASCII)


MAX_WAITS = 10_000
"""Limit of the tasks of an array times the jobs that each waits for: all are one transaction."""


@dataclass(frozen=True)
class JobForm:
    """The checked fields: owner, service and options of the job, and the tasks of an array."""

    user_id: int
    service: str
    options: JobOptions
    array: ArrayRequest | None = None


def read_job_form(
    form: ReceivedForm,
    principal: Principal,
    idempotency_key: str | None,
    callback_rules: CallbackRules,
    max_tasks: int,
) -> JobForm:
    """Read and check the fields of a form. An array has at most ``max_tasks``.

    ``user_id`` may be missing if the principal is a user. The caller checks that the service is
    configured. Raises ``BadRequest`` and its subclasses; ``Forbidden`` if the form names
    another user.
    """
    user_id = principal.narrow(_user_id(_text(form, "user_id")))
    if user_id is None:
        raise InvalidSubmission("Missing user_id field")
    job = JobForm(
        user_id=user_id,
        service=_text(form, "service").lower(),
        options=JobOptions(
            name=_line(form, "name", MAX_NAME_LENGTH),
            tag=_line(form, "tag", MAX_TAG_LENGTH),
            priority=_priority(_text(form, "priority")),
            time_limit_s=_time_limit_s(_text(form, "time_limit")),
            callback_url=_callback_url(_text(form, "callback_url"), callback_rules),
            selection=read_selection(form.fields),
            after_success=_job_ids(form, "after"),
            after_end=_job_ids(form, "afterany"),
            wanted=_resources(form),
            idempotency_key=_checked_key(idempotency_key),
        ),
        array=_array(_text(form, "array"), max_tasks),
    )
    needed = len(job.options.after_success) + len(job.options.after_end)
    if job.array is not None and needed * len(job.array.indexes) > MAX_WAITS:
        raise InvalidSubmission(
            f"Each of {len(job.array.indexes)} tasks would wait for {needed} jobs; tasks times jobs"
            f" may be at most {MAX_WAITS}. Let the array wait for one job that waits for the others"
        )
    return job


def _text(form: ReceivedForm, name: str) -> str:
    """Return the value of a field, the last one if it was sent several times."""
    return form.fields.get(name, [""])[-1].strip()


def _user_id(text: str) -> int | None:
    if not text:
        return None
    if not _INTEGER.fullmatch(text):
        raise InvalidSubmission("Invalid user_id, should be a number")
    number = int(text)
    if not MIN_USER_ID <= number <= MAX_USER_ID:
        raise InvalidSubmission("Invalid user_id, should be a number")
    return number


def _line(form: ReceivedForm, name: str, max_length: int) -> str:
    text = _text(form, name)
    if len(text) > max_length or not text.isprintable():
        raise InvalidSubmission(
            f"Invalid {name}, should be at most {max_length} printable characters on one line"
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


def check_priority(priority: int, most: int) -> None:
    """Raise ``InvalidSubmission`` for a priority that a user may not ask for."""
    if priority > most:
        raise InvalidSubmission(f"Invalid priority, should be at most {most} for this user")


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


def _job_ids(form: ReceivedForm, name: str) -> tuple[int, ...]:
    """Return the ids of a field with commas, each once. Whether they exist is checked later."""
    text = _text(form, name)
    words = [word.strip() for word in text.split(",")] if text else []
    if not all(_JOB_ID.fullmatch(word) for word in words):
        raise InvalidSubmission(f"Invalid {name}, should be ids of jobs with commas: 12,13")
    if len(words) > MAX_DEPENDENCIES:
        raise InvalidSubmission(f"Invalid {name}, should be at most {MAX_DEPENDENCIES} jobs")
    if words and any(path.split("/")[0] == INPUTS for path in form.files):
        raise InvalidSubmission(
            f"Invalid file name {INPUTS}: the results of other jobs are put there"
        )
    return tuple(dict.fromkeys(map(int, words)))


def _array(text: str, max_tasks: int) -> ArrayRequest | None:
    """Return the tasks that ``1,3,7-9%2`` names: indexes and ranges, and how many are active."""
    if not text:
        return None
    listed, percent, most = text.partition("%")
    ranges = [_INDEXES.fullmatch(word.strip()) for word in listed.split(",")]
    most = most.strip()
    if not all(ranges) or (percent and not _AT_ONCE.fullmatch(most)):
        raise InvalidSubmission(
            "Invalid array, should be indexes and ranges of indexes with commas, and after % how"
            " many tasks run at the same time: 1-100, 1,3,7-9 or 1-100%5"
        )
    bounds = [(int(each[1]), int(each[2] or each[1])) for each in ranges if each is not None]
    backwards = next((f"{first}-{last}" for first, last in bounds if first > last), None)
    if backwards is not None:
        raise InvalidSubmission(f"Invalid array, the range {backwards} ends before it begins")
    if not max_tasks:
        raise InvalidSubmission("This server accepts no arrays (MAX_ARRAY_TASKS)")
    if sum(last - first + 1 for first, last in bounds) > max_tasks:
        raise InvalidSubmission(f"Invalid array, should have at most {max_tasks} tasks")
    indexes = sorted(index for first, last in bounds for index in range(first, last + 1))
    repeated = next((a for a, b in pairwise(indexes) if a == b), None)
    if repeated is not None:
        raise InvalidSubmission(f"Invalid array, the index {repeated} is named twice")
    return ArrayRequest(indexes, int(most) if most else len(indexes))


def _resources(form: ReceivedForm) -> Resources:
    return Resources(
        _cpus(_text(form, CPUS)), _memory_bytes(_text(form, MEMORY)), _gpus(_text(form, GPUS))
    )


def _cpus(text: str) -> float:
    if text in ("", "0"):
        return 0.0
    number = float(text) if _CPUS.fullmatch(text) else 0.0
    if not MIN_CPUS <= number <= MAX_CPUS:
        raise InvalidSubmission(
            f"Invalid cpus, should be a number from {MIN_CPUS:g} to {MAX_CPUS:g}"
        )
    return number


def _memory_bytes(text: str) -> int:
    if text in ("", "0"):
        return 0
    size = parse_size_bytes(text)
    if size is None or size < MIN_MEMORY_BYTES:
        raise InvalidSubmission(
            "Invalid memory, should be bytes, or a number with MB, GB, MiB or GiB, such as 4GB; at"
            f" least {size_text(MIN_MEMORY_BYTES)}"
        )
    return size


def _gpus(text: str) -> int:
    number = int(text or "0") if _INTEGER.fullmatch(text or "0") else -1
    if not 0 <= number <= MAX_GPUS:
        raise InvalidSubmission(f"Invalid gpus, should be a whole number from 0 to {MAX_GPUS}")
    return number


def with_defaults(wanted: Resources, service: Service) -> Resources:
    """Return what a job of a service asks for, with the defaults of the service.

    Raises ``InvalidSubmission`` for more than a job of the service may ask for.
    """
    default, most = service.resources, service.max_resources
    full = Resources(
        wanted.cpus or default.cpus,
        wanted.memory_bytes or default.memory_bytes,
        wanted.gpus or default.gpus,
    )
    for name, asked, limit, text in (
        (CPUS, full.cpus, most.cpus, f"{most.cpus:g}"),
        (MEMORY, full.memory_bytes, most.memory_bytes, size_text(most.memory_bytes)),
        (GPUS, full.gpus, most.gpus, str(most.gpus)),
    ):
        if limit and asked > limit:
            raise InvalidSubmission(
                f"Invalid {name}, should be at most {text} for the service {service.name}"
            )
    return full


def check_machines(wanted: Resources, service: Service, offers: Sequence[Resources]) -> None:
    """Raise ``InvalidSubmission`` if a job can run on no client: ``offers`` are all there are."""
    if wanted and offers and not any(offer.hold(wanted) for offer in offers):
        raise InvalidSubmission(
            f"No machine of the service {service.name} has {wanted}; the largest has"
            f" {max(offers, key=_size)}"
        )


def _size(offer: Resources) -> tuple[int, float, int]:
    return offer.gpus, offer.cpus, offer.memory_bytes


def _callback_url(text: str, rules: CallbackRules) -> str | None:
    if not text:
        return None
    check_url(text, rules)
    return text


def _checked_key(text: str | None) -> str | None:
    if text is None:
        return None
    if not (0 < len(text) <= MAX_KEY_LENGTH and text.isascii() and text.isprintable()):
        raise InvalidSubmission(
            f"Invalid Idempotency-Key, should be 1 to {MAX_KEY_LENGTH} printable ASCII characters"
        )
    return text
