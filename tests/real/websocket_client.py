"""Speaks WebSocket through the proxy that the environment names, or through none: messages each way over a time, then silence, then
one more. Arguments: URL, messages, seconds, seconds of silence."""

import asyncio
import sys

from websockets.asyncio.client import connect


async def main():
    url, count, seconds, silence = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    options = {"subprotocols": ["weft.test"], "ping_interval": None, "max_size": None}
    async with connect(url, **options) as socket:
        assert socket.subprotocol == "weft.test", socket.subprotocol
        await socket.send(f"{count} {seconds}")

        async def speak():
            for index in range(count):
                await socket.send(f"client {index}")
                await asyncio.sleep(seconds / count)

        speaking = asyncio.create_task(speak())
        heard = {"client": [], "server": []}
        while sum(len(messages) for messages in heard.values()) < 2 * count:
            side, index = (await asyncio.wait_for(socket.recv(), 30)).split()
            heard[side].append(int(index))
        await speaking
        for side, messages in heard.items():
            assert messages == list(range(count)), (side, messages)

        # A large one, of bytes, in one message and in many fragments.
        large = bytes(range(256)) * 4_096
        await socket.send(large)
        assert await socket.recv() == large
        await socket.send([large[:1_000]] * 100)
        assert await socket.recv() == large[:1_000] * 100

        await asyncio.sleep(silence)
        assert not await asyncio.wait_for(await socket.ping(), 10) < 0
        await socket.send("after the silence")
        assert await asyncio.wait_for(socket.recv(), 10) == "after the silence"
    assert socket.close_code == 1000, socket.close_code
    print("all heard")


asyncio.run(main())
