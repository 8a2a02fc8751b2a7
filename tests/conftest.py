"""What all three suites share: one hypothesis profile."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No clock decides: a busy machine draws and runs examples slowly. A CI run repeats exactly.
settings.register_profile(
    "llmga",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("llmga")
