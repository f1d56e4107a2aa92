"""Fails when a module has more than 600 lines; names those over 400 (`make lint`). Migrations are generated."""

import sys
from pathlib import Path

WARN, FAIL = 400, 600

sizes = {path: path.read_text().count("\n") for path in Path("src").rglob("*.py") if path.parent.name != "versions"}
for path, size in sorted(sizes.items(), key=lambda item: -item[1]):
    if size > WARN:
        print(f"{path}: {size} lines{' (at most ' + str(FAIL) + ')' if size > FAIL else ''}")
sys.exit(max(sizes.values()) > FAIL)
