"""Painting into a picture: random masks, mask preparation, crop and stitch.

Nothing is imported here: ``masks`` does without torch, which the data tools need not have.
"""
