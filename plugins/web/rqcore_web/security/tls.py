"""TLS: the certificate and its key, checked in words at the start, and taken anew when renewed.

Both are PEM files; a relative path begins at the instance directory.  TLS 1.2 is the oldest that is
spoken.  New connections get the new certificate as soon as its files have changed (one ``stat`` each
per connection); files that do not fit together are told once, and the former ones stay in use.
"""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path

from rqcore.errors import StartError

_log = logging.getLogger(__name__)


class Tls:
    """See the head of this module.  Raises `StartError` for files that cannot be used."""

    def __init__(self, directory: Path, certificate: str, key: str) -> None:
        self._certificate = directory / certificate
        self._key = directory / key
        self._mark = self._marks()
        self._newest = self._load()
        #: What the server is started with; who greets it is handed on to the newest.
        self.context = self._newest
        self.context.sni_callback = self._on_hello

    def _on_hello(self, greeted: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        """A client greets; the certificate that it is shown is chosen after this."""
        self._refresh()
        if greeted.context is not self._newest:
            greeted.context = self._newest

    def _refresh(self) -> None:
        mark = self._marks()
        if mark == self._mark:
            return
        self._mark = mark
        try:
            self._newest = self._load()
        except StartError as error:
            _log.error("the former certificate stays in use: %s", error)
        else:
            _log.info("the certificate was read anew")

    def _load(self) -> ssl.SSLContext:
        for name, path in (("certificate", self._certificate), ("key", self._key)):
            _check(name, path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._certificate, self._key, _no_passphrase)
        except ssl.SSLError as error:
            raise StartError(self._words(error)) from error
        return context

    def _words(self, error: ssl.SSLError) -> str:
        if error.reason == "KEY_VALUES_MISMATCH":
            return (
                f"TLS: {self._key} is not the key of {self._certificate}; give the key that the "
                "certificate was made with"
            )
        return (
            f"TLS: {self._certificate} and {self._key} cannot be used: {error.reason or error}; "
            "both must be PEM, the certificate first in its file, with those that vouch for it behind"
        )

    def _marks(self) -> tuple[tuple[int, ...], ...]:
        return tuple(_mark(path) for path in (self._certificate, self._key))


def _mark(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)


def _check(name: str, path: Path) -> None:
    """Can it be read, and is it what it should be?  OpenSSL does not say which of the two is wrong."""
    try:
        text = path.read_text("ascii", "replace")
    except OSError as error:
        raise StartError(
            f'TLS: "plugins.web.{name}" is {path}, which cannot be read: {error.strerror}; correct '
            "the path, or the file's owner and mode"
        ) from error
    wanted = "CERTIFICATE-----" if name == "certificate" else "PRIVATE KEY-----"
    if "-----BEGIN " not in text or wanted not in text:
        raise StartError(
            f'TLS: "plugins.web.{name}" is {path}, which is no {name} in PEM; it should have a line '
            f"-----BEGIN {'CERTIFICATE' if name == 'certificate' else 'PRIVATE KEY'}-----"
        )
    if "ENCRYPTED" in text:
        raise StartError(
            f"TLS: {path} is protected by a passphrase, which nobody is there to type; remove it with: "
            f"openssl pkey -in {path} -out NEW"
        )


def _no_passphrase() -> str:
    return ""
