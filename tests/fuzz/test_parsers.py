"""Whatever the bytes, a parser answers or raises its own error, soon and in little memory. `make fuzz` tries harder."""

import json
import os
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.parsers import CASES, HEADERS, PARSERS, Parser
from tests.support.frames import raw_frame

EXAMPLES: Final = int(os.environ.get("HYDROPHONE_FUZZ_EXAMPLES", "100"))
SECONDS: Final = 2.0
"""For inputs of some kilobytes, on a machine that does other things, too."""

BYTES_A_BYTE: Final = 200
BYTES_IN_ANY_CASE: Final = 4 << 20

NUMBERS = st.sampled_from([-1, 0, 1, 2**31, 2**32, 2**53, 2**63, -(2**63), 2**64, 10**30, 10**400, 1e308, 1e-320])
ODD = st.sampled_from(
    [float("nan"), float("inf"), float("-inf"), "\ud800", "\0", "a" * 5_000, "\uff11\uff12", "\u202e"]
)
JUNK = st.recursive(
    st.none() | st.booleans() | NUMBERS | ODD | st.text(max_size=8) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
DEEP = st.sampled_from(
    [b"[" * 3_000, b'{"a":' * 1_000, b"[" * 900 + b"]" * 900, b"1" * 5_000, b"-" * 9, b'"' + b"\\u0000" * 900]
)

effort = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large],
)


def damaged(seed: bytes, draw: Callable[..., Any]) -> bytes:
    """Some bytes flipped, cut, put in, doubled or swapped."""
    data = bytearray(seed)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["flip", "cut", "insert", "double", "swap"])):
            case "flip" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at : at + draw(st.integers(1, 40))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "double":
                data[at:at] = data[at : at + 20]
            case _:
                data[at : at + 2] = data[at : at + 2][::-1]
    return bytes(data)


def altered(value: Any, draw: Callable[..., Any]) -> Any:
    """The same JSON with one part replaced, left out or added, however deep."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        name = draw(st.sampled_from(sorted(value)))
        rest = {k: v for k, v in value.items() if k != name}
        action = draw(st.sampled_from(["in", "in", "drop", "add"]))
        if action == "drop":
            return rest
        return (
            value | {draw(st.text(max_size=4)): draw(JUNK)}
            if action == "add"
            else rest | {name: altered(value[name], draw)}
        )
    if isinstance(value, list) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], altered(value[at], draw), *value[at + 1 :]]
    return draw(JUNK)


def altered_json(seed: bytes, draw: Callable[..., Any]) -> bytes:
    """Of a safetensors string the header; of anything else that is no JSON, some bytes."""
    try:
        if seed[8:9] == b"{":
            end = 8 + int.from_bytes(seed[:8], "little")
            header = altered(json.loads(seed[8:end]), draw)
            return raw_frame(_dumped(header), seed[end:])
        return _dumped(altered(json.loads(seed), draw))
    except ValueError:
        return damaged(seed, draw)


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode(errors="surrogatepass")


@st.composite
def inputs(draw: Callable[..., Any], parser: Parser) -> bytes:
    seed = draw(st.sampled_from(parser.seeds))
    match draw(st.sampled_from(["altered", "altered", "damaged", "bytes", "deep"])):
        case "altered":
            return altered_json(seed, draw)
        case "damaged":
            return damaged(seed, draw)
        case "deep":
            deep: bytes = draw(DEEP)
            return raw_frame(deep) if seed[8:9] == b"{" else deep
        case _:
            found: bytes = draw(st.binary(max_size=200))
            return found


def judge(name: str, parse: Callable[[], object], errors: tuple[type[Exception], ...], size: int) -> None:
    CASES[name] += 1
    tracemalloc.start()
    began, said = time.monotonic(), ""
    try:
        parse()
    except errors as error:
        said = str(error)
    finally:
        took, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(said) < 20_000, "a hostile input must not choose how much is logged"
    assert took < SECONDS, f"{took:.1f} s for {size} bytes"
    assert peak < BYTES_IN_ANY_CASE + BYTES_A_BYTE * size, f"{peak} bytes for {size}"


@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_answers_or_raises_its_own_error(name: str) -> None:
    parser = PARSERS[name]
    for seed in parser.seeds:
        parser.parse(seed)

    @effort
    @given(inputs(parser))
    def answers(data: bytes) -> None:
        judge(name, lambda: parser.parse(data), parser.errors, len(data))

    answers()


@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", HEADERS)
def test_headers_are_read_or_refused(name: str) -> None:
    parser = HEADERS[name]
    parser.parse(list(parser.seed))
    names = st.sampled_from([known for known, _ in parser.seed]) | st.text(max_size=8)

    @effort
    @given(st.lists(st.tuples(names, st.none() | st.binary(max_size=80)), max_size=4), st.data())
    def answers(more: list[tuple[str, bytes | None]], data: st.DataObject) -> None:
        kept = data.draw(st.lists(st.sampled_from(list(parser.seed)), max_size=len(parser.seed) + 1))
        spoiled = [(n, damaged(v, data.draw) if v and data.draw(st.booleans()) else v) for n, v in kept]
        headers = data.draw(st.permutations(spoiled + more))
        judge(name, lambda: parser.parse(headers), parser.errors, sum(len(v or b"") for _, v in headers))

    answers()
