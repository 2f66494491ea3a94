"""An HTTP proxy in front of the object store that refuses, delays, breaks and cuts what passes."""

import asyncio
import random
import socket
import struct
import threading

SLOW = 5.0
BUSY = b"<Error><Code>SlowDown</Code><Message>busy</Message></Error>"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close sends RST


class Proxy:
    """Listens on a port of its own. The attributes say what happens to requests, from the next one on."""

    def __init__(self, upstream, seed):
        self.upstream = upstream
        self.random = random.Random(seed)
        self.clear()
        self.loop = asyncio.new_event_loop()
        self.server = None
        self.port = 0
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.call(self.listen())

    def clear(self):
        """Passes everything on again."""
        # Shares of requests between 0 and 1, and whether nothing is answered at all.
        self.busy = self.reset = self.slow = self.cut = 0.0
        self.silent = False

    def call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    async def listen(self):
        self.connections = set()
        self.server = await asyncio.start_server(self.connected, "127.0.0.1", self.port, limit=1 << 24)
        self.port = self.server.sockets[0].getsockname()[1]

    def refuse(self):
        """Refuses connections, and breaks those that there are."""
        self.call(self.close())

    async def close(self):
        self.server.close()
        for writer in list(self.connections):
            self.break_off(writer)

    def accept(self):
        self.call(self.listen())

    async def connected(self, reader, writer):
        self.connections.add(writer)
        upstream = None
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                request = head + await self.rest(reader, head, answers=False)
                if self.silent:
                    await asyncio.sleep(3600)
                fault = self.fault()
                # Half of the faults come after the work is done.
                works = fault is None or fault in ("slow", "cut") or self.random.random() < 0.5
                answer = b""
                if works:
                    if upstream is None:
                        upstream = await asyncio.open_connection("127.0.0.1", self.upstream, limit=1 << 24)
                    answer = await self.ask(upstream, request)
                if fault == "reset":
                    return self.break_off(writer)
                if fault == "busy":
                    answer = b"HTTP/1.1 503 Slow Down\r\ncontent-length: %d\r\n\r\n" % len(BUSY) + BUSY
                if fault == "slow":
                    await asyncio.sleep(SLOW)
                if fault == "cut":
                    writer.write(answer[: len(answer) // 2])
                    await writer.drain()
                    return self.break_off(writer)
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return None
        finally:
            self.connections.discard(writer)
            writer.close()
            if upstream is not None:
                upstream[1].close()

    def fault(self):
        drawn = self.random.random()
        for name in ("busy", "reset", "slow", "cut"):
            share = getattr(self, name)
            if drawn < share:
                return name
            drawn -= share
        return None

    async def ask(self, upstream, request):
        reader, writer = upstream
        writer.write(request)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        bodiless = request.startswith(b"HEAD ") or head.split(b" ", 2)[1][:3] in (b"204", b"304")
        return head if bodiless else head + await self.rest(reader, head, answers=True)

    @staticmethod
    async def rest(reader, head, answers):
        """Reads the body behind a head."""
        fields = dict(
            (name.strip().lower(), value.strip().lower())
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        )
        if b"content-length" in fields:
            return await reader.readexactly(int(fields[b"content-length"]))
        if fields.get(b"transfer-encoding") == b"chunked":
            parts = []
            while True:
                line = await reader.readuntil(b"\r\n")
                size = int(line.split(b";")[0], 16)
                parts += [line, await reader.readexactly(size + 2)]
                if size == 0:
                    return b"".join(parts)
        return await reader.read() if answers else b""

    @staticmethod
    def break_off(writer):
        opened = writer.get_extra_info("socket")
        if opened is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()
