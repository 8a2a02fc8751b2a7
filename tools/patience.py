"""The one time limit for everything that is sure to happen unless something hangs.

Waiting ends with the event, so a large limit costs nothing where all is well. A busy machine is no reason to fail.
"""

import os

PATIENCE = float(os.environ.get("LLMGA_TEST_PATIENCE") or 600)  # seconds
