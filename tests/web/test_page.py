"""The page in a real browser, over a real daemon: it moves by itself, its buttons work, and it keeps to itself."""

import os
import re
import sqlite3
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from playwright.sync_api import expect

from browsing import Site, Visitor

MIB = 1 << 20
Visit = Callable[..., Visitor]
expect.set_options(timeout=20_000)
# The smallest PNG: one dot.
DOT = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c4944415408d763f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)


def test_a_file_moves_from_the_outbox_to_the_history_while_one_looks(site: Site, visit: Visit) -> None:
    site.configure('[limits]\nbandwidth = "2M"')
    site.program.start()
    visitor = visit(permissions=["clipboard-read", "clipboard-write"])
    page = visitor.page
    page.goto(site.url)
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready for the first file.")
    expect(page.locator("#outbox .empty")).to_contain_text(str(site.program.drop))

    site.program.write("films/long one.mov", os.urandom(16 * MIB))
    site.program.write("dot.png", DOT)
    row = page.locator("#outbox .rows > li", has_text="long one.mov")
    expect(row.locator(".amount")).to_have_text(re.compile(r"^\d.* MiB of 16\.0 MiB$"))
    first = row.locator("progress").evaluate("bar => bar.value")
    expect(row.locator(".note")).to_have_text(re.compile(r".*iB/s · .* left"))
    page.wait_for_function(
        f"() => (document.querySelector('#outbox .rows > li progress')?.value ?? 1) > {first}", polling="raf"
    )
    assert site.program("bandwidth", "off").returncode == 0
    expect(page.locator("#history .rows")).to_contain_text("long one.mov")
    expect(page.get_by_role("heading", level=1)).to_have_text("Everything is uploaded.")
    picture = page.locator("#history .rows > li", has_text="dot.png").locator("img")
    expect(picture).to_have_attribute("src", re.compile("^blob:"))
    assert picture.evaluate("image => image.naturalWidth") == 1

    page.get_by_role("button", name="Copy Markdown of long one.mov").click()
    expect(page.locator("#toast")).to_have_text("Copied")
    (entry,) = [one for one in site.program.facts("history") if one["path"] == "films/long one.mov"]
    assert page.evaluate("navigator.clipboard.readText()") == f"[long one.mov]({entry['url']})"
    assert {urlsplit(url).netloc for url in visitor.requests if not url.startswith("blob:")} == {
        f"127.0.0.1:{site.port}"
    }
    assert visitor.complaints == []


def test_over_plain_http_it_says_copied_only_of_what_is_in_the_clipboard(site: Site, visit: Visit) -> None:
    site.program.start()
    site.program.write("a.bin", b"a")
    assert site.program("wait").returncode == 0
    page = visit().page
    page.add_init_script("Object.defineProperty(Navigator.prototype, 'clipboard', { value: undefined })")
    # Nobody has pressed a button, or not lately: the browser refuses. To look from here would count as if somebody had.
    page.add_init_script(
        "new MutationObserver(() => { const one = document.querySelector('#history .copies button');"
        "if (one && !window.begun) { window.begun = true; one.click(); }"
        "const said = document.querySelector('#toast')?.textContent; if (said) console.info(said); })"
        ".observe(document, { childList: true, subtree: true })"
    )
    with page.expect_console_message() as said:
        page.goto(site.url)
    assert said.value.text == "That did not work. The browser did not let the page copy: try again."
    button = page.get_by_role("button", name="Copy Link of a.bin")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#toast")).to_have_text("Copied")
    expect(button).to_be_focused()


