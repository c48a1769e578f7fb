"""A small configuration to begin with, and what one that is wrong is refused with."""

import pytest

from dumbwaiter.config.file import parse
from dumbwaiter.errors import Exit, Failure

FILE = "/etc/dumbwaiter/config.toml"
SECRET = "s3cret-of-the-account"

PROVIDER = f"""\
[provider.vod]
broker = "netease"
app_key = "key"
app_secret = "{SECRET}"

"""
WATCH = """\
[watch.films]
path = "/drop/films"
provider = "vod"
"""
BOTH = PROVIDER + WATCH  # 8 lines


def refused(text: str, *, private: bool = True) -> str:
    """Returns the sentence that a configuration is refused with."""
    with pytest.raises(Failure) as raised:
        parse(text, FILE, private=private)
    assert raised.value.code is Exit.USAGE
    sentence = str(raised.value)
    assert SECRET not in sentence
    assert "\n" not in sentence
    return sentence


def changed(old: str, new: str, text: str = BOTH) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)
