"""The miniature world: scenes drawn by code, exact words for them, and small models trained on both.

A demonstration beside the library ``llmga``: tools and tests use it, the library and the nodes never do.
"""
