"""ComfyUI's API for the tools and the tests: the client that the library has, under the tools' own patience."""

from llmga import client
from llmga.client import (
    ComfyError,
    PromptFailedError,
    PromptInterruptedError,
    PromptRejectedError,
    ServerError,
)

from .patience import PATIENCE

__all__ = [
    "ComfyClient",
    "ComfyError",
    "PromptFailedError",
    "PromptInterruptedError",
    "PromptRejectedError",
    "ServerError",
]


class ComfyClient(client.ComfyClient):
    """``llmga.client.ComfyClient`` that waits as long as the tests do."""

    def __init__(self, url: str) -> None:
        super().__init__(url, PATIENCE)
