"""Table of the payloads: one row for each, with the fields of ``PayloadRow``."""

from dataclasses import fields

from job_orchestrator.client.model import PayloadRow

COLUMNS = ", ".join(field.name for field in fields(PayloadRow))

SCHEMA = """
CREATE TABLE payloads (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL,
    key TEXT UNIQUE,
    refusal TEXT NOT NULL,
    time_limit_s REAL,
    status TEXT NOT NULL,
    killed INTEGER NOT NULL DEFAULT 0,
    exit_code INTEGER,
    message TEXT NOT NULL DEFAULT '',
    ended_at REAL,
    packing INTEGER NOT NULL DEFAULT 0,
    results_sha256 BLOB,
    cpus REAL NOT NULL DEFAULT 0, memory_bytes INT NOT NULL DEFAULT 0, gpus INT NOT NULL DEFAULT 0,
    run_s REAL,
    queued INTEGER NOT NULL DEFAULT 0,
    array_id INTEGER NOT NULL DEFAULT 0,
    array_index INTEGER NOT NULL DEFAULT 0,
    array_size INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX payloads_prepared ON payloads (id) WHERE status = 'Prepared';
CREATE INDEX payloads_running ON payloads (id) WHERE status = 'Running';
CREATE INDEX payloads_ended ON payloads (ended_at) WHERE ended_at IS NOT NULL;
"""
