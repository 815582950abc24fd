"""One Faust worker for `benchmarks/soak_peers.py`: a windowed table of the ids of each model, told when it closes.

Runs in the environment of `streams.lock`. Exactly-once, a changelog, and the same session as ours. Its windows close by
the wall clock: they are given half a minute, so that a worker that starts again finds them open.
"""

import sys
from datetime import timedelta

import faust


class Row(faust.Record, serializer="json"):
    id: str
    t: float


def main() -> None:
    bootstrap, source, sink, group, folder, place = sys.argv[1:]
    app = faust.App(
        group,
        broker=f"kafka://{bootstrap}",
        store="memory://",
        datadir=folder,
        topic_partitions=6,
        web_port=16_000 + int(place),
        web_enabled=False,
        processing_guarantee="exactly_once",
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.0,
        table_cleanup_interval=1.0,
        consumer_auto_offset_reset="earliest",
        topic_replication_factor=1,
    )
    rows = app.topic(source, key_type=str, value_type=Row)
    out = app.topic(sink, key_type=str, value_serializer="json")

    def tell(key: tuple[str, tuple[float, float]], ids: list[str]) -> None:
        model, (start, _) = key
        out.send_soon(key=model, value={"model": model, "start": round(start * 1000), "ids": ids})

    windows = (
        app.Table("windows", default=list, partitions=6, on_window_close=tell)
        .tumbling(timedelta(seconds=1), expires=timedelta(seconds=30))
        .relative_to_field(Row.t)  # type: ignore[arg-type]  # a field descriptor, seen from the class
    )

    @app.agent(rows)
    async def collect(stream: faust.StreamT[Row]) -> None:
        async for model, row in stream.items():
            ids = windows[model].value()
            if row.id not in ids:
                windows[model] = [*ids, row.id]

    app.finalize()
    faust.Worker(app, loglevel="warning").execute_from_commandline()


if __name__ == "__main__":
    main()
