"""Installs the packages of a lock with uv, which checks hashes and links files from its cache.

uv does not read pip's settings, so they are translated: indexes, certificates, proxies. Its cache
has each file once, and environments share it by hard links if the file system allows that.
"""

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lib.errors import UserError
from tools.environments.locks import BUILDS_ARE_FOR, PYTHON
from tools.environments.surroundings import for_installers
from tools.environments.variables import values

UV = Path(sys.prefix) / "bin" / "uv"
BUILD_TOOLS = Path(__file__).with_name("requirements.txt")

Settings = Mapping[str, str]  # pip's settings, by name


def install(path: Path, folder: Path, packages: Mapping[str, Any], key: str, handle: int) -> None:
    """Make an environment with these packages.

    Args:
        path: the environment's folder, which is empty.
        folder: the folder of the Pipfile; relative addresses are resolved there, as by pip.
        packages: by name, their entries in the lock.
        key: if given, the environment shares no files with others, and takes none from a cache
            that others may write to.
        handle: the descriptor of the lock file, which uv inherits: if this process is killed, the
            lock is held until uv, which still writes to the folder, has ended.

    Raises:
        UserError: uv failed; with its reason in one line.
    """
    wanted = path / "requirements.txt"
    wanted.write_text("\n".join(map(requirement, packages, packages.values())), encoding="utf-8")
    variables = variables_for(this_machine())
    settings = pip_settings(variables)
    kept = ("--no-cache", "--link-mode=copy") if key else cache(settings, variables)
    log, scratch = Path(f"{path}.log"), path / "tmp"  # left-overs are removed with the folder
    log.write_text("", encoding="utf-8")
    scratch.mkdir(exist_ok=True)
    for command in commands(path, wanted, no_index=on(settings, "no-index")):
        with log.open("a", encoding="utf-8") as output:
            output.write(f"uv {shlex.join(map(str, command))}\n")
            output.flush()
            done = subprocess.run(
                [UV, "--no-config", "--no-python-downloads", *command, *kept],
                cwd=folder,
                env=variables | for_uv(settings, variables) | {"TMPDIR": str(scratch)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[handle],
                check=False,
            )
        if done.returncode:
            why = reason(log.read_text(encoding="utf-8", errors="replace"))
            raise UserError(
                f"The environment {path.name} could not be made: {why} (the whole log: {log}). "
                f"{remedy(why)}"
            )


def commands(path: Path, wanted: Path, *, no_index: bool) -> Iterator[tuple[str | Path, ...]]:
    """The commands of uv that make an environment: the folder, pip, then the requirements."""
    from virtualenv.seed.wheels.embed import get_embed_wheel  # takes half as long as pipenv

    install = ("pip", "install", "--python", path / "bin" / "python", "--no-deps", "--quiet")
    yield "venv", "--quiet", "--allow-existing", "--python", os.path.realpath(sys.executable), path
    if wheel := get_embed_wheel("pip", PYTHON):  # for users of the environment
        yield *install, "--offline", wheel.path
    yield (
        *(*install, "--require-hashes", "--requirement", wanted),
        *("--build-constraints", BUILD_TOOLS, "--require-build-hashes"),
        *(("--no-sources", "--no-index") if no_index else ("--no-sources",)),
    )


def this_machine() -> tuple[str, str]:
    """The system and processor of this machine."""
    return platform.system(), platform.machine()


def variables_for(machine: tuple[str, str]) -> dict[str, str]:
    """The variables of an installer for a system and processor, with those in `.env`.

    Without the page with torch's builds in `.env`, unless it is for this machine or the user has
    set it: for other platforms, locks have the hashes of the index's builds.
    """
    own = values()
    if machine != BUILDS_ARE_FOR and "PIP_FIND_LINKS" not in os.environ:
        own.pop("PIP_FIND_LINKS", None)
    return for_installers(os.environ | own)


def requirement(name: str, entry: Mapping[str, Any]) -> str:
    """A package of a lock as a line of a requirements file."""
    extras = f"[{','.join(entry['extras'])}]" if entry.get("extras") else ""
    markers = f" ; {entry['markers']}" if entry.get("markers") else ""
    hashes = "".join(f" --hash={value}" for value in entry["hashes"])
    return f"{name}{extras}{entry['version']}{markers}{hashes}"


def reason(text: str) -> str:
    """The error in uv's output, in one line."""
    error, *hints = re.split(r"\n+hint: ", re.split(r"(?m)^error: ", text)[-1])
    # If an index refuses a login, uv reports a missing package, and the reason only as a hint.
    refusals = [hint for hint in hints if hint.startswith("An index")]
    text = " ".join([error.replace("cause: ", ""), *refusals])
    return " ".join(text.split()) or "uv ended without a message"


def remedy(why: str) -> str:
    """What to do about the reason that uv gave."""
    if "no trusted hash was provided for" in why or "build-system.requires" in why:
        return (
            "A package without a wheel is built with setuptools alone, as nothing else is hashed: "
            "ask in the Pipfile for a version that has a wheel."
        )
    if "matching platform tag" in why:
        return "The locks are for Linux with glibc on x86-64 and arm64, and macOS on arm64."
    return (
        "Check the index that pip is set up with (`pip config list`), its login, and "
        "PIP_FIND_LINKS in .env."
    )


# ---- pip's settings


def pip_settings(variables: Settings) -> dict[str, str]:
    """The settings in pip's files and these variables; later ones override earlier ones."""
    # Imported here: it imports all of pipenv, which is slow, and mostly nothing is missing.
    from pipenv.patched.pip._internal.configuration import Configuration
    from pipenv.patched.pip._internal.exceptions import ConfigurationError

    configuration = Configuration(isolated=False)
    try:
        configuration.load()
    except ConfigurationError as error:
        raise UserError(f"pip's settings cannot be read: {' '.join(str(error).split())}") from None
    files = [found for name, found in configuration.items() if name != ":env:"]
    settings = {}
    for section in ("global", "install"):
        for found in files:
            for option, value in found.items():
                if option.startswith(f"{section}.") and value:
                    settings[option.partition(".")[2]] = value
    for name, value in variables.items():
        if name.startswith("PIP_") and value:
            settings[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return settings


def on(settings: Settings, name: str) -> bool:
    """Whether a boolean setting is on."""
    return settings.get(name, "").lower() in ("1", "y", "yes", "t", "true", "on")


def check_address(name: str, address: str) -> None:
    """UserError, without the password, if uv could not parse the address and would print it."""
    if "://" not in address:
        return
    try:
        parts = urlsplit(address)
        # A / in a password ends the server part, so that the @ is after it.
        cut = "@" in address and "@" not in parts.netloc
        valid = parts.scheme == "file" or (parts.hostname and (parts.port or True) and not cut)
    except ValueError:
        valid = False
    if not valid:
        raise UserError(
            f"pip's {name} is not a valid URL ({address.rpartition('@')[2]}): in a password, / is "
            "written %2F, # is %23, ? is %3F and @ is %40."
        )


def expanded(path: str) -> str:
    """A path or address with `~` as pip reads it, which leaves an unknown user's."""
    with suppress(RuntimeError):
        return str(Path(path).expanduser()) if path.startswith("~") else path
    return path


def for_uv(settings: Settings, variables: Settings) -> dict[str, str]:
    """The settings of pip as variables of uv, not as options: addresses may have passwords."""
    for name in ("index-url", "extra-index-url", "find-links", "proxy"):
        for address in settings.get(name, "").split():
            check_address(name, address)
    found = {"UV_SYSTEM_CERTS": "1", "NO_COLOR": "1", "UV_NO_PROGRESS": "1"}
    if settings.get("extra-index-url"):  # with one index, uv can report a refused login
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as in pip; hashes make it safe
    if not on(settings, "no-index"):
        found["UV_DEFAULT_INDEX"] = settings.get("index-url", "")
        found["UV_INDEX"] = " ".join(settings.get("extra-index-url", "").split())
    links = settings.get("find-links", "").split()
    found["UV_FIND_LINKS"] = ",".join(map(expanded, links))
    found["UV_INSECURE_HOST"] = " ".join(settings.get("trusted-host", "").split())
    if settings.get("keyring-provider") in ("subprocess", "import"):
        found["UV_KEYRING_PROVIDER"] = "subprocess"
    bundles = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    bundle = settings.get("cert") or next(filter(None, map(variables.get, bundles)), "")
    bundle = expanded(bundle)
    if bundle and Path(bundle).is_dir():
        found["SSL_CERT_DIR"] = bundle
    elif bundle:
        found["SSL_CERT_FILE"] = bundle
    if certificate := settings.get("client-cert"):
        found["SSL_CLIENT_CERT"] = expanded(certificate)
    if proxy := settings.get("proxy"):
        found |= {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy}
    if seconds := settings.get("timeout") or settings.get("default-timeout"):
        try:
            found["UV_HTTP_TIMEOUT"] = str(round(float(seconds)))
        except ValueError:
            raise UserError(f"pip's timeout is {seconds!r}: it must be seconds, as 15.") from None
    if retries := settings.get("retries"):
        found["UV_HTTP_RETRIES"] = retries
    return {name: value for name, value in found.items() if value}


# ---- uv's cache


def cache_folder(variables: Settings) -> Path:
    """The folder of uv's cache."""
    caches = variables.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(variables.get("UV_CACHE_DIR") or Path(caches) / "uv")


def usable(folder: Path) -> bool:
    """Whether a folder can be written to, or created."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def cache(settings: Settings, variables: Settings) -> tuple[str, ...]:
    """The option for uv's cache: off if pip's is off, or if it cannot be written to."""
    if on(settings, "no-cache-dir") or not usable(cache_folder(variables)):
        return ("--no-cache",)
    return ("--link-mode=hardlink",)


def about_cache(environments: Path) -> str:
    """Why environments cannot share files, in one line; empty if they can."""
    folder = cache_folder(os.environ)
    if not usable(folder):
        return f"uv's cache, {folder}, cannot be written to: packages are downloaded again."
    place = next(p for p in (folder, *folder.parents) if p.exists())
    if place.stat().st_dev != environments.stat().st_dev:
        return (
            f"uv's cache, {folder}, is on another file system than {environments}: packages are "
            "copied. UV_CACHE_DIR can name a folder on the same one."
        )
    return ""