def test_what_needs_a_person_has_its_sentence_and_the_buttons_that_answer_it(site: Site, visit: Visit) -> None:
    site.program.start()
    site.program.vendors.faults("nos.put:400")
    for name in ("a.bin", "b.bin"):
        site.program.write(name, name.encode())
    page = visit().page
    page.goto(site.url)
    trouble = page.locator("#attention .rows > li")
    expect(trouble).to_have_count(2)
    expect(trouble.first).to_contain_text("NetEase refuses the file")
    page.get_by_role("button", name="中文").click()
    expect(trouble.first.locator(".sentence")).to_have_text(re.compile("^网易拒绝了这个文件：InvalidRequest"))
    expect(trouble.first.locator(".sentence")).to_have_attribute("lang", "zh-CN")
    page.get_by_role("button", name="English").click()
    page.once("dialog", lambda dialog: dialog.accept())
    trouble.filter(has_text="b.bin").get_by_role("button", name="Forget").click()
    expect(trouble).to_have_count(1)
    site.program.vendors.faults("")
    trouble.get_by_role("button", name="Retry").click()
    expect(page.locator("#attention")).to_be_hidden()
    expect(page.locator("#history .rows")).to_contain_text("a.bin")
    totals = site.program.totals()
    assert (totals["done"], totals["superseded"], totals["rejected"]) == (1, 1, 0)


def test_the_focus_stays_where_it_is_when_rows_before_it_go_and_change_places(site: Site, visit: Visit) -> None:
    program = site.program
    program.start()
    program("pause", "netease")
    for count, name in enumerate(("a.bin", "b.bin", "c.bin"), 1):
        program.write(name, name.encode())
        program.until(lambda count=count: program.totals()["pending"] == count)
    ids = {job["path"]: str(job["id"]) for job in program.status()["jobs"]}
    page = visit().page
    page.goto(site.url)
    rows, names = page.locator("#outbox .rows > li"), page.locator("#outbox .rows .name")
    expect(names).to_have_text(["a.bin", "b.bin", "c.bin"])
    focus = "row => { row.tabIndex = -1; row.focus(); }"
    rows.nth(1).evaluate(focus)
    program("retry", ids["a.bin"])  # due now, it is the last
    expect(names).to_have_text(["b.bin", "c.bin", "a.bin"])
    expect(rows.nth(0)).to_be_focused()

    rows.nth(1).evaluate(focus)
    page.evaluate("() => addEventListener('blur', () => (window.lost = true), true)")
    program("forget", ids["b.bin"])
    expect(names).to_have_text(["c.bin", "a.bin"])
    expect(rows.nth(0)).to_be_focused()
    assert not page.evaluate("window.lost")


def test_all_that_needs_a_person_is_counted_and_tried_again(site: Site, visit: Visit) -> None:
    program = site.program
    program.vendors.faults("nos.put:400")
    assert program("put", program.write("a.bin", b"a")).returncode == 20
    program.multiply_jobs(1100)
    program.start()
    page = visit().page
    page.goto(site.url)
    expect(page.locator("#attention .rows > li")).to_have_count(1000)
    expect(page.locator("#attention .more")).to_have_text("and 101 more files")
    expect(page.get_by_role("heading", level=1)).to_have_text("1,101 things need you.")
    program.vendors.faults("")
    page.get_by_role("button", name="Retry all").click()
    expect(page.locator("#attention")).to_be_hidden()  # the other files are not there
    expect(page.locator("#history .rows")).to_contain_text("a.bin")
    totals = program.totals()
    assert (totals["done"], totals["rejected"]) == (1, 0)


def test_what_is_to_go_counts_the_files_that_are_not_listed_too(site: Site, visit: Visit) -> None:
    program = site.program
    site.configure('[limits]\ntransfers = 1\nbandwidth = "256k"')
    program.start()
    program("pause", "netease")
    program.write("a.bin", bytes(4 * MIB))
    program.until(lambda: program.totals()["pending"] == 1)
    program.stop()
    program.multiply_jobs(1499)
    program.start()
    assert program.totals()["bytes_left"] == 1500 * 4 * MIB
    page = visit().page
    page.goto(site.url)
    program("resume")
    expect(page.locator("#detail")).to_have_text(re.compile(r"^5\.9 GiB to go"))


def test_given_up_errands_beyond_those_listed_are_counted_too(site: Site, visit: Visit) -> None:
    program = site.program
    text = program.config.read_text()
    program.config.write_text(text.replace("[watch.netease]\n", '[watch.netease]\non_done = ["false"]\n'))
    program.start()
    program.write("a.bin", b"a")
    program.until(lambda: [one["due_at"] for one in program.status()["errands"]] == [None])
    program.stop()
    program.multiply_jobs(1100)
    program.start()
    page = visit().page
    page.goto(site.url)
    expect(page.get_by_role("heading", level=1)).to_have_text("1,101 things need you.")
    expect(page.locator("#attention .more")).to_have_text("and 101 more files")


