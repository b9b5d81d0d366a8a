"""Streaming gives the text that decoding at once gives, in whole characters, without stop strings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.data.tokenizers import ByteTokenizer
from windtunnel.errors import InputError
from windtunnel.inference.stream import TextStream

BYTES = ByteTokenizer()


def streamed(data: bytes, stops: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    stream = TextStream(BYTES, stops)
    pieces = [stream.push(token) for token in data]
    return [*pieces, stream.finish()], stream


@given(st.text(max_size=40))
def test_pieces_join_to_the_text(text: str) -> None:
    pieces, _ = streamed(text.encode())
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@given(st.binary(max_size=40))
def test_bytes_that_are_no_text_are_shown_once(data: bytes) -> None:
    pieces, _ = streamed(data)
    assert "".join(pieces) == data.decode(errors="replace")


@given(st.text(alphabet="abX", max_size=30), st.lists(st.text(alphabet="abX", min_size=1, max_size=4), max_size=3))
def test_nothing_of_a_stop_string_comes_out(text: str, stops: list[str]) -> None:
    pieces, stream = streamed(text.encode(), tuple(stops))
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert "".join(pieces) == text
        assert stream.stopped is None
        return
    seen = text[: min(ends)]  # the text at the moment when the first stop string was whole
    first = min(seen.index(stop) for stop in stops if stop in seen)
    assert "".join(pieces) == text[:first]
    assert stream.stopped in stops


def test_a_character_waits_for_its_last_byte() -> None:
    pieces, _ = streamed("é한".encode())
    assert pieces == ["", "é", "", "", "한", ""]


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(InputError, match="stop"):
        TextStream(BYTES, ("",))
