"""Engines: the ways a conversation is continued. ``base`` holds the contract that all of them keep."""
