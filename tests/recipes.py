"""The providers that docs/recipes.md describes, pointed at the vendors on loopback."""

import re
from pathlib import Path

from dumbwaiter.config import options
from dumbwaiter.config.file import parse
from dumbwaiter_sandbox import Sandbox

PAGE = Path(__file__).parent.parent / "docs/recipes.md"
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)[1:]  # the first one is a sketch


def text(sandbox: Sandbox) -> str:
    """Returns every example as one configuration."""
    written = "\n".join(EXAMPLES)
    forms = sandbox.accounts["jiandaoyun"]
    for found, put in {
        "https://api.jiandaoyun.com/api": f"{sandbox.urls['forms']}/api",
        "https://app.example": sandbox.urls["presign"],
        '{ env = "JDY_KEY" }': f'"{forms["api_key"]}"',
        '{ env = "SIGNED_KEY" }': f'"{sandbox.accounts["presign"]["api_key"]}"',
    }.items():
        assert found in written
        written = written.replace(found, put)
    for name in ("app_id", "entry_id"):
        written = re.sub(rf'{name} = "\w+"', f'{name} = "{forms[name]}"', written)
    return written


def providers(sandbox: Sandbox) -> dict[str, options.Provider]:
    return parse(text(sandbox), PAGE.name).provider
