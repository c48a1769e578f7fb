"""What must be true between the values of a configuration, and of the folders that it names."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import msgspec

from dumbwaiter.config import RESERVED, Config, Mount, Watch, absolute, nested, within
from dumbwaiter.config.options import Jiandaoyun, is_rate, why_no_keys, why_no_reading_back, why_no_replacing
from dumbwaiter.config.text import ConfigText
from dumbwaiter.errors import Failure
from dumbwaiter.files.ignore import Rules
from dumbwaiter.keys import PATH
from dumbwaiter.naming import NAME_MAX, nearest, shown
from dumbwaiter.places import trash

JOURNAL_SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")  # libpq's


def checked(config: Config, text: ConfigText) -> Config:
    """Returns the configuration with absolute paths. Raises `Failure` for what is wrong between values."""
    for section, names in (("provider", config.provider), ("watch", config.watch)):
        for name in names:
            _check_name([section, name], text)
    watches: dict[str, Watch] = {}
    for name, watch in config.watch.items():
        _check_watch(name, watch, config, text)
        watches[name] = _placed(name, _keyed(name, watch, config, text), watches, text)
        _check_after(name, watch, config, text)
    _check_targets(watches, text)
    _check_limits(config, text)
    if (listen := config.web.listen) is not None and not listen.host.is_loopback and config.web.token is None:
        raise text.failure(
            ["web", "listen"],
            f"{listen} can be reached from other machines: give [web] a token, or listen on 127.0.0.1:{listen.port}",
        )
    return msgspec.structs.replace(config, watch=watches, mount=_placed_mount(config.mount, watches, text))


def _check_name(keys: Sequence[str], text: ConfigText) -> None:
    name = keys[-1]
    if name == RESERVED:
        raise text.failure(keys, f'"{name}" cannot be a name: what the command put uploads has it')
    if name in {"", ".", ".."} or "/" in name or shown(name) != name or len(name.encode()) > NAME_MAX:
        raise text.failure(
            keys,
            f'"{shown(name)}" cannot be a name: a folder of the mount has it, so it is not ".", ".." or empty, has '
            f"no slash, backslash or control character, and {NAME_MAX} bytes at most",
        )


def _check_watch(name: str, watch: Watch, config: Config, text: ConfigText) -> None:
    if watch.provider not in config.provider:
        known = ", ".join(config.provider) or "none is configured"
        raise text.failure(["watch", name, "provider"], f'there is no provider "{watch.provider}"; known: {known}')
    for key, patterns in (("include", (watch.include, [])), ("exclude", ([], watch.exclude))):
        try:
            Rules(*patterns)
        except Failure as failure:
            raise text.failure(["watch", name, key], str(failure)) from None
    if watch.rescan < 1:
        raise text.failure(["watch", name, "rescan"], f'{watch.rescan:g} seconds are too few: "1s" at least')
    provider = config.provider[watch.provider]
    if watch.on_conflict == "replace" and (why := why_no_replacing(provider)):
        raise text.failure(
            ["watch", name, "on_conflict"],
            f'found "replace", and {why}; allowed for provider.{watch.provider}: "rename", "skip", "refuse"',
        )


def _keyed(name: str, watch: Watch, config: Config, text: ConfigText) -> Watch:
    """Returns a watch without a template where the provider names objects. Raises `Failure` where one was to decide something."""
    why = why_no_keys(config.provider[watch.provider])
    if watch.key is None or why is None:
        return watch
    if watch.key.text != PATH:
        raise text.failure(
            ["watch", name, "key"], f"cannot be said for provider.{watch.provider}: {why}; leave the key out"
        )
    return msgspec.structs.replace(watch, key=None)


def _placed(name: str, watch: Watch, others: Mapping[str, Watch], text: ConfigText) -> Watch:
    """Returns a watch with absolute paths. Raises `Failure` where its folder and another's lie in one another."""
    path = _path(text, ["watch", name, "path"], watch.path)
    for other, taken in others.items():
        if nested(path, taken.path):
            raise text.failure(
                ["watch", name, "path"],
                f"{path} and the folder of watch.{other}, {taken.path}, lie in one another: "
                "a file would belong to both",
            )
    return msgspec.structs.replace(watch, path=path, after=_after(text, name, watch.after))


