"""What follows a checkout of a branch or commit: `dvc checkout`, of what stays in the project.

`make hooks` copies it into git's hooks, and from there it is run: it is not what a branch brings,
and imports nothing of it. A branch may have a DVC cache of its own, links, and listings of folders:
where these together would write outside the data of the project, nothing is written.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

OURS = {".git", ".dvc"}  # in the project, and no data


def escaping(repo: Any) -> Iterator[str]:
    """Outs that lead outside the project, or into what is git's or DVC's."""
    root = Path(repo.root_dir).resolve()
    for out in repo.index.outs:
        if out.fs.protocol != "local":
            continue
        # Of the out itself a link is DVC's, into the cache.
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
    """Bring the data of what is checked out; data that this clone has not pulled stay away."""
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
