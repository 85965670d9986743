"""A service of Envoy's gRPC ext_authz, of bytes: no generated code. It denies what is asked about a path with /deny, and names
the user of all else. Argument: the address to listen on."""

import sys
from concurrent import futures

import grpc

# Status 0 and the header x-user: ada; status 7 with 401 and the body "no".
ALLOWED = bytes.fromhex("0a00" "1a11" "120f" "0a0d" "0a06782d75736572" "1203616461")
DENIED = bytes.fromhex("0a020807" "1209" "0a03089103" "1a026e6f")


def check(request, context):
    return DENIED if b"/deny" in request else ALLOWED


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    service = "envoy.service.auth.v3.Authorization"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    if server.add_insecure_port(sys.argv[1]) == 0:
        sys.exit("address taken")
    server.start()
    print("listening", flush=True)
    server.wait_for_termination()


main()
