"""The settings that hold for the whole suite: warnings of our own code are errors, and no clock decides."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import HealthCheck, settings
from support.waiting import growth

RENAMED = (
    "`past_key_values` is deprecated and will be removed in version 6 for `Llava.generate`. Use `cache`."
)


def warn(module: str, message: str, category: type[Warning]) -> None:
    warnings.warn_explicit(message, category, "file.py", 1, module=module, registry={})


@pytest.mark.parametrize("category", [FutureWarning, DeprecationWarning])
@pytest.mark.parametrize(
    "module", ["llmga.chat", "tools.demo", "/comfy/custom_nodes/ComfyUI-LLMGA.nodes.chat"]
)
def test_what_will_be_removed_is_an_error_in_our_code(module: str, category: type[Warning]) -> None:
    with pytest.raises(category):
        warn(module, "x will be removed", category)


def test_a_renamed_argument_is_an_error_wherever_it_is_noticed() -> None:
    with pytest.raises(FutureWarning):
        warn("torch.nn.modules.module", RENAMED, FutureWarning)


@pytest.mark.parametrize("module", ["nodes", "comfy.sd", "transformers.utils", "torch.nn"])
def test_other_packages_are_not_our_business(module: str) -> None:
    warn(module, "x will be removed", FutureWarning)
    warn(module, "x will be removed", DeprecationWarning)


def test_hypothesis_has_no_deadline() -> None:
    assert settings().deadline is None
    assert HealthCheck.too_slow in settings().suppress_health_check


def test_growth_tells_a_line_from_a_square() -> None:
    def line(n: int) -> None:
        sum(range(n * 500))

    def square(n: int) -> None:
        sum(range(n * n))

    assert growth(lambda: line(200), lambda: line(5_000), 100) < 100
    assert growth(lambda: square(200), lambda: square(5_000), 100) > 100
