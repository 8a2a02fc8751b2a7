import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmga.chat.engines.sse import MAX_LINE_BYTES, SSEDecoder

# The examples of the WHATWG specification, and what chat servers send besides.
STREAMS = {
    "one event": (b"data: a\n\n", ["a"]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
    "CRLF in an event": (b"data: a\r\ndata: b\r\n\r\n", ["a\nb"]),
    "CR": (b"data: a\r\rdata: b\r\r", ["a", "b"]),
    "lines of one event": (b"data: YHOO\ndata: +2\ndata: 10\n\n", ["YHOO\n+2\n10"]),
    "comments": (b": test stream\n\ndata: first event\nid: 1\n\n:\n\n", ["first event"]),
    "no colon, empty data": (b"data\n\ndata\ndata\n\ndata:", ["", "\n"]),
    "one space goes": (b"data:test\n\ndata:  test\n\n", ["test", " test"]),
    "other fields": (b"event: x\nretry: 1\ndatas: no\ndata : no\ndata: yes\n\nid: 2\n\n", ["yes"]),
    "byte-order mark": (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
    "UTF-8": ("data: 画 é 🎨\u2028\x85 still here\n\n".encode(), ["画 é 🎨\u2028\x85 still here"]),
    "llama.cpp's error": (b'error: {"code": 500}\n\ndata: a\n\n', ['{"error":  {"code": 500}}', "a"]),
    "unfinished": (b"data: a\n\ndata: b\n", ["a"]),
}


def decode(stream: bytes, cuts: list[int]) -> list[str]:
    decoder = SSEDecoder()
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    return [
        event
        for start, end in zip(edges, edges[1:], strict=False)
        for event in decoder.feed(stream[start:end])
    ]


@pytest.mark.parametrize("name", STREAMS)
def test_stream_gives_its_events(name: str) -> None:
    stream, events = STREAMS[name]
    assert decode(stream, []) == events
    assert decode(stream, list(range(len(stream)))) == events  # byte by byte
    assert decode(stream, [*range(len(stream))] * 2) == events  # and with nothing in between


pieces = st.sampled_from(
    [b"data", b": ", b":", b"x", b"\r", b"\n", b"\r\n", b"\n\n", b"\xef\xbb\xbf", "é🎨".encode()]
)


@settings(max_examples=500)
@given(st.lists(pieces, max_size=40).map(b"".join), st.lists(st.integers(0, 120), max_size=12))
def test_how_the_bytes_are_cut_makes_no_difference(stream: bytes, cuts: list[int]) -> None:
    assert decode(stream, cuts) == decode(stream, [])


@settings(max_examples=200)
@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), max_size=6),
    st.sampled_from(["\n", "\r", "\r\n"]),
    st.lists(st.integers(0, 200), max_size=12),
)
def test_what_is_written_as_events_is_read_back(texts: list[str], end: str, cuts: list[int]) -> None:
    stream = "".join(f"data: {text}{end}{end}" for text in texts).encode()
    assert decode(stream, cuts) == texts


@pytest.mark.parametrize("tail", [b"", b"\n"])
def test_a_line_has_a_limit(tail: bytes) -> None:
    decoder = SSEDecoder()
    decoder.feed(b"data: ")
    decoder.feed(b"a" * (MAX_LINE_BYTES - 8))
    with pytest.raises(ValueError, match=f"more than {MAX_LINE_BYTES} bytes"):
        decoder.feed(b"aaaa" + tail)


def test_other_encodings_are_refused() -> None:
    with pytest.raises(ValueError, match="not UTF-8"):
        SSEDecoder().feed("data: é\n\n".encode("latin-1"))
