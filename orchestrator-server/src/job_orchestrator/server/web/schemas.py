"""Schemas of the OpenAPI document, made of the messages themselves."""

from collections.abc import Iterable
from typing import Any

import msgspec


def schemas_of(messages: Iterable[type[msgspec.Struct]]) -> dict[str, Any]:
    """The schemas of messages and of what they hold, by name, for ``components/schemas``."""
    _, components = msgspec.json.schema_components(
        messages, ref_template="#/components/schemas/{name}"
    )
    return {name: _in_version_3_0(_complete(schema)) for name, schema in components.items()}


def _complete(schema: dict[str, Any]) -> dict[str, Any]:
    """Mark every field as required. Defaults are for readers: an answer holds all fields."""
    fields = schema.get("properties")
    if fields is None:
        return schema
    for field in fields.values():
        field.pop("default", None)
    return {**schema, "required": list(fields)}


def _in_version_3_0(schema: Any) -> Any:
    """OpenAPI 3.0 has no type "null": it says ``nullable``."""
    if isinstance(schema, list):
        return [_in_version_3_0(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kinds = schema.get("anyOf", [])
    if {"type": "null"} in kinds:
        (kind,) = (each for each in kinds if each != {"type": "null"})
        rest = {name: value for name, value in schema.items() if name != "anyOf"}
        inner = {"allOf": [kind]} if "$ref" in kind else kind
        return {**_in_version_3_0(rest), **_in_version_3_0(inner), "nullable": True}
    return {name: _in_version_3_0(value) for name, value in schema.items()}
