"""What importing the package costs a service, seen from a fresh interpreter."""

import subprocess
import sys

import pytest

import hydrophone.streams


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import hydrophone.streams", ("torch", "confluent_kafka", "numpy")),
        ("from hydrophone.streams import Publisher", ("torch", "faust", "scipy")),
        ("from hydrophone.streams import FrameWriter", ("torch", "confluent_kafka", "opentelemetry")),
        ("from hydrophone.streams import ActivationTap", ("confluent_kafka",)),
    ],
)
def test_an_import_loads_only_what_it_needs(statement: str, absent: tuple[str, ...]) -> None:
    check = f"import sys; sys.path[:] = {sys.path!r}; {statement}; print(*[m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_public_name_can_be_had_and_no_other() -> None:
    for name in hydrophone.streams.__all__:
        assert getattr(hydrophone.streams, name).__name__ == name
        assert name in dir(hydrophone.streams)
    with pytest.raises(AttributeError, match="Subscriber"):
        _ = hydrophone.streams.Subscriber
