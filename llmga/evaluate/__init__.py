"""Evaluation: estimates with their errors, image metrics, and the writing of results.

What is evaluated, and who judges it, is not decided here: a judge returns numbers, and this package sums them up.
"""

from .estimates import Estimate, mean, rate, resampled
from .metrics import edges_found, frechet_distance, inception_score, perceptual_distance, psnr
from .report import contact_sheet, plain, table, transposed, write_json

__all__ = [
    "Estimate",
    "contact_sheet",
    "edges_found",
    "frechet_distance",
    "inception_score",
    "mean",
    "perceptual_distance",
    "plain",
    "psnr",
    "rate",
    "resampled",
    "table",
    "transposed",
    "write_json",
]