def test_it_says_when_files_are_still_to_be_put_away(site: Site, visit: Visit) -> None:
    program, shelf = site.program, site.program.folder / "shelf"
    text = program.config.read_text()
    program.config.write_text(text.replace("[watch.netease]\n", f'[watch.netease]\nafter = "move:{shelf}/sent"\n'))
    program.start()
    shelf.write_bytes(b"in the way")
    program.write("a.bin", b"a")
    page = visit().page
    page.goto(site.url)
    expect(page.locator("#detail")).to_have_text("1 file is still to be moved or deleted here, as `after` says.")
    program.until(lambda: any(one["error"] for one in program.status()["errands"]))
    shelf.unlink()
    assert program("retry", "--all").returncode == 0
    expect(page.locator("#detail")).to_contain_text("you may switch off.")


def test_each_failed_notice_of_a_refused_account_has_one_row(site: Site, visit: Visit) -> None:
    program, second = site.program, site.program.folder / "second"
    second.mkdir()
    text = program.config.read_text()
    hook = 'on_attention = ["false"]\n'
    program.config.write_text(text.replace("[watch.netease]\n", f"[watch.netease]\n{hook}"))
    site.configure(f'[watch.second]\npath = "{second}"\nprovider = "netease"\n{hook}')
    program.vendors.faults("vod.init:403")
    program.start()
    program.write("a.bin", b"a")
    program.until(lambda: [one["due_at"] for one in program.status()["errands"]] == [None, None])
    page = visit().page
    page.clock.install()
    page.goto(site.url)
    rows = page.locator("#attention .rows > li")
    expect(rows).to_have_count(3)
    page.clock.run_for(5000)  # it is drawn once a second
    assert sorted(rows.locator(".name").all_text_contents()) == ["netease", "netease", "second"]


def test_a_provider_that_fails_for_a_while_says_with_what(site: Site, visit: Visit) -> None:
    site.program.vendors.faults("nos.put:500")
    site.program.start()
    page = visit().page
    page.goto(site.url)
    for number in range(20):
        site.program.write(f"{number}.txt", b"abc")
    row = page.locator("#providers > ul > li", has_text="netease")
    expect(row).to_contain_text("NetEase's upload node answers 500")
    expect(row).to_contain_text("next try")


def test_pauses_and_the_slider_steer_the_daemon_and_follow_the_commands(site: Site, visit: Visit) -> None:
    site.program.start()
    page = visit().page
    page.goto(site.url)
    page.get_by_role("button", name="1 hour").click()
    expect(page.locator("#resting p")).to_have_text(re.compile(r"Everything rests until (.*, )?\d\d:\d\d\."))
    site.program.write("a.bin", b"a")
    expect(page.locator("#outbox .note")).to_have_text("rests")
    page.locator("#resting").get_by_role("button", name="Resume").click()
    expect(page.locator("#history .rows")).to_contain_text("a.bin")

    page.locator("#providers").get_by_role("button", name="Pause xinhua").click()
    expect(page.locator("#providers > ul > li", has_text="xinhua")).to_contain_text("Rests")
    assert site.program.status()["paused"] == [{"name": "xinhua", "until": None}]
    site.program("resume")
    expect(page.get_by_role("button", name="Resume xinhua")).to_have_count(0)

    slider = page.get_by_role("slider", name="Speed")
    expect(slider).to_have_attribute("aria-valuetext", "no limit")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#rate")).to_have_text("128 MiB/s")
    site.program.until(lambda: site.program.facts("bandwidth")["bytes_per_second"] == 128 * MIB)
    site.program("bandwidth", "3M")
    expect(page.locator("#rate")).to_have_text("3.0 MiB/s")


