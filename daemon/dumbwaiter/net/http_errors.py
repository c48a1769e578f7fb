"""What went wrong in an exchange, in sentences of ours: an error's own text may quote a header or a url. Pure."""

import os
import socket
import ssl

import httpx

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (httpx.ConnectTimeout, "no answer from {host}"),
    (httpx.ConnectError, "{host} cannot be reached ({reason})"),
    (httpx.WriteTimeout, "{host} stopped taking bytes"),
    (httpx.ReadTimeout, "{host} stopped answering"),
    (httpx.NetworkError, "the connection to {host} broke ({reason})"),
    (httpx.RemoteProtocolError, "{host} broke off its answer"),
    (TimeoutError, "{host} takes too long to answer"),
    (httpx.InvalidURL, "{host} is no usable address"),
    (httpx.UnsupportedProtocol, "{host} is no usable address"),
    (ExceptionGroup, "{host} cannot be reached ({reason})"),  # how anyio may tell of several tries to connect
)


def sentence(error: Exception, url: str) -> str:
    """Returns what went wrong in an exchange, in words of ours: an error's own may quote what was sent."""
    host = origin(url).rpartition("/")[2].rpartition("@")[2]
    for kind, words in _REASONS:
        if isinstance(error, kind):
            return words.format(host=host, reason=_reason(error))
    return f"the exchange with {host} failed"


def _reason(error: BaseException) -> str:
    """Finds the operating system's word for it under what httpx and anyio wrapped around."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "its name is not known"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "its certificate is not trusted"
        if isinstance(cause, ssl.SSLError):  # an OSError whose number is none of the system's
            return "it does not answer in TLS"
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno).lower()
        cause = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause.__cause__ or cause.__context__
    return str(error).lower() or "no reason given"


def origin(url: str) -> str:
    """Returns scheme, host and port of a url."""
    return "/".join(url.split("/", 3)[:3])
