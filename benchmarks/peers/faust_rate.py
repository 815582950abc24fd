"""How fast a Faust windowed table takes frames in: counts from a warm-up to the last record and prints the rate.

Runs in the environment of `streams.lock`. Its reducer does less than ours: it counts. Event time is the record's own.
"""

import json
import os
import sys
import time
from datetime import timedelta
from typing import Any

import faust


def main() -> None:
    bootstrap, source, group, folder, window_ms, warm, total = sys.argv[1:]
    app = faust.App(
        group,
        broker=f"kafka://{bootstrap}",
        store="memory://",
        datadir=folder,
        topic_partitions=1,
        topic_replication_factor=1,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
    )
    frames = app.topic(source, key_type=str, value_type=bytes, value_serializer="raw")
    windows = app.Table("windows", default=int, partitions=1).tumbling(
        timedelta(milliseconds=int(window_ms)), expires=timedelta(hours=1)
    )

    @app.agent(frames)
    async def count(stream: Any) -> None:
        seen, started = 0, 0.0
        async for model, value in stream.items():
            windows[model] += len(value) > 0
            seen += 1
            if seen == int(warm):
                started = time.perf_counter()
            if seen == int(total):
                rate = (seen - int(warm)) / (time.perf_counter() - started)
                os.write(1, (json.dumps({"rate": rate}) + "\n").encode())  # whoever took stdout over
                os._exit(0)

    app.finalize()
    sys.argv = [sys.argv[0]]
    faust.Worker(app, loglevel="warning").execute_from_commandline()


if __name__ == "__main__":
    main()
