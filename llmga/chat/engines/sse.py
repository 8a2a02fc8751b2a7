"""Server-sent events, decoded as the bytes arrive."""

from __future__ import annotations

MAX_LINE_BYTES = 1_000_000


class SSEDecoder:
    """Turns the bytes of an event stream, however they are cut, into the ``data`` of its events.

    Event names, ids, retry times and comments are dropped: chat completions use none of them. An event
    without the blank line that ends it is never delivered.

    Source: WHATWG HTML, 9.2.6 "Interpreting an event stream". Deviations: a byte-order mark is dropped at the
    start of every line, not only of the first, for no field's name begins with one; and a field ``error``, which
    llama.cpp's server writes where it fails while it streams, is the event ``{"error": …}`` of other servers.
    """

    def __init__(self) -> None:
        self._rest: list[
            bytes
        ] = []  # the pieces of a line that has not ended; joined once, for a piece may be a byte
        self._rest_size = 0
        self._data: list[str] = []
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[str]:
        """The data of the events that this chunk completes.

        Raises:
            ValueError: a line is longer than ``MAX_LINE_BYTES``, or is not UTF-8.
        """
        if not chunk:
            return []
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")  # the second half of a CRLF that was cut in two
        self._after_cr = chunk.endswith(b"\r")
        if b"\n" not in chunk and b"\r" not in chunk:
            self._keep(chunk)
            return []
        # Lines end in CR, LF or CRLF, bytes that no longer UTF-8 sequence holds: a whole line is whole text.
        lines = b"".join((*self._rest, chunk)).splitlines(keepends=True)
        self._rest, self._rest_size = [], 0
        if lines and not lines[-1].endswith((b"\r", b"\n")):
            self._keep(lines.pop())
        if any(len(line) > MAX_LINE_BYTES for line in lines):
            raise ValueError(f"a line of more than {MAX_LINE_BYTES} bytes")
        return [event for line in lines if (event := self._take(line.rstrip(b"\r\n"))) is not None]

    def _keep(self, piece: bytes) -> None:
        """Keep the beginning, or the next piece, of a line that goes on."""
        if piece:
            self._rest.append(piece)
            self._rest_size += len(piece)
        if self._rest_size > MAX_LINE_BYTES:
            raise ValueError(f"a line of more than {MAX_LINE_BYTES} bytes")

    def _take(self, line: bytes) -> str | None:
        if not line:
            event = "\n".join(self._data) if self._data else None
            self._data = []
            return event
        try:
            name, _, value = line.decode("utf-8-sig").partition(":")
        except UnicodeDecodeError:
            raise ValueError("bytes that are not UTF-8") from None
        if name == "data":
            self._data.append(value.removeprefix(" "))
        elif name == "error":
            self._data.append(f'{{"error": {value}}}')
        return None
