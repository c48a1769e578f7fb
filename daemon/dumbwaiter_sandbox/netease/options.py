"""The switches of the NetEase sandbox: where the manual is silent, each choice is one of them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class NetEaseOptions:
    """Durations are seconds of the sandbox's clock."""

    # Upload nodes.
    md5_mode: Literal["off", "whole_file", "per_chunk"] = "whole_file"  # what Content-MD5 is compared with
    max_accept: int | None = None  # bytes taken of one request; None takes all
    rotate_context_every: int = 0  # accepted chunks between new contexts; 0 never
    keep_partial: bool = False  # keep the beginning of a body that broke off
    rewrite: bool = False  # a smaller offset overwrites; else it is answered with what is stored
    context_ttl: float = 24 * 3600
    context_bound_to_token: bool = False  # a context needs the token that began it
    unknown_context: Literal[404, 400] = 404  # status of a chunk with an unknown context
    plain_slashes: bool = False  # unencoded slashes count as part of the object name
    on_520: Literal["stored", "discarded"] = "stored"  # the object, after a callback that failed
    final_context: Literal["same", "null", "absent", "empty"] = "same"  # in the answer to the last chunk
    callback_form: Literal["json", "base64"] = "json"  # of callbackRetMsg
    request_id: Literal["requestId", "requestID"] = "requestId"
    offset_as_text: bool = False
    # LBS.
    node_order: tuple[Literal["nos1", "nos2"], ...] = ("nos1", "nos2")
    # VOD.
    token_life: float = 30 * 86400
    curtime_window: float = 300
    refuse_replay: bool = False  # refuse a Nonce seen within the window
    rate: float = 80  # requests a second; 0 is no limit
    register_delay: float = 0  # from completion until video/query knows the object
    image_ids: bool = False  # video/query names images by imgId
    # Downloads.
    signed_downloads: bool = False  # downloadOrigUrl carries a signature, and an unsigned read is refused
    download_life: float = 3600
