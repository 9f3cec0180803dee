"""Recognises certificate and proxy problems in the error messages of S3's and MLflow's clients."""

import re

REFUSED = re.compile(r"certificate verify failed: ([^()'\"\]]+)|(doesn't match|CertificateError)")
NONE_IN_IT = re.compile("no.certificate.or.crl.found", re.IGNORECASE)
PROXY = re.compile(
    r"ProxyError|Proxy(Connection|Timeout)|connect to proxy|\bcode 407\b|"
    # An address that is none, or of a kind of proxy that a client does not support.
    "check proxy URL|SOCKS support|Proxy URL had|proxies_config"
)


def network_problem(text: str) -> str:
    """What is wrong and how to fix it, to follow the server's name; empty if it is neither."""
    if found := REFUSED.search(text):
        why = (found[1] or "it is another server's").strip()
        return (
            f"has a certificate that this machine does not trust ({why}): for one of your site, "
            "have SSL_CERT_FILE name the file with your site's certificates, and so "
            "REQUESTS_CA_BUNDLE and AWS_CA_BUNDLE where they are set"
        )
    if NONE_IN_IT.search(text):
        return (
            "was not contacted, the file that SSL_CERT_FILE, REQUESTS_CA_BUNDLE or AWS_CA_BUNDLE "
            "names has no certificate in it: fix it"
        )
    if PROXY.search(text):
        return (
            "was not reached: the proxy is down, refuses, or is not an HTTP proxy: check "
            "HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in either spelling, ALL_PROXY, and the login in "
            "them (in NO_PROXY, S3's client reads names, not ranges such as 10.0.0.0/8)"
        )
    return ""
