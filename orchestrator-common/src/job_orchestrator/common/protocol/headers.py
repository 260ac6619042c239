"""Names of the HTTP headers that server, client and SDK exchange."""

from typing import Final

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
"""Names a submission. A repeat with the same value has no further effect.

draft-ietf-httpapi-idempotency-key-header.
"""

TIME_LIMIT: Final = "Time-Limit"
"""Maximum run time of a payload in seconds, a decimal number. Sent by jo-server to jo-client."""

RUN_SECONDS: Final = "Run-Seconds"
"""Seconds that the script of a payload ran, a decimal number. Sent by jo-client."""

X_REQUEST_ID: Final = "X-Request-Id"
"""Identifies a request in the logs of both services."""

REPR_DIGEST: Final = "Repr-Digest"
"""Digest of a whole file, also where an answer holds only a range of it (RFC 9530)."""

JOB_ATTEMPT: Final = "Job-Attempt"
"""Number of the attempt whose output an answer holds. Sent by jo-server."""

LAST_EVENT_ID: Final = "Last-Event-ID"
"""Number of the last event that a reader of an event stream has received (WHATWG HTML, 9.2)."""
