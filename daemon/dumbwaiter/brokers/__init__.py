"""Every provider we can ask for permission to upload: one row each, by the type of its options."""

from collections.abc import Callable
from typing import Any

from dumbwaiter import config
from dumbwaiter.broker import Broker
from dumbwaiter.brokers import careyshop, jiandaoyun, jimeng, netease, recipe, xinhua

BROKERS: dict[type[config.Provider], Callable[[Any], Broker]] = {
    config.NetEase: netease.NetEase,
    config.Jimeng: jimeng.Jimeng,
    config.Recipe: recipe.Recipe,
    config.CareyShop: careyshop.CareyShop,
    config.Jiandaoyun: jiandaoyun.Jiandaoyun,
    config.Xinhua: xinhua.Xinhua,
}


def broker(options: config.Provider) -> Broker:
    """Returns the broker for a provider. Raises `Failure` when one of its secrets cannot be had."""
    return BROKERS[type(options)](options)
