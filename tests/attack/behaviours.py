"""Further ways in which a server of language models may misbehave, beside those of the test suites."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from support.openai_behaviours import (
    BEHAVIOURS,
    DONE,
    FOREVER,
    Behaviour,
    Exchange,
    Script,
    document,
    event,
    head,
    say,
    stream,
)

QUICK = 0.02


def drip_events(exchange: Exchange) -> Script:
    yield head()
    for piece in exchange.pieces * 1000:
        yield event({"content": piece})
        yield QUICK


def comments(exchange: Exchange) -> Script:
    yield head()
    while True:
        yield b": " + b"x" * 60_000 + b"\n\n"


def early_hints(exchange: Exchange) -> Script:
    while True:
        yield b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


def many_headers(exchange: Exchange) -> Script:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X-A: " + b"a" * 60_000 + b"\r\n"


def endless_status(exchange: Exchange) -> Script:
    yield b"HTTP/1.1 200 "
    while True:
        yield b"a" * 60_000


def odd_chunks(exchange: Exchange) -> Script:
    yield head("200 OK", "text/event-stream", "Transfer-Encoding: chunked")
    yield b"zz\r\nhello\r\n0\r\n\r\n"


def huge_chunk(exchange: Exchange) -> Script:
    yield head("200 OK", "text/event-stream", "Transfer-Encoding: chunked")
    yield b"7fffffffffffffff\r\n" + b"data: "
    yield FOREVER


def reset(exchange: Exchange) -> Script:
    yield head() + event({"content": "a"})
    raise ConnectionResetError


def key_in_status(exchange: Exchange) -> Script:
    key = exchange.request.headers.get("authorization", "")
    yield f"HTTP/1.1 401 no {key}\r\nContent-Length: 0\r\n\r\n".encode()


def key_in_reply(exchange: Exchange) -> Script:
    key = exchange.request.headers.get("authorization", "")
    yield head()
    yield event({"content": f"<gen_image> a fox {key} </gen_image>"}) + event(finish="stop") + DONE


def masked_key(exchange: Exchange) -> bytes:
    key = exchange.request.headers.get("authorization", "").removeprefix("Bearer ")
    said = f"Incorrect API key provided: {key[:8]}***{key[-4:]}."
    return json.dumps({"error": {"message": said}}).encode()


def letters(count: int, text: str = "a") -> Callable[[Exchange], bytes]:
    return lambda exchange: (text * count)[:count].encode()


def replies(*texts: str) -> Behaviour:
    return say(lambda exchange: document({"content": "".join(texts)}))


MORE: dict[str, Behaviour] = {
    "drip_events": drip_events,
    "comments": comments,
    "early_hints": early_hints,
    "many_headers": many_headers,
    "endless_status": endless_status,
    "odd_chunks": odd_chunks,
    "huge_chunk": huge_chunk,
    "reset": reset,
    "key_in_status": key_in_status,
    "key_in_reply": key_in_reply,
    "masked_key": say(masked_key, "401 Unauthorized"),
    "letters_16k": say(letters(16_000)),
    "letters_16k_error": say(letters(16_000), "400 Bad Request", "text/plain"),
    "dots_64k": say(letters(64_000, "a.b-c+")),
    "brackets_64k": say(letters(64_000, "<gen_image>")),
    "spaces_64k": say(letters(64_000, " \n")),
    "reply_of_tags": replies("<gen_image>" * 20_000),
    "reply_of_thoughts": replies("<think>" * 20_000),
    "reply_of_letters": replies("a" * 200_000),
    "reply_of_surrogates": say(lambda exchange: b'{"choices": [{"message": {"content": "\\ud800"}}]}'),
    "reply_of_nul": replies("a\x00b\x1b[31m"),
    "digits_6000": say(lambda exchange: b'{"choices": ' + b"1" * 6000 + b"}"),
    "retry_after_words": say(lambda e: b"", "429 Too Many Requests", "text/plain", "Retry-After: soon"),
    "retry_after_huge": say(lambda e: b"", "429 Too Many Requests", "text/plain", "Retry-After: 99999999999"),
    "retry_after_9999": say(
        lambda e: b"", "503 Busy", "text/plain", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"
    ),
    "retry_after_negative": say(lambda e: b"", "429 Too Many Requests", "text/plain", "Retry-After: -5"),
    "status_999": say(lambda e: b"x", "999 Odd"),
    "status_200_empty": say(lambda e: b""),
    "redirect_metadata": say(lambda e: b"", "307 Go", "text/plain", "Location: http://169.254.169.254/latest"),
    "content_length_short": say(lambda e: document({"content": "a"}), "200 OK", "application/json", "Content-Length: 3"),
    "choices_null": say(lambda e: b'{"choices": null}'),
    "choices_object": say(lambda e: b'{"choices": {"0": 1}}'),
    "choice_number": say(lambda e: b'{"choices": [1]}'),
    "message_text": say(lambda e: b'{"choices": [{"message": "hi"}]}'),
    "content_number": say(lambda e: b'{"choices": [{"message": {"content": 7}}]}'),
    "content_object": say(lambda e: b'{"choices": [{"message": {"content": {"text": "x"}}}]}'),
    "stream_list": stream(b"data: []\n\n", DONE),
    "stream_number": stream(b"data: 1\n\n", DONE),
    "stream_null_delta": stream(b'data: {"choices": [{"delta": null}]}\n\n', DONE),
    "stream_nul": stream(b"data: \x00\n\n", DONE),
    "stream_cr": stream(event({"content": "a"}, end="\r"), event(finish="stop", end="\r")),
    "stream_field_only": stream(b"data\n\ndata\n\n" * 5000),
    "stream_long_id": stream(b"id: " + b"7" * 200_000 + b"\n\n", event({"content": "a"}), DONE),
    "stream_deep": stream(b"data: " + b"[" * 50_000 + b"\n\n"),
}  # fmt: skip


def known(rng: random.Random) -> dict[str, Behaviour]:
    """Every behaviour, and some of bytes by chance; they are registered with the server of the test suites."""
    made = {f"chance_{i}": stream(*mutated(rng)) for i in range(200)}
    BEHAVIOURS.update(MORE)
    BEHAVIOURS.update(made)
    return dict(BEHAVIOURS)


def mutated(rng: random.Random) -> list[bytes]:
    """A good stream with a few bytes changed, left out or doubled."""
    good = bytearray(
        b"".join(
            [*(event({"content": piece}) for piece in ("a ", "red ", "star")), event(finish="stop"), DONE]
        )
    )
    for _ in range(rng.choice((1, 2, 8))):
        at = rng.randrange(len(good))
        match rng.choice("xdi"):
            case "x":
                good[at] = rng.randrange(256)
            case "d":
                del good[at : at + rng.choice((1, 5, 40))]
            case _:
                good[at:at] = bytes(good[at : at + 30])
        if not good:
            break
    return [bytes(good)]
