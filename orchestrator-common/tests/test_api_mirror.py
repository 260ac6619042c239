"""The library's two clients are one: what works with await works without."""

import inspect
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, get_args, get_origin

import pytest

from job_orchestrator.sdk import AsyncClient, Client

CALLS = sorted(name for name in vars(AsyncClient) if not name.startswith("_"))


def returned(call: Callable[..., Any]) -> Any:
    """What a call gives without ``await``; streams are streams of the same."""
    kind = inspect.signature(call).return_annotation
    if get_origin(kind) is AsyncGenerator:
        return Iterator[get_args(kind)[0]]  # type: ignore[misc]
    return kind


def test_clients_have_the_same_calls() -> None:
    assert sorted(name for name in vars(Client) if not name.startswith("_")) == CALLS


@pytest.mark.parametrize("name", ["__init__", *CALLS])
def test_call_takes_and_gives_the_same(name: str) -> None:
    ours, theirs = (inspect.getattr_static(kind, name) for kind in (Client, AsyncClient))
    if isinstance(theirs, property):
        assert isinstance(ours, property)
        ours, theirs = ours.fget, theirs.fget
    # Names, order, defaults and types.
    assert inspect.signature(ours).parameters == inspect.signature(theirs).parameters
    assert returned(ours) == returned(theirs)
