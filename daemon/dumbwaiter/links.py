"""Links to uploaded files in the forms that people paste."""

import re
from html import escape
from mimetypes import guess_type

from dumbwaiter.errors import Exit, Failure
from dumbwaiter.model import Entry
from dumbwaiter.naming import shown

FORMS = {
    "url": "{url}",
    "markdown": "[{name}]({url})",
    "html": '<a href="{url}">{name}</a>',
    "bbcode": "[url={url}]{name}[/url]",
}
PICTURES = {
    "markdown": "![{name}]({url})",
    "html": '<img src="{url}" alt="{name}">',
    "bbcode": "[img]{url}[/img]",
}
_WIDE = re.compile(r"\{[^{}]*\d{4}|.{1000}", re.DOTALL)  # longer than any line, or padded to be


def template(form: str) -> str:
    """Returns the template a form's name stands for, or `form` itself. Raises `Failure` for what no file can fill in."""
    text = FORMS.get(form, form)
    try:  # what a large size breaks is none either
        sample = text if _WIDE.search(text) else text.format(url="", name="", key="", size=1 << 62, path="")
    except (KeyError, IndexError, ValueError, AttributeError, TypeError, OverflowError, MemoryError):
        sample = text
    if sample == text:
        known = ", ".join(FORMS)
        raise Failure(
            f'"{form}" is no format: use {known}, or a template with {{url}}, {{name}}, {{key}}, {{path}}, {{size}}',
            Exit.USAGE,
        )
    return text


def filled(entry: Entry, text: str) -> str:
    """Fills a template. A form's markup cannot be meddled with by a name; a picture is shown as one."""
    url = entry.url or ""
    name = shown(entry.name)
    form = next((one for one, plain in FORMS.items() if plain == text), "")
    if form == "html":
        url, name = escape(url), escape(name)
    elif form == "markdown":
        name = "".join(f"\\{letter}" if letter in "[]\\<>`" else letter for letter in name)
        url = url.replace("(", "%28").replace(")", "%29").replace(" ", "%20")
    elif form == "bbcode":  # it knows no escapes
        name = name.replace("[", "(").replace("]", ")")
        url = url.replace("[", "%5B").replace("]", "%5D")
    if (guess_type(entry.name)[0] or "").startswith("image/"):
        text = PICTURES.get(form, text)
    return text.format(url=url, name=name, key=entry.key, size=entry.size, path=shown(entry.path))
