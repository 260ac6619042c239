"""Jobs of the soak, and the checks of each job from outside.

Every script appends a line to a log when it starts, while it runs and when it ends. The services do
not know this log. The log, the responses of the server and the results are the only evidence.
"""

import hashlib
import itertools
import random
import time
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from uuid import uuid4
from zipfile import ZipFile

KINDS = {
    "quick": 30,
    "slow": 14,
    "failing": 10,
    "big": 6,
    "odd names": 10,
    "escaping": 10,
    "cancelled": 14,
    "refused": 6,
}
"""Kinds of jobs with their relative frequencies."""

EXPECTED = {"failing": "Failed", "cancelled": "Killed", "refused": "Invalid"}

BIG_BYTES = 600_000
CANCEL_GRACE_S = 1.0
"""Tolerance for log lines after the response to a cancellation: clocks and buffers."""

ODD_NAMES = ("a/x", "b/x", "ü ö/ß.bin", "--help", "a'b", "semi;colon", ".hidden", "$HOME")

FAULTY_DISK = "run.sh exited with code 9"
"""Message of a job whose script itself could not write. All else is tried again."""


@dataclass
class SoakJob:
    """A job of the soak: the request and its outcome. Times are in seconds since the epoch.

    ``ended_at`` is when the portal saw the end, ``digest`` that of the results that it fetched.
    """

    kind: str
    user: int
    token: str = field(default_factory=lambda: uuid4().hex)
    key: str | None = None
    job_id: int | None = None
    cancelled_at: float | None = None
    status: str = ""
    message: str = ""
    done: bool = False
    ended_at: float | None = None
    digest: str = ""

    @property
    def files(self) -> dict[str, bytes]:
        """Uploaded files, in addition to run.sh."""
        names = ODD_NAMES if self.kind == "odd names" else ("in put/ä.bin",)
        return {name: f"{self.token} {name}\n".encode() * 20 for name in names}

    def script(self, log: Path) -> str:
        """Return run.sh. Exit status 9 means that writing to the disk failed."""
        start = f"say() {{ echo \"$1 {self.token} $(date +%s.%N) $PWD\" >> '{log}'; }}\nsay start\n"
        copies = "mkdir -p copies || exit 9\n"
        for number, name in enumerate(self.files):
            quoted = "'" + name.replace("'", "'\\''") + "'"
            copies += f"cat ./{quoted} > copies/{number} || exit 9\n"
        return start + copies + self._rest()

    def _rest(self) -> str:
        escape = (
            f"setsid nohup bash -c 'while :; do sleep 0.2; done' {self.token} > /dev/null 2>&1 &\n"
            f"(setsid bash -c 'trap \"\" TERM; while :; do sleep 0.2; done' {self.token} &) &\n"
        )
        return {
            "slow": "for i in 1 2 3 4 5; do sleep 0.4; done\nsay end\nexit 0\n",
            "failing": "say end\nexit 7\n",
            "big": f"head -c {BIG_BYTES} /dev/urandom > noise || exit 9\n"
            "sha256sum < noise > noise.sha || exit 9\nsay end\nexit 0\n",
            "escaping": f"{escape}sleep 0.3\nsay end\nexit 0\n",
            "cancelled": f"{escape}while :; do sleep 0.2; say alive; done\n",
            "refused": "curl http://example.org\nexit 0\n",
        }.get(self.kind, "say end\nexit 0\n")


def next_job(rng: random.Random) -> SoakJob:
    """Return a job of a random kind and user; half of the jobs have an idempotency key.

    Endless ones always have: one that was not acknowledged would run for ever.
    """
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    job = SoakJob(kind, rng.choice((1, 2)))
    if rng.random() < 0.5 or kind == "cancelled":
        job.key = job.token
    return job


@dataclass(frozen=True)
class LogLine:
    """One line of the scripts' log; ``what`` is ``start``, ``alive`` or ``end``."""

    what: str
    at: float
    folder: str


def read_log(log: Path) -> dict[str, list[LogLine]]:
    """Return the log lines of each token in order."""
    lines: dict[str, list[LogLine]] = {}
    for text in log.read_text().splitlines() if log.exists() else ():
        what, token, at, folder = text.split(" ", 3)
        lines.setdefault(token, []).append(LogLine(what, float(at), folder))
    return lines


@dataclass(frozen=True)
class Outage:
    """A period in which a client was down, or unreachable for longer than LOST_AFTER."""

    client_folder: str
    begin: float
    end: float


def broken_promises(
    job: SoakJob, lines: list[LogLine], outages: list[Outage], *, disks_failed: bool
) -> list[str]:
    """Return a sentence for each promise that was broken for a job."""
    wrong = []
    name = f"job {job.job_id} ({job.kind}, {job.token})"
    starts = [line for line in lines if line.what == "start"]
    if job.kind == "refused" and starts:
        wrong.append(f"{name} was refused and ran")
    for earlier, later in itertools.pairwise(starts):
        if not any(_explains(outage, earlier, later) for outage in outages):
            wrong.append(f"{name} ran again at {later.at} after {earlier.at} in {earlier.folder}")
    if job.job_id is None:
        return wrong  # never acknowledged: whether it ran is undefined
    if not job.done:
        return [*wrong, f"{name} has not ended: it is {job.status} ({job.message})"]
    expected = EXPECTED.get(job.kind, "Completed")
    excused = disks_failed and job.status == "Failed" and job.message == FAULTY_DISK
    if job.status != expected and not excused:
        wrong.append(f"{name} ended {job.status} ({job.message})")
    if job.status == "Completed" and not starts:
        wrong.append(f"{name} is Completed and never ran")
    if job.ended_at is not None and starts and starts[-1].at > job.ended_at:
        wrong.append(f"{name} ran at {starts[-1].at}, after its end was seen at {job.ended_at}")
    if job.cancelled_at is not None:
        late = [line for line in lines if line.at > job.cancelled_at + CANCEL_GRACE_S]
        wrong += [
            f"{name} was running at {line.at}, after its cancellation at {job.cancelled_at}"
            for line in late[:1]
        ]
    return wrong


def _explains(outage: Outage, earlier: LogLine, later: LogLine) -> bool:
    """Check whether an outage of the earlier run's client explains the later run."""
    return (
        earlier.folder.startswith(outage.client_folder)
        and outage.end >= earlier.at
        and outage.begin <= later.at
    )


def wrong_results(job: SoakJob, body: bytes) -> list[str]:
    """Return the errors in the results of a job that is Completed or Failed as expected."""
    archive = ZipFile(BytesIO(body))
    for number, content in enumerate(job.files.values()):
        if archive.read(f"copies/{number}") != content:
            return [f"job {job.job_id} has results of another job"]
    if job.kind == "big":
        digest = hashlib.sha256(archive.read("noise")).hexdigest()
        if archive.read("noise.sha").decode().split()[0] != digest:
            return [f"job {job.job_id} has corrupted results"]
    return []


def now() -> float:
    """Return the time of the clock that the scripts use, in seconds since the epoch."""
    return time.time()
