"""Links in the forms that people paste."""

from typing import Any

import pytest

from dumbwaiter.errors import Exit, Failure
from dumbwaiter.links import filled, template
from dumbwaiter.model import Entry, Stamp


def entry(**changes: Any) -> Entry:
    values: dict[str, Any] = {
        "id": 1,
        "provider": "vod",
        "key": "k/1.mov",
        "watch": "w",
        "path": "films/a b.mov",
        "stamp": Stamp(1, 42, 2, 3),
        "stored_at": 0.0,
        "url": "http://cdn.test/k/1.mov",
    }
    return Entry(**(values | changes))


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("url", "http://cdn.test/k/1.mov"),
        ("markdown", "[a b.mov](http://cdn.test/k/1.mov)"),
        ("html", '<a href="http://cdn.test/k/1.mov">a b.mov</a>'),
        ("bbcode", "[url=http://cdn.test/k/1.mov]a b.mov[/url]"),
        ("{name}\t{size}\t{key}\t{path}", "a b.mov\t42\tk/1.mov\tfilms/a b.mov"),
        ("{{{name}}}", "{a b.mov}"),
    ],
)
def test_each_form_is_filled(form: str, expected: str) -> None:
    assert filled(entry(), template(form)) == expected


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("url", "http://cdn.test/1"),
        ("markdown", r"![a\[1\].JPG](http://cdn.test/1)"),
        ("html", '<img src="http://cdn.test/1" alt="a[1].JPG">'),
        ("bbcode", "[img]http://cdn.test/1[/img]"),
        ("[{name}]({url})!", "[a[1].JPG](http://cdn.test/1)!"),
    ],
)
def test_a_picture_is_shown_as_one(form: str, expected: str) -> None:
    assert filled(entry(path="a[1].JPG", url="http://cdn.test/1"), template(form)) == expected


@pytest.mark.parametrize(
    "form",
    [
        "",
        "{size:>5}",
        "{url:{name}}",
        "{name:{size}}",
        "{url!r}",
        "{url.__class__}",
        "{url.__class__.__mro__}",
        "{name[0]}",
        "{{}}",
        "{url:>2000000000}",
        "{url}{size:020000d}",
        "{url:9999}",
        "Markdown",
        "text",
        "{nothing}",
        "{",
        "}",
        "{0}",
        "{}",
        "{url.x}",
        "{url[0]}",
        "{size:zz}",
        "{size[0]}",
        "{path[name]}",
        "{size:c}",
    ],
)
def test_what_is_no_form_is_refused_with_the_forms_there_are(form: str) -> None:
    with pytest.raises(Failure) as raised:
        template(form)
    assert str(raised.value) == (
        f'"{form}" is no format: use url, markdown, html, bbcode, or a template with plain {{url}}, {{name}}, {{key}}, {{path}}, {{size}}'
    )
    assert raised.value.code is Exit.USAGE


def test_markup_in_a_name_stays_text() -> None:
    evil = entry(path='x/"><script>&.html', url="http://cdn.test/a(b) c?x=1&y=2")
    assert filled(evil, template("html")) == (
        '<a href="http://cdn.test/a(b) c?x=1&amp;y=2">&quot;&gt;&lt;script&gt;&amp;.html</a>'
    )
    brackets = entry(path="a](http://evil) [b", url="http://cdn.test/a(b) c")
    markup = entry(path="<img src=x>.txt", url="http://cdn.test/a")
    assert filled(markup, template("markdown")).startswith(r"[\<img src=x\>.txt]")
    assert filled(brackets, template("markdown")) == r"[evil) \[b](http://cdn.test/a%28b%29%20c)"
    html = entry(url="http://cdn.test/<script>stop</script>\\")  # its end would take the bracket that ends the link
    assert filled(html, template("markdown")).endswith("(http://cdn.test/%3Cscript%3Estop%3C/script%3E%5C)")


def test_a_template_longer_than_any_line_is_refused() -> None:
    assert template("{url}" * 200)
    with pytest.raises(Failure, match="no format"):
        template("{url}" * 201)


def test_control_characters_in_a_name_or_a_key_are_shown_and_not_sent() -> None:
    assert filled(entry(path="a/\x1b[2J\udcff"), "{name} {path}") == "\\x1b[2J\\xff a/\\x1b[2J\\xff"
    assert filled(entry(key="\x1b]52;c;cm0K\x07"), "{key}") == r"\x1b]52;c;cm0K\x07"


def test_without_a_url_the_place_is_empty() -> None:
    assert filled(entry(url=None), "<{url}>") == "<>"
