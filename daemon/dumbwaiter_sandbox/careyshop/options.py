"""The switches of the CareyShop sandbox: two generations of servers are in use, and a shop has settings."""

from dataclasses import dataclass
from typing import Literal

IMAGES = "jpg,jpeg,png,gif,bmp,webp,svg"
FILES = "txt,md,csv,pdf,zip,gz,7z,doc,docx,xls,xlsx,mp3,mp4,mov,avi,bin,dat"


@dataclass(frozen=True)
class CareyShopOptions:
    """Durations are seconds of the sandbox's clock."""

    generation: Literal[1, 2] = 1  # the server of 2018, or that of 2020
    https: bool = False  # errors have HTTP statuses of their own; else every answer is 200
    default_module: Literal["careyshop", "qiniu", "aliyun"] = "careyshop"
    token_life: int = 3600  # of an upload token
    policy_life: int | None = None  # of the policy inside, if it differs
    session_life: int = 30 * 86400
    utc_offset: int = 0  # of the end in OSS's policy, which is local time with a "Z": the real shop's is 8 hours
    file_size: int = 2  # MiB in one form
    image_ext: str = IMAGES
    file_ext: str = FILES
    right: bool = True  # the account may upload
