"""Runs a command with those of the caller's variables that an installer needs, and no others.

    python -I tools/environments/surroundings.py COMMAND [ARGUMENT...]

Installers run code of others (a package that is built, a plugin of pip's), so they get no secret of
the caller's (AWS_*, MLFLOW_*, tokens); and nothing that changes which Python is meant or
where packages go (PYTHON*, PIP_TARGET, PIP_USER). What remains says where things are. `bootstrap`
calls this before there is any environment: the standard library is all it has, as of Python 3.8.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

KEPT = {"HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER"}
KEPT |= {"LD_LIBRARY_PATH", "NETRC", "DBUS_SESSION_BUS_ADDRESS"}  # the last for pip's keyring
KEPT |= {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
KEPT |= {f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL", "NO")}
KEPT |= {f"{kind}_proxy" for kind in ("http", "https", "all", "no")}
KEPT |= {"UV_CACHE_DIR", "SSL_CLIENT_CERT", "WORKON_HOME"}
KEPT |= {"PIPENV_CACHE_DIR", "PIPENV_PYPI_MIRROR", "PIPENV_TIMEOUT"}
# Of pip's settings those that say where packages come from.
KEPT |= {
    f"PIP_{name}"
    for name in (
        *("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX", "CERT", "CLIENT_CERT"),
        *("TRUSTED_HOST", "PROXY", "TIMEOUT", "DEFAULT_TIMEOUT", "RETRIES", "CACHE_DIR"),
        *("NO_CACHE_DIR", "CONFIG_FILE", "KEYRING_PROVIDER", "USE_FEATURE", "USE_DEPRECATED"),
    )
}
KEPT_PREFIXES = ("LC_", "XDG_")
OWN = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}


def for_installers(variables: Mapping[str, str]) -> dict[str, str]:
    """Those of these variables that an installer gets."""
    kept = {n: v for n, v in variables.items() if n in KEPT or n.startswith(KEPT_PREFIXES)}
    return {**kept, **OWN}


if __name__ == "__main__":
    os.execvpe(sys.argv[1], sys.argv[1:], for_installers(os.environ))
