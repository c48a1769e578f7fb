"""Holds sleep and shutdown of the machine off, by logind's word. The hold ends with the descriptor that logind gave."""

from collections.abc import Iterator
from contextlib import closing, contextmanager


class NoLogind(Exception):
    """logind cannot be asked, or refuses; the message says which."""


@contextmanager
def held(why: str) -> Iterator[None]:
    """Keeps the machine on while the context lasts. Raises `NoLogind` at its beginning."""
    from jeepney import DBusAddress, DBusErrorResponse, new_method_call
    from jeepney.io.blocking import open_dbus_connection
    from jeepney.wrappers import unwrap_msg

    logind = DBusAddress("/org/freedesktop/login1", "org.freedesktop.login1", "org.freedesktop.login1.Manager")
    call = new_method_call(logind, "Inhibit", "ssss", ("shutdown:sleep:idle", "dumbwaiter", why, "block"))
    try:
        with open_dbus_connection("SYSTEM", enable_fds=True) as bus:
            (descriptor,) = unwrap_msg(bus.send_and_get_reply(call, timeout=10.0))
    except DBusErrorResponse as error:
        raise NoLogind(f"logind answers {error.name}") from None
    except (OSError, KeyError, ValueError, RuntimeError, TimeoutError) as error:
        raise NoLogind(f"logind cannot be asked ({error})") from None
    with closing(descriptor):
        yield
