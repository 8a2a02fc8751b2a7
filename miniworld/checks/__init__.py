"""Checks of the miniature: held-out scenes whose right answers are known."""
