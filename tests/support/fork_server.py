"""A fork server that has imported what a training needs: a process that it starts costs a fork and not six seconds."""

from __future__ import annotations

import multiprocessing
import os
import sys
from functools import cache
from multiprocessing import forkserver
from typing import Any


@cache
def fork_server() -> Any:
    """The context of ``multiprocessing`` whose processes come from the fork server, which is started here.

    The server of Python 3.11 is not told this process's ``sys.path``, and leaves out without a word what it cannot import:
    it finds ``tests/support`` by the environment.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.preloaded"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context
