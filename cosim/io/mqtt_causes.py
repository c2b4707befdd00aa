"""Why an MQTT connection failed, in words that tell the user what to change."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from paho.mqtt.reasoncodes import ReasonCode

_CONNACK = {
    "Client identifier not valid": "it does not accept our client id",
    "Server unavailable": "the broker says that its service is unavailable",
    "Bad user name or password": "wrong user name or password",
    "Not authorized": "not authorised: user name or password wrong or missing, or not allowed to connect",
}


class _ClosingSocket(ssl.SSLSocket):
    """A TLS socket that does not stay open when its handshake fails."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """A context that verifies the broker's certificate against ``ca_file`` (PEM) or the system's authorities.

    Raises OSError (ssl.SSLError is one) if the file cannot be used.
    """
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    context.sslsocket_class = _ClosingSocket
    return context


def error_in_words(error: OSError) -> str:
    """The cause behind an error of the socket or of TLS."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"TLS verification failed: {error.verify_message} (does ca_file hold the authority of this broker?)"
        case ssl.SSLError():
            return f"TLS handshake failed ({error.reason or error}); does this port speak TLS?"
        case ConnectionRefusedError():
            return "connection refused: no broker listens there"
        case socket.gaierror():
            return f"host name cannot be resolved ({error.strerror})"
        case TimeoutError():
            return "unreachable: no answer"
        case ConnectionResetError() | BrokenPipeError() | ConnectionAbortedError():
            return "it closed the connection; do both sides agree on TLS?"
    return f"unreachable ({error.strerror or error})"


def silence_in_words(closed: bool, tls: bool) -> str:
    """The likely cause when the connection stood but the broker's answer to CONNECT did not come."""
    hint = (
        "is it an MQTT 3.1.1 broker?" if tls else "does this port expect TLS (tls: true)? is it an MQTT 3.1.1 broker?"
    )
    return f"{'it closed the connection without an answer' if closed else 'connected, but no answer'}; {hint}"


def refusal_in_words(reason: ReasonCode) -> str:
    """The cause behind the code of a refusing CONNACK."""
    return _CONNACK.get(reason.getName(), f"it refused the connection ({reason.getName()})")
