"""Every provider we can ask for permission to upload: one row each, by the type of its options."""

from collections.abc import Callable
from typing import Any

from dumbwaiter import config
from dumbwaiter.broker import Broker
from dumbwaiter.brokers import netease

BROKERS: dict[type[config.Provider], Callable[[Any], Broker]] = {
    config.NetEase: netease.NetEase,
}


def broker(options: config.Provider) -> Broker:
    """Returns the broker for a provider. Raises `Failure` when one of its secrets cannot be had."""
    return BROKERS[type(options)](options)
