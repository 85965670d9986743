"""Reads events as they come, by the proxy that the environment names, or by none; each at once and in order. Then leaves a stream
that has no end. Argument: the service's base URL."""

import sys
import time

import requests
import sseclient


def main():
    base = sys.argv[1]
    answer = requests.get(base + "/events/20/100", stream=True, timeout=20)
    assert answer.headers["content-type"] == "text/event-stream", answer.headers
    events = []
    for event in sseclient.SSEClient(answer).events():
        late = time.time() - float(event.data)
        assert late < 1, f"event {event.id} came {late} s late"
        events.append(event)
    assert [event.id for event in events] == [str(index) for index in range(20)], events
    assert all(event.event == "tick" for event in events)

    endless = requests.get(base + "/events/0/50", stream=True, timeout=20)
    for event in sseclient.SSEClient(endless).events():
        if int(event.id) >= 3:
            break
    endless.close()
    print("all events")


main()
