"""Jobs of the soak, and the promises about each, checked from outside.

Every script records its start, its life and its end in a file that no service knows. These lines,
the answers of the server and the results are the only evidence.
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
"""Tolerance for a line that is written after the answer to a termination: clocks and buffers."""

ODD_NAMES = ("a/x", "b/x", "ü ö/ß.bin", "--help", "a'b", "semi;colon", ".hidden", "$HOME")

FAULTY_DISK = (
    "disk is full",
    "can't be written",
    "No space",
    "Read-only",
    "I/O error",
    "Input/output error",
    "exited with code 9",
    "could not run it",
    "could not be run",
    "could not be packed",
    "can't be read",
)
"""Message of a job that Failed because of an injected fault of a disk or database."""


@dataclass
class SoakJob:
    """A job: its request and its outcome. Times are seconds since the epoch."""

    kind: str
    user: int
    token: str = field(default_factory=lambda: uuid4().hex)
    key: str | None = None
    job_id: int | None = None
    cancelled_at: float | None = None
    status: str = ""
    message: str = ""
    done: bool = False

    @property
    def files(self) -> dict[str, bytes]:
        """Uploaded files other than run.sh."""
        names = ODD_NAMES if self.kind == "odd names" else ("in put/ä.bin",)
        return {name: f"{self.token} {name}\n".encode() * 20 for name in names}

    def script(self, log: Path) -> str:
        """Content of run.sh. Exit status 9: the disk refused its output."""
        note = f"say() {{ echo \"$1 {self.token} $(date +%s.%N) $PWD\" >> '{log}'; }}\nsay start\n"
        copies = "mkdir -p copies || exit 9\n"
        for number, name in enumerate(self.files):
            quoted = "'" + name.replace("'", "'\\''") + "'"
            copies += f"cat ./{quoted} > copies/{number} || exit 9\n"
        return note + copies + self._rest()

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


def next_job(chance: random.Random) -> SoakJob:
    """Return a random job for one of two users; half of them with an idempotency key."""
    kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
    job = SoakJob(kind, chance.choice((1, 2)))
    if chance.random() < 0.5:
        job.key = job.token
    return job


@dataclass(frozen=True)
class Line:
    """A line of the log of scripts: ``start``, ``alive`` or ``end``."""

    what: str
    at: float
    folder: str


def read_log(log: Path) -> dict[str, list[Line]]:
    """Read the lines of each token, in order."""
    lines: dict[str, list[Line]] = {}
    for text in log.read_text().splitlines() if log.exists() else ():
        what, token, at, folder = text.split(" ", 3)
        lines.setdefault(token, []).append(Line(what, float(at), folder))
    return lines


@dataclass(frozen=True)
class Absence:
    """Interval in which a client was dead, or unreachable for longer than LOST_AFTER."""

    client_folder: str
    begin: float
    end: float


def broken_promises(
    job: SoakJob, lines: list[Line], absences: list[Absence], *, disks_failed: bool
) -> list[str]:
    """Describe the broken promises of a job."""
    wrong = []
    name = f"job {job.job_id} ({job.kind}, {job.token})"
    starts = [line for line in lines if line.what == "start"]
    if job.kind == "refused" and starts:
        wrong.append(f"{name} was refused and ran")
    for earlier, later in itertools.pairwise(starts):
        if not any(_explains(absence, earlier, later) for absence in absences):
            wrong.append(f"{name} ran again at {later.at} after {earlier.at} in {earlier.folder}")
    if job.job_id is None:
        return wrong  # never acknowledged: it may have run, or not
    if not job.done:
        return [*wrong, f"{name} has not ended: it is {job.status} ({job.message})"]
    expected = EXPECTED.get(job.kind, "Completed")
    excused = disks_failed and job.status == "Failed" and any(t in job.message for t in FAULTY_DISK)
    if job.status != expected and not excused:
        wrong.append(f"{name} ended {job.status} ({job.message})")
    if job.status == "Completed" and not starts:
        wrong.append(f"{name} is Completed and never ran")
    if job.cancelled_at is not None:
        late = [line for line in lines if line.at > job.cancelled_at + CANCEL_GRACE_S]
        wrong += [f"{name} lived at {line.at}, cancelled {job.cancelled_at}" for line in late[:1]]
    return wrong


def _explains(absence: Absence, earlier: Line, later: Line) -> bool:
    """Return whether a client was absent between the start of a run there and the next run."""
    return (
        earlier.folder.startswith(absence.client_folder)
        and absence.end >= earlier.at
        and absence.begin <= later.at
    )


def wrong_results(job: SoakJob, body: bytes) -> list[str]:
    """Describe wrong results of a job that Completed, or Failed as intended."""
    archive = ZipFile(BytesIO(body))
    for number, content in enumerate(job.files.values()):
        if archive.read(f"copies/{number}") != content:
            return [f"job {job.job_id} has results that are not its own"]
    if job.kind == "big":
        digest = hashlib.sha256(archive.read("noise")).hexdigest()
        if archive.read("noise.sha").decode().split()[0] != digest:
            return [f"job {job.job_id} has results that changed on the way"]
    return []


def now() -> float:
    """Return the time of the clock that the scripts use."""
    return time.time()
