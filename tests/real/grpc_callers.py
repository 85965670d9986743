"""Eight callers that call without pause, by the proxy that the environment names, or by none; prints how many calls went wrong.
Arguments: target, calls."""

import collections
import sys
import threading

import grpc

CALLERS = 8


def call(target, calls, wrong):
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(target, options=options) as channel:
        unary = channel.unary_unary("/weft.test.Echo/Unary")
        for index in range(calls):
            try:
                sent = b"call %d" % index
                assert unary(sent, timeout=20) == sent.upper()
            except grpc.RpcError as error:
                wrong[f"{error.code()} {error.details()}"] += 1


def main():
    target, calls = sys.argv[1], int(sys.argv[2])
    wrong = collections.Counter()
    threads = [threading.Thread(target=call, args=(target, calls // CALLERS, wrong)) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{sum(wrong.values())} of {calls // CALLERS * CALLERS} calls went wrong: {dict(wrong)}")


main()
