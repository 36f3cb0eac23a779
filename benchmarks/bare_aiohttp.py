"""The floor: a bare aiohttp loop that sends bodies and parses replies, and keeps nothing.

python -m benchmarks.bare_aiohttp URL CONCURRENCY < bodies (one JSON body per line)
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp


async def _post_all(url: str, bodies: list[bytes], concurrency: int) -> int:
    queue = iter(bodies)
    headers = {"content-type": "application/json"}
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def work() -> int:
            answered = 0
            for body in queue:
                async with session.post(url, data=body) as reply:
                    json.loads(await reply.read())["choices"][0]["message"]["content"]
                    answered += 1
            return answered

        return sum(await asyncio.gather(*(work() for _ in range(concurrency))))


def main() -> None:
    url, concurrency = sys.argv[1], int(sys.argv[2])
    bodies = sys.stdin.buffer.read().splitlines()
    wall, cpu = time.perf_counter(), time.process_time()
    answered = asyncio.run(_post_all(url, bodies, concurrency))
    result = {
        "rows": answered,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
