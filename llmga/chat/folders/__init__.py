"""How a folder on disk becomes a chat engine: ordered readers, one for each layout."""

from .registry import READERS, FolderReader, load_local_engine

__all__ = ["READERS", "FolderReader", "load_local_engine"]
