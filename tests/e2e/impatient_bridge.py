"""`lorabridge` that calls its pipeline stuck after one second instead of thirty."""

from __future__ import annotations

import sys

from lorabridge.cli.main import main
from lorabridge.daemon import bridge

if __name__ == "__main__":
    bridge.PIPELINE_LIMIT = 1.0
    sys.exit(main())
