"""Jobs that record their runs from outside, and whose results can be recognised."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from harness import Portal

ACCEPTED = {
    "quick": "Completed",
    "failing": "Failed",
    "big": "Completed",
    "gated": "Completed",
    "endless": "Killed",
}


@dataclass(frozen=True)
class Work:
    """One job of a portal. Its script records each run in a file that no service knows."""

    kind: str
    token: str
    content: bytes

    def script(self, log: Path) -> str:
        """Content of run.sh."""
        note = f"echo {self.token} >> '{log}'\n"
        copy = "mkdir -p out && cat 'in put/ä.bin' > out/copy\n"
        ends = {
            "quick": "exit 0\n",
            "failing": "exit 7\n",
            "big": "head -c 3000000 /dev/urandom > noise; sha256sum < noise > noise.sha; exit 0\n",
            "gated": f"until [ -e '{log}.gate' ]; do sleep 0.05; done\n",
            "endless": "while :; do sleep 0.2; done\n",
        }
        return note + copy + ends[self.kind]


@dataclass
class Workload:
    """Submitted and acknowledged jobs, and their records."""

    log: Path
    accepted: dict[int, Work] = field(default_factory=dict)

    def new(self, kind: str) -> Work:
        """Create a job with a new token."""
        token = uuid4().hex
        return Work(kind, token, token.encode() * 100)

    async def submit(self, portal: Portal, kind: str, user: int = 1) -> int:
        """Submit a job of a kind. Raises the errors that the portal meets."""
        work = self.new(kind)
        job = await portal.submit(work.script(self.log), {"in put/ä.bin": work.content}, user=user)
        self.accepted[job] = work
        return job

    def open_gate(self) -> None:
        """Let the gated jobs end."""
        self.log.with_name(f"{self.log.name}.gate").touch()

    def runs(self) -> Counter[str]:
        """Count the starts of each script."""
        return Counter(self.log.read_text().split()) if self.log.exists() else Counter()

    async def check(self, portal: Portal, *, most_runs: int = 1) -> None:
        """Check that every acknowledged job ends with its own results, and how often it ran."""
        for job, work in self.accepted.items():
            state = await portal.end_of(job)
            assert state["status"] == ACCEPTED[work.kind], state
            await check_results(portal, job, work)
        runs = self.runs()
        for work in self.accepted.values():
            least = 0 if work.kind == "endless" else 1
            assert least <= runs[work.token] <= most_runs, (work.kind, runs[work.token])


async def check_results(portal: Portal, job: int, work: Work) -> None:
    """Check that an ended job has its own, complete output."""
    if work.kind == "endless":
        return  # its partial output may be lost with its client
    archive = await portal.results(
        job, "download_partial" if work.kind == "failing" else "download"
    )
    assert archive.read("out/copy") == work.content
    if work.kind == "big":
        digest = hashlib.sha256(archive.read("noise")).hexdigest()
        assert archive.read("noise.sha").decode().split()[0] == digest
