"""A client on a bad line: it sends its request and takes its answer in pieces, over seconds; others must not notice."""

from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from urllib.parse import urlsplit

import gevent
from locust import tag, task

from loadtests.locust import outcomes
from loadtests.locust.outcomes import Failure
from loadtests.locust.scenarios import SLOW
from loadtests.locust.users.asking import TIMEOUT_S, Call, HttpUser
from loadtests.traffic.exchange import Exchange
from loadtests.traffic.models import TEMPERATURE

_PIECES, _PAUSE_S = 10, 0.1  # of a request, and of its answer


class SlowUser(HttpUser):
    """Has whole series forecast over a line that takes a second each way; the time between is what counts."""

    models = (TEMPERATURE,)
    fixed_count = 1

    @tag("slow", "sequences", "http")
    @task
    def forecast(self) -> None:
        asked = self.following(self.traffic.sequences)
        with suppress(Failure), self.told("slow", SLOW, asked.path) as call:
            answer, body = self._asked(asked, call)
            if code := answer.headers.get("sluice-code"):
                raise outcomes.refused(code, asked.path, body.decode(errors="replace"))
            if answer.status != asked.status:
                raise outcomes.Refused(f"status {answer.status}")
            asked.check(body)

    def _asked(self, asked: Exchange, call: Call) -> tuple[HTTPResponse, bytes]:
        try:
            with closing(HTTPConnection(urlsplit(self.host).netloc, timeout=TIMEOUT_S)) as connection:
                connection.putrequest(asked.method, asked.path)
                connection.putheader("Content-Type", asked.content_type)
                connection.putheader("Content-Length", str(len(asked.body)))
                connection.endheaders()
                size = -(-len(asked.body) // _PIECES)
                for start in range(0, len(asked.body), size):
                    gevent.sleep(_PAUSE_S)
                    connection.send(asked.body[start : start + size])
                call.sent()
                answer, body = connection.getresponse(), b""
                call.answered(answer.length or 0)
                size = -(-(answer.length or 0) // _PIECES)
                while piece := answer.read(size):
                    body += piece
                    gevent.sleep(_PAUSE_S)
                return answer, body
        except (OSError, HTTPException) as error:
            raise outcomes.unreachable(error) from None
