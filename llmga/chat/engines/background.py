"""Coroutines in a thread of their own, which the calling thread can watch and cancel."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")


@contextmanager
def in_thread(main: Callable[[], Coroutine[Any, Any, T]]) -> Iterator[Future[T]]:
    """Run a coroutine in a thread with an event loop of its own.

    On leaving the block the coroutine is cancelled if it still runs, has cleaned up, and its thread is gone.
    """
    leave: Future[None] = Future()

    async def until_left() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(main())

        def cancel(_: Future[None]) -> None:
            with suppress(RuntimeError):  # the loop is closed: the coroutine has ended by itself
                loop.call_soon_threadsafe(task.cancel)

        leave.add_done_callback(cancel)
        return await task

    thread, result = spawn(lambda: asyncio.run(until_left()))
    try:
        yield result
    finally:
        leave.set_result(None)
        thread.join()


def spawn(work: Callable[[], T]) -> tuple[threading.Thread, Future[T]]:
    """Run ``work`` in a daemon thread, which never holds up the end of the program."""
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()  # from here on nobody can cancel it under the thread's hands

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # for the thread that waits, whatever it is
            result.set_exception(error)

    thread = threading.Thread(target=run, name="llmga-endpoint", daemon=True)
    thread.start()
    return thread, result
