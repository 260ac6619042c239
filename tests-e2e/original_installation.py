"""An installation of the original job-orchestrator, as its release 2.2.3 leaves it on the disk."""

import contextlib
import hashlib
import io
import sqlite3
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path

SCHEMA = """CREATE TABLE jobs (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            user_id INTEGER NOT NULL,
            service TEXT NOT NULL,
            status TEXT NOT NULL,
            loc TEXT NOT NULL,
            dest_id INTEGER,
            created_at DATETIME DEFAULT CURRENT_TIMESTAMP
        )"""

SCRIPT = b"#!/bin/bash\ntrap 'echo $? > .orchestrator.exit' EXIT\ncat in.txt > out.txt\n"
IN_CONTAINER = "/opt/data"
DISPATCHED = {"submitted", "running", "completed", "failed", "invalid", "killed", "cleaned"}


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Return a ZIP of files."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return body.getvalue()


class OriginalInstallation:
    """Database and data folder of a server of the original, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "db.sqlite"
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        self.execute(SCHEMA)

    def execute(self, statement: str, *values: object) -> int:
        """Execute a statement, and return the id of the row that it has added."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection, connection:
            return connection.execute(statement, values).lastrowid or 0

    def add(
        self,
        status: str,
        *,
        user: int = 1,
        service: str = "example",
        files: Mapping[str, bytes] | None = None,
        created_at: str = "2026-11-29 01:56:00",
        with_folder: bool = True,
    ) -> int:
        """Add a job in a state, with the files that the original has of it, and return its id."""
        name = str(uuid.uuid4())
        inputs = {"run.sh": SCRIPT, "in.txt": b"hello", **(files or {})}
        if with_folder and status != "cleaned":
            folder = self.data / name
            folder.mkdir()
            for file, content in inputs.items():
                (folder / file).write_bytes(content)
            if status == "completed":
                output = {"in.txt": b"hello", "out.txt": b"hello"}
                (folder / "output.zip").write_bytes(zipped(output))
        job = self.execute(
            "INSERT INTO jobs (user_id, service, status, loc, created_at) VALUES (?, ?, ?, ?, ?)",
            *(user, service, status, f"{IN_CONTAINER}/{name}", created_at),
        )
        if status in DISPATCHED:
            self.execute("UPDATE jobs SET dest_id = id + 100 WHERE id = ?", job)
        return job

    def folder_of(self, job: int) -> Path:
        """Return the folder of a job."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            ((loc,),) = connection.execute("SELECT loc FROM jobs WHERE id = ?", (job,))
        return self.data / Path(loc).name

    def ends(self, job: int, output: Mapping[str, bytes]) -> None:
        """Complete a job, as the original does when it has fetched the results."""
        (self.folder_of(job) / "output.zip").write_bytes(zipped(output))
        self.execute("UPDATE jobs SET status = 'completed', dest_id = 1 WHERE id = ?", job)

    def digest(self) -> str:
        """Return a digest of all names and contents."""
        files = sorted(path for path in self.data.parent.rglob("*") if path.is_file())
        total = hashlib.sha256()
        for path in files:
            total.update(str(path).encode("utf-8", "surrogateescape"))
            total.update(path.read_bytes())
        return total.hexdigest()