def test_it_speaks_the_language_of_the_browser_until_told_otherwise(site: Site, visit: Visit) -> None:
    site.program.start()
    page = visit(locale="zh-CN", viewport={"width": 360, "height": 740}, color_scheme="dark").page
    page.goto(site.url)
    expect(page.get_by_role("heading", level=1)).to_have_text("准备就绪，等待第一个文件。")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="English").click()
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready for the first file.")
    assert page.locator("html").get_attribute("lang") == "en"
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to what is on its way")).to_be_focused()
    mute = "() => [...document.querySelectorAll('button, input')].filter((one) => one.checkVisibility() && !one.textContent && !one.ariaLabel && !one.getAttribute('aria-labelledby'))"
    assert page.evaluate(f"({mute})().length") == 0


def test_it_says_when_the_daemon_is_away_and_takes_up_again_when_it_is_back(site: Site, visit: Visit) -> None:
    site.program.start()
    page = visit().page
    page.goto(site.url)
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready for the first file.")
    assert site.program.stop() == 0
    expect(page.get_by_role("heading", level=1)).to_have_text("Not connected.")
    expect(page.locator("#offline")).to_contain_text("The daemon does not answer.")
    site.program.start()
    expect(page.locator("#offline")).to_be_hidden()
    site.program.write("a.bin", b"a")
    expect(page.locator("#history .rows")).to_contain_text("a.bin")


def test_ten_thousand_entries_are_loaded_page_by_page(site: Site, visit: Visit) -> None:
    site.program.start()
    site.program.write("a.bin", b"a")
    assert site.program("wait").returncode == 0
    assert site.program.stop() == 0
    with sqlite3.connect(site.program.state / "journal.db") as journal:
        columns = [row[1] for row in journal.execute("PRAGMA table_info(entries)") if row[1] != "id"]
        chosen = [
            {"name": "CAST('f' || n AS BLOB)", "key": "key || n", "stored_at": "stored_at - n"}.get(one, one)
            for one in columns
        ]
        journal.execute(
            "WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < 10000) "
            f"INSERT INTO entries ({','.join(columns)}) SELECT {','.join(chosen)} FROM entries, count"
        )
    journal.close()
    site.program.start()
    visitor = visit()
    page = visitor.page
    page.goto(site.url)
    rows = page.locator("#history .rows > li")
    expect(rows.nth(49)).to_be_attached()
    assert rows.count() <= 100
    before = rows.count()
    page.mouse.wheel(0, 100_000)
    expect(rows.nth(before + 49)).to_be_attached()
    names = rows.locator(".name").all_text_contents()
    assert len(set(names)) == len(names)
    assert len([url for url in visitor.requests if "/api/history" in url]) < 12


def test_a_replaced_file_is_in_the_history_once_as_it_is_now(site: Site, visit: Visit) -> None:
    program, folder = site.program, site.program.data / "drop/recipe"
    text = program.config.read_text().replace('type = "{mime}"\n', 'type = "{mime}"\nkey = "{key}"\n')
    rules = 'key = "{name}"\non_conflict = "replace"\n'
    program.config.write_text(text.replace("[watch.recipe]\n", f"[watch.recipe]\n{rules}"))
    program.start()
    page = visit().page
    page.goto(site.url)
    rows = page.locator("#history .rows > li")
    for kibibytes, name in ((1, "report.bin"), (2, "report.bin"), (3, "other.bin"), (4, "report.bin")):
        (folder / name).write_bytes(bytes(kibibytes << 10))
        expect(rows.filter(has_text=f"{kibibytes}.0 KiB")).to_have_count(1)
        shown = rows.locator(".name").all_text_contents()
        assert len(set(shown)) == len(shown)
    assert sorted(shown) == sorted(name + mark for name, mark in (("other.bin", "✓"), ("report.bin", "✓")))


def test_a_list_that_could_not_be_had_is_asked_for_again(site: Site, visit: Visit) -> None:
    site.program.start()
    page = visit().page
    page.goto(site.url)
    expect(page.locator("#history .empty")).to_be_visible()
    page.route("**/api/history?*", lambda route: route.abort(), times=2)
    site.program.write("a.bin", b"a")
    expect(page.locator("#history .rows")).to_contain_text("a.bin")


