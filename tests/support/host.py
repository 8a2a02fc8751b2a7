"""What the server of the host tests is started with: the probe nodes, and an API key that must never be seen again."""

from pathlib import Path

PROBES = Path(__file__).parents[1] / "host" / "probe_pack"
KEY_VARIABLE = "LLMGA_TEST_KEY"
KEY = "sk-canary-7f3a9c51d0e84b62"
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", KEY_VARIABLE: KEY}
