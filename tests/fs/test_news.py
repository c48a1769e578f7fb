"""The trees over both databases, and what the mount hears of a change without asking."""

import threading

from sqlalchemy import URL

import journals
from dumbwaiter_fs.news import News
from dumbwaiter_fs.trees import Trees
from fs.world import until
from journals import Book

postgres = journals.postgres
database = journals.database


class Ears:
    def __init__(self) -> None:
        self.trusted = threading.Event()
        self.heard: list[bytes] = []

    def trust(self, *, told: bool) -> None:
        if told:
            self.trusted.set()

    def changing(self) -> None:
        pass

    def everything(self) -> None:
        self.heard.append(b"")

    def replaced(self, path: bytes) -> None:
        self.heard.append(path)


def test_either_database_is_asked_alike_and_tells_of_a_change(database: URL) -> None:
    ears, trees = Ears(), Trees(database)
    news = News(database, trees, ears)
    with Book(database) as book:
        news.start()
        try:
            assert ears.trusted.wait(10)
            book.done("a/film.mov")
            until(lambda: b"files/w/a/film.mov" in ears.heard)
        finally:
            news.close()
        ((name, number, folder),) = trees.names(b"files/w/a")
        spot = trees.spot(b"files/w/a/film.mov")
        assert (name, folder) == (b"film.mov", False)
        assert spot is not None
        assert (spot.number, spot.size) == (number, 10)
        assert trees.numbered(number) == spot
        assert [name for name, _, _ in trees.names(b"files/w")] == [b"a"]
        assert trees.totals() == (1, 10)
        assert trees.changed_ns(b"files/w/a") > 0
    trees.close()