def test_what_the_provider_no_longer_lists_is_marked_while_one_looks(site: Site, visit: Visit) -> None:
    program = site.program
    program.start()
    (program.data / "drop/careyshop/mine.txt").write_bytes(b"mine")
    assert program("wait").returncode == 0
    page = visit().page
    page.goto(site.url)
    mine = page.locator("#history .rows > li", has_text="mine.txt")
    expect(mine).to_be_visible()
    (entry,) = program.facts("history")
    gone = {"vendor": "careyshop", "remove": [int(entry["facts"]["storage_id"])]}
    program.vendors.http.post("/_sandbox/plant", json=gone).raise_for_status()
    assert program("sync", "--remote", "careyshop").returncode == 0
    program.write("another.bin", b"a")  # with which the list is loaded again
    expect(mine.get_by_title("The provider no longer lists it")).to_be_visible()


def test_with_a_token_it_asks_for_it_once(site: Site, visit: Visit) -> None:
    site.configure('token = "open sesame, please"')
    site.program.start()
    visitor = visit()
    page = visitor.page
    page.goto(site.url)
    page.get_by_role("textbox", name="This page needs a token").fill("open sesame, please")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready for the first file.")
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready for the first file.")
    page.evaluate("sessionStorage.clear()")
    page.goto("about:blank")
    page.goto(f"{site.url}/#token=open%20sesame%2C%20please")
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready for the first file.")
    assert page.url == f"{site.url}/"
    assert page.context.cookies() == []
    assert not [url for url in visitor.requests if "sesame" in url.partition("#")[0]]


def test_a_bookmark_with_the_token_opens_the_page_that_asks_for_it(site: Site, visit: Visit) -> None:
    site.configure('token = "open sesame"')
    site.program.start()
    page = visit().page
    page.goto(site.url)
    expect(page.get_by_role("textbox", name="This page needs a token")).to_be_visible()
    page.goto(f"{site.url}/#token=open%20sesame")
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready for the first file.")
    assert page.url == f"{site.url}/"


def test_after_wrong_tokens_the_right_one_opens_at_once(site: Site, visit: Visit) -> None:
    site.configure('token = "open sesame"')
    site.program.start()
    page = visit().page
    page.goto(site.url)
    token, door = page.get_by_role("textbox", name="This page needs a token"), page.get_by_role("button", name="Open")
    began = time.monotonic()
    for said in ("open barley", "open wheat", "open rye", "open oats", "open sesame"):
        token.fill(said)
        door.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready for the first file.")
    assert time.monotonic() - began < 6


def test_a_token_that_no_header_holds_is_asked_for_again_and_one_with_a_percent_sign_is_a_bookmark(
    site: Site, visit: Visit
) -> None:
    site.configure('token = "abc%def+/="')
    site.program.start()
    page = visit().page
    page.goto(site.url)
    token, door = page.get_by_role("textbox", name="This page needs a token"), page.get_by_role("button", name="Open")
    token.fill("令牌")
    door.click()
    token.fill("abc%def+/=")
    door.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready for the first file.")
    visitor = visit()
    for written in ("abc%def+/=", "abc%25def%2B%2F%3D"):
        visitor.page.goto("about:blank")
        visitor.page.goto(f"{site.url}/#token={written}")
        expect(visitor.page.get_by_role("heading", level=1)).to_have_text("Ready for the first file.")
        visitor.page.evaluate("sessionStorage.clear()")
    assert visitor.complaints == []


def test_a_script_that_got_into_the_page_would_not_run(site: Site, visit: Visit) -> None:
    site.program.start()
    page = visit().page
    page.goto(site.url)
    page.evaluate("document.body.append(Object.assign(document.createElement('p'), {id: 'there'}))")
    for attempt in (
        "document.querySelector('#there').innerHTML = '<img src=x onerror=alert(1)>'",
        "document.createElement('script').text = 'alert(1)'",
    ):
        assert (
            page.evaluate(f"() => {{ try {{ {attempt}; return 'ran'; }} catch (error) {{ return error.name; }} }}")
            == "TypeError"
        )
    away = "() => fetch('http://192.0.2.1/').then(() => 'went', (error) => error.name)"
    assert page.evaluate(away) == "TypeError"
