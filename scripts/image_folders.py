"""What prepare_fashion_mnist.py, make_detection_set.py and convert_boxes.py share: failures, and folders of images by
names that Darknet reads."""
import os
import pathlib
import sys
from typing import Callable, Iterable


class Failure(Exception):
    """A sentence for the user."""


def name_for_darknet(out: pathlib.Path, words: Iterable[str], why: str) -> str:
    """How the lists call the folder: relative inside the working directory, else absolute. It must hold none of the words: why."""
    absolute = pathlib.Path(os.path.abspath(out))
    try:
        name = str(absolute.relative_to(pathlib.Path.cwd()))
    except ValueError:
        name = str(absolute)
    bad = [c for c in name if c.isspace() or c in "=#;"]
    if bad:
        raise Failure(f"{name}: Darknet's .data files cannot hold a path with {bad[0]!r}: choose another --out")
    for word in words:
        if word in name:
            raise Failure(f"{name}: holds '{word}', {why}: choose another --out")
    return name


def exit_status(make: Callable[[], str], out: pathlib.Path) -> int:
    """Of a script that makes the folder out and prints what it has made."""
    try:
        print(make())
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or out}: cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; run it again to start over", file=sys.stderr)
        return 130
    return 0
