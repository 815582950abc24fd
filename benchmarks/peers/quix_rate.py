"""How fast quixstreams' tumbling windows take frames in with a reducer that keeps what ours keep; prints the rate.

Runs in the environment of `streams.lock`. The state is text, because it must be JSON. Event time is the record's own.
"""

import base64
import sys
from pathlib import Path

from quixstreams import Application

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, in an environment that has no hydrophone
from benchmarks.peers.reducer import begin, reduce
from benchmarks.peers.tally import Tally


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
    tally = Tally(int(warm), int(total))

    def more(state: str, value: bytes) -> str:
        tally.record()
        return base64.b64encode(reduce(base64.b64decode(state), value)).decode()

    def first(value: bytes) -> str:
        tally.record()
        return base64.b64encode(begin(value)).decode()

    windows = app.dataframe(frames).tumbling_window(int(window_ms)).reduce(reducer=more, initializer=first).final()
    windows.to_topic(app.topic(f"{source}-quix", key_serializer="str", value_serializer="json"))
    app.run()


if __name__ == "__main__":
    main()
