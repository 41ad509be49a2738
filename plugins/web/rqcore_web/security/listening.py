"""Where the site listens, and whether it may: nobody is let in from outside by mistake.

On the loopback address only this machine's users reach the site.  On any other there must be somebody
who may log in (a user of ``basic_auth``, or a token), or the explicit word that everybody may do
anything: else the site does not start, and `StartError` says what to do.  This is decided before the
port is opened, of the very address that is then opened.
"""

from __future__ import annotations

import logging
import resource
import socket
from pathlib import Path

from rqcore.config import InstanceConfig
from rqcore.errors import StartError
from rqcore_web.options import Options
from rqcore_web.security import addresses
from rqcore_web.security.tokens import TOKENS_FILE, read_tokens

_log = logging.getLogger(__name__)
_BACKLOG = 1024
#: Descriptors that the site needs beside those of its connections, for queues, files and threads.
_OTHERS = 500


def is_local(addr: str) -> bool:
    """Can only this machine itself reach what listens on this address, or under this name?"""
    if addresses.is_address(addr):
        return addresses.is_loopback(addr)
    try:
        found = socket.getaddrinfo(addr, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(addresses.is_loopback(str(address[0])) for *_, address in found)


def refuse_open_door(
    settings: InstanceConfig, options: Options, file: Path, config_dir: Path
) -> None:
    """Raise `StartError` where strangers would be let in, `ConfigError` for damaged tokens."""
    if read_tokens(config_dir / TOKENS_FILE) or settings.basic_auth:
        return
    if is_local(settings.addr) or options.authentication == "none":
        return
    raise StartError(
        f'{file}: "addr" is {settings.addr}, which other machines reach, and nobody would have to log '
        'in: make a user with "rq web passwd NAME" or a token with "rq web token add NAME", or set '
        '"addr" to 127.0.0.1, or say "plugins": {"web": {"authentication": "none"}}, and everybody '
        "who reaches this port may do anything"
    )


def allow_descriptors(connections: int) -> None:
    """Let this process have the descriptors that so many connections take, as far as it may.

    Each may have a file open; and as many again may be waiting to be told to come back.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * connections + _OTHERS
    if hard != resource.RLIM_INFINITY and wanted > hard:
        _log.warning(
            "%d connections may need %d descriptors, but the system allows %d: raise LimitNOFILE or "
            '"ulimit -n", or lower "plugins.web.max_connections"', connections, wanted, hard,
        )  # fmt: skip
        wanted = hard
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def listen(settings: InstanceConfig, file: Path) -> socket.socket:
    """A socket that listens where the configuration says.  Raises `StartError` and `OSError`."""
    addr, port = settings.addr, settings.port
    try:
        family, kind, proto, _, address = socket.getaddrinfo(addr, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise StartError(
            f'{file}: "addr" is {addr}, which is no address of this machine; correct it'
        ) from error
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise OSError(
            error.errno,
            f"cannot listen on {addr} port {port}: {error.strerror}; stop what listens there, or "
            f'change "addr" or "port" in {file}',
        ) from error
    return sock
