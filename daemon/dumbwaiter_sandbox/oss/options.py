"""The switches of the OSS sandbox: where the manual is silent, each choice is one of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OssOptions:
    """Durations are seconds of the sandbox's clock."""

    v1: bool = True  # signatures of version 1 are accepted
    public_read: bool = True  # anybody may read objects
    allow_extra_actions: bool = False  # temporary keys may list parts, abort and read, too
    complete_idempotent: bool = False  # a second complete of the same upload is answered 200
    skew: float = 900
    crc: bool = True  # answers carry x-oss-hash-crc64ecma
    callback_patience: float = 5.0  # seconds, real time
