"""API keys: a request passes with a key whose SHA-256 the configuration has, under its client's name. Keys themselves
stand nowhere. Needs the capabilities `crypto` and `wasi`."""

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
    ValueName,
)

from weft import parsed, passed, respond, unpacked

# Header, and clients by the hash of their keys, of each configuration.
configurations: dict[int, tuple[str, dict[bytes, str]]] = {}


def key_of(digits: object) -> bytes | None:
    """The bytes of 64 hex digits; None for all else, blanks between digits too."""
    if not isinstance(digits, str) or len(digits) != 64:
        return None
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        return None
    return key if len(key) == 32 else None


class Configuration(exports.Configuration):
    def configure(self, id: int, config: str) -> Interest:
        value = parsed(config)
        header, hashes = value.get("header", "x-api-key"), value.get("clients")
        if not isinstance(header, str):
            raise Err("header: a text is wanted")
        if not isinstance(hashes, dict):
            raise Err("clients: an object is wanted")
        clients: dict[bytes, str] = {}
        for client, digits in hashes.items():
            key = key_of(digits)
            if key is None:
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
        keys = unpacked(values).get(0, [])
        if len(keys) != 1:
            return respond(401, "key_missing", "one API key is wanted\n")
        try:
            client = clients.get(crypto.sha256(keys[0]))
        except Err:
            log.write(log.Level.WARN, "no key can be checked")
            return respond(503, "key_unverifiable", "no key can be checked\n")
        if client is None:
            return respond(401, "key_unknown", "the API key is none\n")
        return passed(
            [
                Edit_Remove(header),
                Edit_Set(Field("x-api-client", client.encode())),
                Edit_Attribute(Field("filter.apikeys.client", client.encode())),
            ]
        )
