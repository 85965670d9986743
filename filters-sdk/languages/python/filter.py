"""A filter to start from: refuses some callers, counts the others, and greets the app with each."""

from dataclasses import dataclass

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import metrics
from wit_world.imports.types import Call, Edit_Set, Field, Hook, Interest, Outcome, ValueName

from weft import parsed, passed, respond, unpacked


@dataclass
class Settings:
    refused: list[str]
    seen: int


# What each configuration has made, by its id.
configurations: dict[int, Settings] = {}


class Configuration(exports.Configuration):
    def configure(self, id: int, config: str) -> Interest:
        # Err refuses the configuration; other exceptions trap.
        refused = accounts(config)
        configurations[id] = Settings(refused, metrics.define(metrics.Kind.COUNTER, "seen_total", ["account"]))
        return Interest([Hook("request-head", [ValueName("source.service-account", False)], [])])

    def forget(self, id: int) -> None:
        configurations.pop(id, None)


class RequestHead(exports.RequestHead):
    def on_request_head(self, call: Call, values: bytes) -> Outcome:
        settings = configurations[call.config]
        account = unpacked(values).get(0, [b"nobody"])[0].decode()
        if account in settings.refused:
            return respond(403, "caller_refused", "go away\n", account)
        metrics.add(settings.seen, [account], 1)
        return passed([Edit_Set(Field("x-greeting", f"hello {account}".encode()))])


def accounts(config: str) -> list[str]:
    value = parsed(config)
    refused = value.pop("refused", [])
    for name in value:
        raise Err(f"{name}: there is no such field")
    if not isinstance(refused, list):
        raise Err("refused: a list is wanted")
    for index, name in enumerate(refused):
        if not isinstance(name, str):
            raise Err(f"refused[{index}]: a text is wanted")
    return refused
