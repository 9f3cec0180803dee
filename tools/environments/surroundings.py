"""Runs a command with only those environment variables that an installer needs.

    python -I tools/environments/surroundings.py COMMAND [ARGUMENT...]

Installers run third-party code (a package's build, a plugin of pip), so they get no secrets (AWS_*,
MLFLOW_*, tokens), and nothing that changes which Python is used or where packages go (PYTHON*,
PIP_TARGET, PIP_USER). `bootstrap` calls this before there is any environment: it uses only the
standard library of Python 3.8.
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
# The settings of pip on where packages come from.
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
    """The variables that an installer gets."""
    kept = {n: v for n, v in variables.items() if n in KEPT or n.startswith(KEPT_PREFIXES)}
    return {**kept, **OWN}


if __name__ == "__main__":
    os.execvpe(sys.argv[1], sys.argv[1:], for_installers(os.environ))
