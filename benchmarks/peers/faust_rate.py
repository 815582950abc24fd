"""How fast a Faust windowed table takes frames in with a reducer that keeps what ours keep; prints the rate.

Runs in the environment of `streams.lock`. Event time is the record's own.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import faust

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, in an environment that has no hydrophone
from benchmarks.peers.reducer import begin, reduce
from benchmarks.peers.tally import Tally


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
    windows = app.Table(
        "windows", default=bytes, partitions=1, schema=faust.Schema(value_type=bytes, value_serializer="raw")
    ).tumbling(timedelta(milliseconds=int(window_ms)), expires=timedelta(hours=1))
    tally = Tally(int(warm), int(total))

    @app.agent(frames)
    async def keep(stream: Any) -> None:
        async for model, value in stream.items():
            state = windows[model].value()
            windows[model] = reduce(state, value) if state else begin(value)
            tally.record()

    app.finalize()
    sys.argv = [sys.argv[0]]
    faust.Worker(app, loglevel="warning").execute_from_commandline()


if __name__ == "__main__":
    main()
