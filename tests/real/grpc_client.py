"""Calls each kind on the target given, by the proxy that grpc_proxy names, and checks every answer."""

import sys

import grpc


def main():
    channel = grpc.insecure_channel(sys.argv[1])
    path = "/weft.test.Echo/"
    unary = channel.unary_unary(path + "Unary")
    answer, call = unary.with_call(b"hello", timeout=20)
    assert answer == b"HELLO", answer
    assert ("x-trailer", "kept") in [tuple(pair) for pair in call.trailing_metadata()], call.trailing_metadata()
    assert unary(b"x" * 1_000_000, timeout=20) == b"X" * 1_000_000

    items = list(channel.unary_stream(path + "ServerStream")(b"100", timeout=20))
    assert items == [b"item %d" % count for count in range(100)], items

    total = channel.stream_unary(path + "ClientStream")(iter([b"a" * 1000] * 100), timeout=20)
    assert total == b"100000", total

    echoed = list(channel.stream_stream(path + "Bidi")(iter([b"ab", b"cd", b"ef"]), timeout=20))
    assert echoed == [b"ba", b"dc", b"fe"], echoed

    try:
        unary(b"missing", timeout=20)
        raise SystemExit("an error was expected")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
        assert error.details() == "no such thing", error
    try:
        channel.unary_unary(path + "Nowhere")(b"", timeout=20)
        raise SystemExit("an error was expected")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    print("all kinds of call answered")


main()