def _check_after(name: str, watch: Watch, config: Config, text: ConfigText) -> None:
    provider = config.provider[watch.provider]
    if isinstance(provider, Jiandaoyun) and watch.after != "keep" and (why := why_no_reading_back(provider)):
        raise text.failure(
            ["watch", name, "after"],
            f'found "{watch.after}", and {why}; allowed for provider.{watch.provider}: "keep"',
        )


def _check_limits(config: Config, text: ConfigText) -> None:
    for name in ("transfers", "parts"):
        if not 1 <= (count := getattr(config.limits, name)) <= 64:
            raise text.failure(["limits", name], f"found {count}; allowed: 1 to 64")
    for name, rate in config.limits.requests.items():
        if name not in config.provider:
            raise text.failure(
                ["limits", "requests", name], f'there is no provider "{name}"{nearest(name, config.provider)}'
            )
        if not is_rate(rate):
            raise text.failure(["limits", "requests", name], f"{rate:g} is no number of requests a second: more than 0")


def _placed_mount(mount: Mount, watches: Mapping[str, Watch], text: ConfigText) -> Mount:
    if mount.path is None:
        return mount
    path = _path(text, ["mount", "path"], mount.path)
    for name, watch in watches.items():
        if nested(path, watch.path):
            raise text.failure(
                ["mount", "path"],
                f"{path} and the folder of watch.{name}, {watch.path}, lie in one another: "
                "the mount would be uploaded into itself",
            )
    return msgspec.structs.replace(mount, path=path)


def _after(text: ConfigText, name: str, action: str) -> str:
    """Returns a checked `after`, its folder absolute."""
    kind, colon, folder = action.partition(":")
    if action in {"keep", "trash", "delete"}:
        return action
    if kind != "move" or not colon or not folder.startswith(("/", "~")):
        raise text.failure(
            ["watch", name, "after"],
            f'found "{action}"; allowed: "keep", "trash", "delete", "move:DIR" with the whole path of a folder',
        )
    return f"move:{_path(text, ['watch', name, 'after'], folder)}"


def _check_targets(watches: Mapping[str, Watch], text: ConfigText) -> None:
    """Refuses to move files to where they would be taken again."""
    for name, watch in watches.items():
        if watch.after in {"keep", "delete"}:
            continue
        target = trash() if watch.after == "trash" else watch.after.removeprefix("move:")
        for other, one in watches.items():
            inner = within(target, one.path) if watch.after == "trash" else None
            ignored = inner is not None and not Rules(one.include, one.exclude).enters(inner)
            if nested(target, one.path) and not ignored:
                raise text.failure(
                    ["watch", name, "after"],
                    f"{target} and the folder of watch.{other}, {one.path}, lie in one another: "
                    "what is moved there would be uploaded again",
                )


def _path(text: ConfigText, keys: Sequence[str], path: str) -> str:
    if not path or "\0" in path:
        raise text.failure(keys, f'"{shown(path)}" names no folder')
    return absolute(path, text.folder)


def journal_secrets(url: str) -> list[str]:
    """Returns the secrets in the URL of a journal's server."""
    from sqlalchemy import make_url  # where the journal is on a server, which is seldom

    parts = make_url(url)
    asked = parts.normalized_query
    found = [value for name in JOURNAL_SECRETS for value in asked.get(name, ())]
    return [*found, str(parts.password)] if parts.password else found


def check_journal(url: str, text: ConfigText, private: bool) -> None:
    """Raises `Failure` for a journal's URL that cannot be used, or that shows a password to others."""
    try:
        usable = url.startswith("postgresql+psycopg://") and urlsplit(url).port != 0
    except ValueError:  # the port is no number
        usable = False
    if not usable:
        raise text.failure(["journal"], 'must be a URL like "postgresql+psycopg://USER@HOST/DATABASE"')
    if not private and journal_secrets(url):
        raise text.failure(
            ["journal"],
            "holds a password and stands in a file that others can read: chmod 600 the file, or move the password "
            "to ~/.pgpass",
        )
