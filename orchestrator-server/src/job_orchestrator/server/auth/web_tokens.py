"""Form of JSON Web Tokens (RFC 7519), without any verification."""

import json
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Any

from job_orchestrator.common.errors import Unauthorized

MAX_TOKEN_BYTES = 16 << 10


def is_web_token(token: str) -> bool:
    """Return whether a token has the form of a JSON Web Token, valid or not."""
    return token.count(".") == 2


def decoded_part(token: str, number: int) -> Mapping[str, Any]:
    """Return the header (0) or the claims (1) of a token, not verified. Raises ``Unauthorized``."""
    try:
        if len(token) > MAX_TOKEN_BYTES:
            raise ValueError("too long")
        part = token.split(".")[number]
        content = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        if not isinstance(content, dict):
            raise TypeError("not an object")
    except (ValueError, TypeError, RecursionError) as error:
        raise Unauthorized("This is not a valid JSON Web Token") from error
    return content
