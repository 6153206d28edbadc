"""The most memory that a process has held."""

import re
import resource
from pathlib import Path


def peak_mb() -> float:
    # On Linux ru_maxrss begins with what the process that started this one held; VmHWM is this program's own.
    status = Path("/proc/self/status")
    own = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return (int(own[1]) if own else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024
