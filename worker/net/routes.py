"""How sites are reached as the owner's environment says: proxies, and what sites are known by."""

from __future__ import annotations

import os
from collections.abc import Mapping

import certifi
import pycurl
from requests.utils import get_environ_proxies, select_proxy

from worker.net.addresses import is_this_machine


def no_proxy(_scheme: str, _netloc: str) -> str:
    return ""


def proxy_to(scheme: str, netloc: str) -> str:
    """The owner's proxy to a site, by the variables of the environment; "" is none."""
    url = f"{scheme}://{netloc}/"
    if is_this_machine(url):
        return ""
    return select_proxy(url, get_environ_proxies(url)) or ""


def certificates(*, trust_env: bool) -> Mapping[int, str]:
    """What sites and proxies are known by: the owner's, by requests' variables, or certifi's.

    curl's options for a file, or a folder.
    """
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if trust_env else ()
    named = (value for name in names if (value := os.environ.get(name)))
    path = next(named, certifi.where())
    is_folder = os.path.isdir(path)
    options = ("CAPATH", "PROXY_CAPATH") if is_folder else ("CAINFO", "PROXY_CAINFO")
    return {getattr(pycurl, option): path for option in options}
