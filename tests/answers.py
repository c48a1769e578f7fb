"""What stands in for all servers where the calls themselves are tested."""

import json

from dumbwaiter.errors import Verdict
from dumbwaiter.wire.message import Reply, Request


class Answers:
    """Answers calls from a list, and remembers them."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked: list[Request] = []

    async def call(self, request: Request) -> Reply:
        self.asked.append(request)
        match self.answers.pop(0):
            case Verdict() as verdict:
                raise verdict
            case Reply() as reply:
                return reply
            case answer:
                return Reply(200, {}, json.dumps(answer).encode())
