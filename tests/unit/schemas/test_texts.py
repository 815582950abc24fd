"""A column of texts says what its parts say, and is refused as strictly as if it had been read at once."""

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.texts import Texts, read_texts

PIECES = st.sampled_from(['"', ",", "[", "]", "\\", "a", "é", " ", "\n", "\x00", "null", '","', '["', '"]', "1"])


def strict(text: str) -> list[str] | None:
    """What a parser finds, None where it finds no list of strings."""
    try:
        values = json.loads(text)
    except ValueError:
        return None
    return values if isinstance(values, list) and all(isinstance(value, str) for value in values) else None


@given(st.lists(PIECES, max_size=14).map("".join))
@example('["]')
@example('[""]')
@example('[","x"y"]')
@example('["a","b"]')
@example('["a"]"]')
@example('["a\x1f"]')
def test_a_list_is_taken_for_one_exactly_when_a_parser_does(text: str) -> None:
    expected = strict(text)
    if expected is None:
        with pytest.raises(FrameInvalid) as caught:
            read_texts("sample_ids", text, nullable=False)
        assert caught.value.reason == "bad_sample_ids"
    else:
        found = read_texts("sample_ids", text, nullable=False)
        assert len(found) == len(expected)
        assert list(found) == expected


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), min_size=1, max_size=5))
def test_texts_come_back_however_they_are_written(texts: list[str]) -> None:
    for ascii_only in (True, False):
        written = json.dumps(texts, ensure_ascii=ascii_only, separators=(",", ":"))
        assert list(read_texts("sample_ids", written, nullable=False)) == texts


@given(st.lists(st.lists(st.text("ab", max_size=2), min_size=1, max_size=4), min_size=1, max_size=4), st.data())
def test_texts_joined_and_picked_are_those_of_lists(columns: list[list[str]], data: st.DataObject) -> None:
    joined = Texts.concat([read_column(texts) for texts in columns])
    plain = [text for texts in columns for text in texts]
    assert joined == plain
    index = data.draw(st.lists(st.integers(0, len(plain) - 1), max_size=6))
    assert joined.take(np.array(index, np.int64)) == [plain[i] for i in index]
    assert joined[1:3] == plain[1:3]
    assert joined[-1] == plain[-1]


def read_column(texts: list[str]) -> Texts:
    column = read_texts("sample_ids", json.dumps(texts, separators=(",", ":")), nullable=False)
    assert isinstance(column, Texts)
    return column


def test_a_gap_is_one_text_repeated() -> None:
    assert Texts.concat([Texts.of(["a"]), Texts.repeated(None, 2)]) == ["a", None, None]


def test_what_no_row_needs_any_more_is_let_go() -> None:
    joined = Texts.concat([read_column([str(i), "x"]) for i in range(10)])
    picked = joined.take(np.array([4, 6]))
    assert picked == ["2", "3"]
    assert len(picked.parts) == 2
