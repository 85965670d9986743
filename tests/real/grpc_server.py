"""A gRPC server with the four kinds of call, of bytes: no generated code. Arguments: the address to listen on, and the age in
milliseconds at which it retires a connection, where it does."""

import sys
from concurrent import futures

import grpc


def unary(request, context):
    if request == b"missing":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
    context.set_trailing_metadata((("x-trailer", "kept"),))
    return request.upper()


def server_stream(request, context):
    for count in range(int(request)):
        yield b"item %d" % count


def client_stream(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def bidi(requests, context):
    for request in requests:
        yield request[::-1]


def main():
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    }
    options = [("grpc.max_connection_age_ms", int(age)) for age in sys.argv[2:]]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("weft.test.Echo", handlers),))
    if server.add_insecure_port(sys.argv[1]) == 0:
        sys.exit("address taken")
    server.start()
    print("listening", flush=True)
    server.wait_for_termination()


main()
