"""Links to uploaded files in the forms that people paste."""

from html import escape
from mimetypes import guess_type
from string import Formatter

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
FIELDS = ("url", "name", "key", "path", "size")
LONGEST = 1000  # characters of a template


def template(form: str) -> str:
    """Returns the template a form's name stands for, or `form` itself. Raises `Failure` for what is none.

    A template is text with plain fields: what Python knows of widths, conversions and attributes makes of one character
    as many as it likes, and of a value whatever lies behind it.
    """
    text = FORMS.get(form, form)
    if not _plain(text):
        begin, known = form[:LONGEST], ", ".join(FORMS)
        raise Failure(
            f'"{begin}" is no format: use {known}, or a template with plain {{url}}, {{name}}, {{key}}, {{path}}, {{size}}',
            Exit.USAGE,
        )
    return text


def _plain(text: str) -> bool:
    try:
        parts = list(Formatter().parse(text)) if len(text) <= LONGEST else []
    except ValueError:
        return False
    fields = [(field, spec, conversion) for _, field, spec, conversion in parts if field is not None]
    return bool(fields) and all(
        field in FIELDS and not spec and conversion is None for field, spec, conversion in fields
    )


def filled(entry: Entry, text: str) -> str:
    """Fills a template. A form's markup cannot be meddled with by a name or url, a terminal by a name or key; a picture
    is shown as one.
    """
    url = entry.url or ""
    name = shown(entry.name)
    form = next((one for one, plain in FORMS.items() if plain == text), "")
    if form == "html":
        url, name = escape(url), escape(name)
    elif form == "markdown":
        name = "".join(f"\\{letter}" if letter in "[]\\<>`" else letter for letter in name)
        url = "".join(f"%{ord(letter):02X}" if letter in " ()<>\\" else letter for letter in url)
    elif form == "bbcode":  # it knows no escapes
        name = name.replace("[", "(").replace("]", ")")
        url = url.replace("[", "%5B").replace("]", "%5D")
    if (guess_type(entry.name)[0] or "").startswith("image/"):
        text = PICTURES.get(form, text)
    return text.format(url=url, name=name, key=shown(entry.key), size=entry.size, path=shown(entry.path))
