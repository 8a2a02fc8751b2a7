"""The parts of `dev.py`: the environment, the search for ComfyUI, the test suites, a ComfyUI server and its client.

What `dev.py` itself imports (`terminal`, `environment`, `comfyui`, `chromium`, `suites`) needs the standard
library alone, because it runs before an environment exists.
"""

import os
from pathlib import Path

# abspath, not resolve: a checkout that is linked into custom_nodes belongs to the ComfyUI around the link.
ROOT = Path(os.path.abspath(__file__)).parents[1]
