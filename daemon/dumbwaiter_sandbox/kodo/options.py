"""The switches of the Kodo sandbox: where Qiniu's manual is silent, each choice is one of them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class KodoOptions:
    """Durations are seconds of the sandbox's clock."""

    v1: bool = True  # mkblk, bput and mkfile exist
    v2: bool = True  # uploads in parts exist; a private cloud may lack them
    listing: bool = True  # the parts of an upload can be listed
    page: int = 1000  # most parts in one answer
    upload_life: float = 7 * 86400  # of an upload in parts
    block_life: float = 86400  # of a context of v1
    file_last: bool = False  # a form's file must be its last field
    same_content: Literal["success", "exists"] = "success"  # insertOnly meets an object of the same content
    size_checked: Literal["completion", "part"] = "completion"
    opaque_tags: bool = False  # a part's tag is no hash of its content
    part_min: int = 1024 * 1024  # bytes of every part but the last
    signed_downloads: bool = True  # a private bucket wants a signature
    callback_patience: float = 5.0  # seconds, real time
