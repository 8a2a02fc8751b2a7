"""Model folders: how a folder on disk becomes an engine."""
