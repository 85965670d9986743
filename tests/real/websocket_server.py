"""A WebSocket server (RFC 6455) that echoes what comes and speaks unasked: as many messages as the client names first, spread
over as many seconds. Arguments: address and port."""

import asyncio
import sys

from websockets.asyncio.server import serve


async def speak(socket, count, seconds):
    for index in range(count):
        await socket.send(f"server {index}")
        await asyncio.sleep(seconds / count)


async def handle(socket):
    count, seconds = (float(word) for word in (await socket.recv()).split())
    speaking = asyncio.create_task(speak(socket, int(count), seconds))
    async for message in socket:
        await socket.send(message)
    await speaking


async def main():
    host, port = sys.argv[1], int(sys.argv[2])
    async with serve(handle, host, port, subprotocols=["weft.test"], ping_interval=None, max_size=None) as server:
        print("listening", flush=True)
        await server.serve_forever()


asyncio.run(main())
