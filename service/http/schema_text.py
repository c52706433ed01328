"""JSON Schema in words: what a shape's members are, one row each, shapes within shapes under the names that lead there.

Only for what `openapi.py` makes of our shapes: other words of JSON Schema do not occur.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

Schema = dict[str, Any]

_REF: Final = "#/components/schemas/"
_APART: Final = "Problem"
"""The shape that is told once, by itself."""


class Member(NamedTuple):
    """``name``: with the way to it, as ``commits[].session``; ``needed``: it must be there, or always is."""

    name: str
    kind: str
    bounds: str
    needed: bool
    default: str
    about: str


class Shapes:
    """The shapes of a reference."""

    def __init__(self, components: dict[str, Schema]) -> None:
        self._components = components

    def about(self, schema: Schema) -> str:
        """What its docstring says."""
        return str(self._resolved(schema).get("description", ""))

    def kind(self, schema: Schema) -> str:
        """Its type, as ``{type: {id: any JSON}}``."""
        if "$ref" in schema:
            return "problem" if self._is_apart(schema) else "object"
        if "anyOf" in schema:
            return " or ".join(self.kind(each) for each in schema["anyOf"])
        if "enum" in schema:
            return " or ".join(f'"{each}"' for each in schema["enum"])
        if "items" in schema:
            return f"[{self.kind(schema['items'])}, …]"
        if "additionalProperties" in schema:
            return f"{{{_named(schema)}: {self.kind(schema['additionalProperties'])}}}"
        return _plain(schema)

    def members(self, schema: Schema, at: str = "") -> Iterator[Member]:
        """Every member of an object, and of those within it."""
        shape = self._resolved(schema)
        needed = shape.get("required", [])
        for name, member in shape.get("properties", {}).items():
            way, inner = self._within(member, at + name)
            about = [member.get("description", ""), self.about(inner) if inner else ""]
            yield Member(
                at + name,
                self.kind(member),
                "; ".join(filter(None, map(_bounds, [member, *member.get("anyOf", [])]))),
                name in needed,
                _default(member),
                ". ".join(each for each in about if each),
            )
            if inner:
                yield from self.members(inner, way + ".")

    def _within(self, schema: Schema, way: str) -> tuple[str, Schema | None]:
        """The shape that a member leads to, and the way there."""
        if "$ref" in schema:
            return way, None if self._is_apart(schema) else schema
        if "items" in schema:
            return self._within(schema["items"], way + "[]")
        if isinstance(schema.get("additionalProperties"), dict):
            return self._within(schema["additionalProperties"], f"{way}.{{{_named(schema)}}}")
        for each in schema.get("anyOf", []):
            found = self._within(each, way)
            if found[1]:
                return found
        return way, None

    def _is_apart(self, schema: Schema) -> bool:
        return bool(schema["$ref"] == _REF + _APART)

    def _resolved(self, schema: Schema) -> Schema:
        return self._components[schema["$ref"].removeprefix(_REF)] if "$ref" in schema else schema


def _named(schema: Schema) -> str:
    return str(schema.get("propertyNames", {}).get("title", "name"))


def _plain(schema: Schema) -> str:
    kinds = schema.get("type", "any JSON")
    if kinds != "string":
        return kinds if isinstance(kinds, str) else " or ".join(kinds)
    return schema.get("title") or {"uuid": "UUID", "date-time": "time"}.get(schema.get("format", ""), "string")


def _bounds(schema: Schema) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    unit = ""
    for words, of in (("Length", " characters"), ("Items", "")):
        if "max" + words in schema:
            least, most, unit = schema.get("min" + words), schema["max" + words], of
    if most is None:
        return "" if least is None else f"{least:,} or more"
    return f"{most:,}{unit} at most" if least is None else f"{least:,} to {most:,}{unit}"


def _default(schema: Schema) -> str:
    default = schema.get("default")
    return "" if default is None or default == {} else str(default).lower()
