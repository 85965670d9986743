"""What filters in Python share: the configuration, values, outcomes."""

import json
import struct
from typing import Any

from componentize_py_types import Err
from wit_world.imports.types import Edit, Field, Outcome, Reply, Verdict_Continue, Verdict_Respond


def parsed(config: str) -> dict[str, Any]:
    """The configuration as an object. Err refuses it."""
    try:
        value = json.loads(config or "{}")
    except ValueError as error:
        raise Err(str(error))
    if not isinstance(value, dict):
        raise Err("an object is wanted")
    return value


def unpacked(values: bytes) -> dict[int, list[bytes]]:
    """For each position in what the hook asked for its values, in order; nothing where there is none."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at < len(values):
        position, name, length = struct.unpack_from("<HHI", values, at)
        start = at + 8 + name
        at = start + length
        found.setdefault(position, []).append(values[start:at])
    return found


def passed(edits: list[Edit]) -> Outcome:
    """The request goes on with these edits."""
    return Outcome(Verdict_Continue(), edits, None)


def respond(status: int, reason: str, text: str, rule: str | None = None) -> Outcome:
    """An answer of plain text in the app's place."""
    headers = [Field("content-type", b"text/plain")]
    return Outcome(Verdict_Respond(Reply(status, headers, text.encode(), rule, reason, 0)), [], None)
