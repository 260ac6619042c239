"""The synchronous and the asynchronous client offer the same calls."""

import inspect
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, get_args, get_origin

import pytest

from job_orchestrator.sdk import AsyncClient, Client

CALLS = sorted(name for name in dir(AsyncClient) if not name.startswith("_"))


def result_type(call: Callable[..., Any]) -> Any:
    """Return the type of a call's result without ``await``, with iterators for streams."""
    kind = inspect.signature(call).return_annotation
    if get_origin(kind) is AsyncGenerator:
        return Iterator[get_args(kind)[0]]  # type: ignore[misc]
    return kind


def test_synchronous_client_has_the_calls_of_the_asynchronous_one() -> None:
    assert sorted(name for name in dir(Client) if not name.startswith("_")) == CALLS


@pytest.mark.parametrize("name", ["__init__", *CALLS])
def test_call_has_the_same_parameters_and_result(name: str) -> None:
    synchronous, asynchronous = (
        inspect.getattr_static(kind, name) for kind in (Client, AsyncClient)
    )
    if isinstance(asynchronous, property):
        assert isinstance(synchronous, property)
        synchronous, asynchronous = synchronous.fget, asynchronous.fget
    # Names, order, defaults and types.
    signatures = [inspect.signature(call) for call in (synchronous, asynchronous)]
    assert signatures[0].parameters == signatures[1].parameters
    assert result_type(synchronous) == result_type(asynchronous)
