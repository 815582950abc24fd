"""One quixstreams worker for `benchmarks/soak_peers.py`: tumbling windows of the ids of each model, `.final()`.

Runs in the environment of `streams.lock`. Exactly-once, a changelog, and the same lateness and session as ours.
"""

import sys
from typing import Any

from quixstreams import Application


def main() -> None:
    bootstrap, source, sink, group, folder, place = sys.argv[1:]
    app = Application(
        broker_address=bootstrap,
        consumer_group=group,
        processing_guarantee="exactly-once",
        auto_offset_reset="earliest",
        state_dir=f"{folder}/state-{place}",
        commit_interval=1.0,
        auto_create_topics=True,
        consumer_extra_config={"session.timeout.ms": 6_000, "heartbeat.interval.ms": 1_000},
        producer_extra_config={"transaction.timeout.ms": 15_000},
        loglevel="WARNING",
    )
    rows = app.topic(source, key_deserializer="str", value_deserializer="json", timestamp_extractor=_event_time)
    out = app.topic(sink, key_serializer="str", value_serializer="json")
    windows = (
        app.dataframe(rows)
        .tumbling_window(1_000, grace_ms=1_500)
        .reduce(
            reducer=lambda ids, row: ids if row["id"] in ids else [*ids, row["id"]], initializer=lambda row: [row["id"]]
        )
        .final()
    )
    windows = windows.apply(
        lambda window, key, *_: {"model": key, "start": window["start"], "ids": window["value"]}, metadata=True
    )
    windows.to_topic(out)
    app.run()


def _event_time(row: dict[str, Any], *_: object) -> int:
    time_s: float = row["t"]
    return round(time_s * 1000)


if __name__ == "__main__":
    main()
