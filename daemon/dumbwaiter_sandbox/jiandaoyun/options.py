"""The switches of the Jiandaoyun sandbox: where the documentation is silent, each choice is one of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class JiandaoyunOptions:
    """Durations are seconds of the sandbox's clock."""

    tokens: int = 100  # in one answer
    token_life: float = 3600
    transaction_life: float = 3600
    size_max: int = 200 * 1024 * 1024
    limits: bool = True  # the token says what sizes it takes
    paced: bool = True  # calls of one kind, and all together, as often as the manual says and no more
    one_record: bool = False  # a transaction is good for one new record
    keys_once: bool = True  # an uploaded key goes into one record
    keys_again: bool = True  # an update may name keys that its record has
    damaged: int = 0  # of the tokens in each answer, the first ones, whose policy nobody can read
    url_life: float = 15 * 86400  # of an attachment's address
    extra: bool = False  # unknown members everywhere
