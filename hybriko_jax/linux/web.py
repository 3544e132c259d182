"""curl, to addresses that were checked after their names were looked up.

Every hop is one run of curl that may connect to the checked address only (--connect-to), so a name
that changes its address in between gains nothing. Redirects are followed here, one at a time.
Looking a name up has the resolver's own time limit.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
import time
from collections.abc import Sequence
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from hybriko_jax.linux.paths import Where, check_word
from hybriko_jax.linux.process import MOST, Captured, capture

HOPS = 5

# IPv6 networks whose last 32 bits are an IPv4 address: compatible ones, and NAT64.
_HOLD_IPV4 = (ipaddress.ip_network("::/96"), ipaddress.ip_network("64:ff9b::/96"))
_HOST = re.compile(r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+")
_AS_IS = "%/:?=&+,;@!$'()*~[]|"
# No configuration file, no proxy, no other protocol, no expansion of [1-9] and {a,b} in the URL,
# no progress meter.
_GUARD = ("-q", "--noproxy", "*", "--proto", "=http,https", "-g", "-sS")


def parse_url(url: str, where: Where) -> SplitResult:
    """The parts of an http(s) address, in ASCII; http:// is added where no scheme is given.

    What parsers read in different ways is refused: user names, backslashes, spaces.

    Raises:
      UserError: it is none.
    """
    check_word(url, where)
    if "://" not in url:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:(?![0-9])", url):  # a scheme, and no port follows
            raise where.fault("url", url=url)
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna" if not url.isascii() else "ascii").decode()
        port = parts.port
    except ValueError:
        raise where.fault("url", url=url) from None
    odd = "@" in parts.netloc or re.search(r"[\\\s]", url) or not _HOST.fullmatch(host)
    if parts.scheme not in ("http", "https") or odd or port == 0:
        raise where.fault("url", url=url)
    host = f"[{host}]" if ":" in host else host
    return parts._replace(
        netloc=host if port is None else f"{host}:{port}",
        path=quote(parts.path, _AS_IS),
        query=quote(parts.query, _AS_IS),
        fragment="",
    )


def checked_address(parts: SplitResult, where: Where) -> str:
    """The address to connect to.

    Raises:
      UserError: there is none, or one of its addresses is not public.
    """
    host = parts.hostname or ""
    try:
        found = addresses(host, parts.port or (443 if parts.scheme == "https" else 80))
    except (OSError, UnicodeError):
        raise where.fault("unknown_host", host=host) from None
    for address in found:
        if not (where.allow_private or is_public(address)):
            raise where.fault("private", host=host, address=address)
    return found[0]


def addresses(host: str, port: int) -> list[str]:
    """Every address of a host, as the system's resolver gives them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in found]


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, also where one holds another."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if any(ip in network for network in _HOLD_IPV4):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def fetch(
    url: str, options: Sequence[str], where: Where, deadline: float, most: int = MOST
) -> Captured:
    """Runs curl, and again for every redirect if the options have -L.

    Raises:
      UserError: an address is not http(s) or not public, or redirects do not end.
    """
    flags = "".join(o[1:] for o in options if o.startswith("-"))
    follow, headers = "L" in flags, set(flags) & set("iIv")
    options = [o.replace("L", "") if o.startswith("-") else o for o in options]
    options = [o for o in options if o != "-"]
    shown = b""
    for _ in range(HOPS + 1):
        parts = parse_url(url, where)
        address = checked_address(parts, where)
        address = f"[{address}]" if ":" in address else address
        end = secrets.token_hex(8)  # unknown to the server, so it cannot fake a redirect
        argv = ["curl", *_GUARD, "--max-time", f"{max(1.0, deadline - time.monotonic()):.0f}"]
        argv += ["--connect-to", f"::{address}:", "-w", f"\n{end}%{{redirect_url}}", *options]
        got = capture([*argv, "--url", parts.geturl()], where, deadline, most)
        body, found, target = got.output.rpartition(f"\n{end}".encode())
        shown += body if found else got.output
        cut = len(shown) > most or got.truncated
        if not (follow and target and found) or cut or got.timed_out:
            return Captured(got.code, shown[:most], cut, got.timed_out)
        shown = shown if headers else b""
        url = urljoin(parts.geturl(), target.decode("utf-8", "replace"))
    raise where.fault("redirects", url=url, n=HOPS)
