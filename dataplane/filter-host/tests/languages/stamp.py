"""A filter in Python: stamps requests with a word of its configuration, their path and the century."""

import json
import struct
import time

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import Call, Edit_Set, Field, Hook, Interest, Outcome, ValueName, Verdict_Continue

words: dict[int, str] = {}


class Configuration(exports.Configuration):
    def configure(self, id: int, config: str) -> Interest:
        try:
            word = json.loads(config).get("word")
        except ValueError as error:
            raise Err(str(error))  # refuses the configuration; other exceptions would trap
        if not isinstance(word, str):
            raise Err("word: a text is wanted")
        words[id] = word
        return Interest([Hook("request-head", [ValueName("request.path", False)], [])])

    def forget(self, id: int) -> None:
        words.pop(id, None)


class RequestHead(exports.RequestHead):
    def on_request_head(self, call: Call, values: bytes) -> Outcome:
        path = unpacked(values).get(0, b"").decode("latin-1")
        century = time.gmtime().tm_year // 100
        print(f"stamps {path}")
        value = f"{words[call.config]} {path} {century}".encode("latin-1")
        return Outcome(Verdict_Continue(), [Edit_Set(Field("x-stamp", value))], None)


def unpacked(values: bytes) -> dict[int, bytes]:
    """Values by their position in what was asked for, the last of each."""
    found, at = {}, 0
    while at < len(values):
        position, name, length = struct.unpack_from("<HHI", values, at)
        start = at + 8 + name
        at = start + length
        found[position] = values[start:at]
    return found
