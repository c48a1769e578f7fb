"""Links to uploaded files in the forms that people paste."""

from html import escape

from dumbwaiter.errors import Exit, Failure
from dumbwaiter.model import Entry
from dumbwaiter.naming import shown

FORMS = {
    "url": "{url}",
    "markdown": "[{name}]({url})",
    "html": '<a href="{url}">{name}</a>',
}


def template(form: str) -> str:
    """Returns the template a form's name stands for, or `form` itself. Raises `Failure` for an unknown field."""
    text = FORMS.get(form, form)
    try:
        sample = text.format(url="", name="", key="", size=0, path="")
    except (KeyError, IndexError, ValueError, AttributeError):
        sample = text
    if sample == text:
        known = ", ".join(FORMS)
        raise Failure(
            f'"{form}" is no format: use {known}, or a template with {{url}}, {{name}}, {{key}}, {{path}}, {{size}}',
            Exit.USAGE,
        )
    return text


def filled(entry: Entry, text: str) -> str:
    """Fills a template. In HTML and Markdown, what would be markup in a name is escaped."""
    url = entry.url or ""
    name = shown(entry.name)
    if text == FORMS["html"]:
        url, name = escape(url), escape(name)
    elif text == FORMS["markdown"]:
        name = "".join(f"\\{letter}" if letter in "[]\\" else letter for letter in name)
        url = url.replace("(", "%28").replace(")", "%29").replace(" ", "%20")
    return text.format(url=url, name=name, key=entry.key, size=entry.size, path=shown(entry.path))
