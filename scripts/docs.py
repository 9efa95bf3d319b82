#!/usr/bin/env python3
"""docs.py: refreshes the key tables of cfg/README.md from the built program (make docs)."""
import pathlib
import re
import subprocess
import sys

BEGIN, END = "<!-- keys: made by `make docs` -->", "<!-- end of keys -->"


def main() -> int:
    page = pathlib.Path("cfg/README.md")
    text = page.read_text()
    if BEGIN not in text or END not in text:
        print(f"{page}: the markers {BEGIN} and {END} are missing", file=sys.stderr)
        return 1
    keys = subprocess.run(["build/darknet", "kure", "keys", "--markdown"], check=True, capture_output=True, text=True).stdout
    fresh = re.sub(re.escape(BEGIN) + ".*" + re.escape(END), lambda _: BEGIN + "\n" + keys + "\n" + END, text, flags=re.S)
    if "--check" in sys.argv:
        if fresh != text:
            print(f"{page} is not what keys.def says: run 'make docs'", file=sys.stderr)
            return 1
    else:
        page.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
