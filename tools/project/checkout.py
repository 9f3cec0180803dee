"""The post-checkout hook: `dvc checkout`, unless it would write outside the project.

`make hooks` copies this file into git's hooks, where it runs: the version in a branch is never
executed, and nothing of a branch is imported. A branch may bring its own DVC cache, links and
folder listings: if these would write outside the project's data, nothing is written.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

OURS = {".git", ".dvc"}  # folders in the project that hold no data


def escaping(repo: Any) -> Iterator[str]:
    """Outs that lead outside the project, or into the folders of git or DVC."""
    root = Path(repo.root_dir).resolve()
    for out in repo.index.outs:
        if out.fs.protocol != "local":
            continue
        # The out itself may be DVC's own link into the cache.
        place = Path(out.fs_path).parent.resolve() / Path(out.fs_path).name
        if not place.is_relative_to(root) or OURS & {
            p.lower() for p in place.relative_to(root).parts
        }:
            yield str(out)
        elif out.is_dir_checksum and (listing := out.get_obj()) is not None:
            names = (name for key, *_ in listing for name in key)
            if any(name in ("", os.pardir) or "/" in name or os.sep in name for name in names):
                yield f"{out} (its listing)"


def main() -> int:
    """Check out the data of the current revision that are in the cache; the exit code."""
    try:
        with Repo() as repo:
            if found := list(escaping(repo)):
                print(
                    f"dvc checkout was not run, these lead out of the project: {', '.join(found)}"
                )
                return 1
            changes = repo.checkout(allow_missing=True)
    except DvcException as error:
        print(f"dvc checkout: {error}")
        return 1
    for kind in ("added", "modified", "deleted"):
        for path in changes.get(kind, ()):
            print(f"{kind[0].upper()}       {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
