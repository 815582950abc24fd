"""How fast quixstreams' tumbling windows take frames in: counts from a warm-up to the last record and prints the rate.

Runs in the environment of `streams.lock`. Its reducer does less than ours: it counts. Event time is the record's own.
"""

import json
import os
import sys
import time

from quixstreams import Application


def main() -> None:
    bootstrap, source, group, folder, window_ms, warm, total = sys.argv[1:]
    app = Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=folder,
        commit_interval=1.0,
        loglevel="WARNING",
    )
    frames = app.topic(source, key_deserializer="str", value_deserializer="bytes")
    seen, started = 0, 0.0

    def count(frames: int, value: bytes) -> int:
        nonlocal seen, started
        seen += 1
        if seen == int(warm):
            started = time.perf_counter()
        if seen == int(total):
            rate = (seen - int(warm)) / (time.perf_counter() - started)
            os.write(1, (json.dumps({"rate": rate}) + "\n").encode())  # whoever took stdout over
            os._exit(0)
        return frames + (len(value) > 0)

    def first(value: bytes) -> int:
        return count(0, value)

    windows = app.dataframe(frames).tumbling_window(int(window_ms)).reduce(reducer=count, initializer=first).final()
    windows.to_topic(app.topic(f"{source}-quix", key_serializer="str", value_serializer="json"))
    app.run()


if __name__ == "__main__":
    main()
