"""Whether the sweeps in the given directories are the same: tables, files, curves, weights."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from sweeps_away import numbers

first, *others = (numbers(Path(directory)) for directory in sys.argv[1:])
for name, other in zip(sys.argv[2:], others, strict=True):
    if differing := [key or "results.csv" for key in first.keys() | other.keys() if first.get(key) != other.get(key)]:
        sys.exit(f"{name} differs from {sys.argv[1]} in {len(differing)} files: {', '.join(sorted(differing)[:5])}")
print(f"the same: {' '.join(sys.argv[1:])}, {len(first) - 1} files each")
