"""API keys: a request passes with a key whose SHA-256 the configuration has, under its client's name. Keys themselves
stand nowhere. Needs the capabilities `crypto` and `wasi`."""

import json
import struct

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import crypto, log
from wit_world.imports.types import (
    Call,
    Edit_Attribute,
    Edit_Remove,
    Edit_Set,
    Field,
    Hook,
    Interest,
    Outcome,
    Reply,
    ValueName,
    Verdict_Continue,
    Verdict_Respond,
)

# Header, and clients by the hash of their keys, of each configuration.
configurations: dict[int, tuple[str, dict[bytes, str]]] = {}


class Configuration(exports.Configuration):
    def configure(self, id: int, config: str) -> Interest:
        try:
            value = json.loads(config)
            header, hashes = value.get("header", "x-api-key"), dict(value["clients"])
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise Err(f"clients: {error}")
        clients: dict[bytes, str] = {}
        for client, digits in hashes.items():
            if not isinstance(digits, str) or len(digits) != 64:
                raise Err(f"clients.{client}: 64 hex digits are wanted")
            try:
                key = bytes.fromhex(digits)
            except ValueError:
                raise Err(f"clients.{client}: 64 hex digits are wanted")
            if key in clients:
                raise Err(f"clients.{client}: it has the key of {clients[key]}")
            clients[key] = client
        configurations[id] = (header, clients)
        return Interest([Hook("request-head", [ValueName(f"request.header.{header}", False)], [])])

    def forget(self, id: int) -> None:
        configurations.pop(id, None)


class RequestHead(exports.RequestHead):
    def on_request_head(self, call: Call, values: bytes) -> Outcome:
        header, clients = configurations[call.config]
        keys = unpacked(values)
        if len(keys) != 1:
            return respond(401, "key_missing", "one API key is wanted\n")
        try:
            client = clients.get(crypto.sha256(keys[0]))
        except Err:
            log.write(log.Level.WARN, "no key can be checked")
            return respond(503, "key_unverifiable", "no key can be checked\n")
        if client is None:
            return respond(401, "key_unknown", "the API key is none\n")
        edits = [
            Edit_Remove(header),
            Edit_Set(Field("x-api-client", client.encode())),
            Edit_Attribute(Field("filter.apikeys.client", client.encode())),
        ]
        return Outcome(Verdict_Continue(), edits, None)


def unpacked(values: bytes) -> list[bytes]:
    """All values; the hook asked for one name."""
    found: list[bytes] = []
    at = 0
    while at < len(values):
        _, name, length = struct.unpack_from("<HHI", values, at)
        start = at + 8 + name
        at = start + length
        found.append(values[start:at])
    return found


def respond(status: int, reason: str, text: str) -> Outcome:
    headers = [Field("content-type", b"text/plain")]
    return Outcome(Verdict_Respond(Reply(status, headers, text.encode(), None, reason, 0)), [], None)
