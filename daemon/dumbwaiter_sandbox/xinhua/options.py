"""The switches of the Xinhua sandbox: where the document is silent, each choice is one of them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class XinhuaOptions:
    """Durations are seconds of the sandbox's clock."""

    tolerance: float = 300  # between a request token's time and the clock
    token_life: float = 1800  # of upload tokens
    size_limit: int = 1024 * 1024
    keys_limit: int = 100  # in one call; 0 is no limit
    enveloped: bool = False  # answers stand in {"data": ..., "status": 0}
    other_requests: bool = False  # upload tokens can also be had by POST, or with the keys in the query
    looks: int = 2  # that find a task in work before it is done
    outcome: Literal["done", "failed"] = "done"  # of a task
    detect: Literal["pass", "failed", "suspected"] = "pass"
    image: Literal["url", "key", "none"] = "url"  # how a result is named
    quota: int = 10  # pictures without watermark that the account may have
