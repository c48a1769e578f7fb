"""The signals by which a person, or a service manager, ends the daemon."""

import asyncio
import os
import signal


async def wait_for_stop() -> None:
    """Returns at SIGTERM, SIGINT, or when the terminal goes, unless who started us wants that ignored (nohup).

    Without a terminal SIGHUP is no wish to end: a service that ended well stays down.
    """
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    heard = {signal.SIGTERM: event.set, signal.SIGINT: event.set}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        heard[signal.SIGHUP] = event.set if _at_terminal() else lambda: None
    for number, act in heard.items():
        loop.add_signal_handler(number, act)
    try:
        await event.wait()
    finally:
        for number in heard:
            loop.remove_signal_handler(number)


def _at_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
