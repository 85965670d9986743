"""Hooks of schemathesis: no call waits long or ends the token of the calls, and a filter is sent as the bytes that it is."""

import schemathesis

schemathesis.serializer.alias("application/wasm", "application/octet-stream")


@schemathesis.hook
def before_call(context, case, **kwargs):
    if case.query and "wait_ms" in case.query:
        case.query["wait_ms"] = 1
    if case.method == "DELETE" and case.path.endswith("/tokens/{name}"):
        case.path_parameters["name"] = f"no-{case.path_parameters['name']}"
