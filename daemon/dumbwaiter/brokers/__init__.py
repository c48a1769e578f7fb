"""Every provider we can ask for permission to upload: one row each, by the type of its options."""

from collections.abc import Callable
from typing import Any

from dumbwaiter.broker import Broker
from dumbwaiter.brokers import careyshop, jiandaoyun, jimeng, netease, recipe, xinhua
from dumbwaiter.config import options

BROKERS: dict[type[options.Provider], Callable[[Any], Broker]] = {
    options.NetEase: netease.NetEase,
    options.Jimeng: jimeng.Jimeng,
    options.Recipe: recipe.Recipe,
    options.CareyShop: careyshop.CareyShop,
    options.Jiandaoyun: jiandaoyun.Jiandaoyun,
    options.Xinhua: xinhua.Xinhua,
}


def gives_links(settings: options.Provider) -> bool:
    """False for a provider that shows no way back to a file but what the catalog has."""
    return getattr(BROKERS[type(settings)], "link", None) is not Broker.link


def broker(settings: options.Provider) -> Broker:
    """Returns the broker for a provider. Raises `Failure` when one of its secrets cannot be had."""
    return BROKERS[type(settings)](settings)
