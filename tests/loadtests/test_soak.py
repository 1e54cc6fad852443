"""The soak's figures of made-up series, and what is seen, killed and told of real processes."""

import csv
import math
import random
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import psutil
import pytest
import typer

from loadtests.processes import Child, Failed, free_address
from loadtests.soak import findings, page, samples, watching
from loadtests.soak.__main__ import _users, main
from loadtests.soak.figures import Series, TooFew, change
from loadtests.soak.killing import Kill, kill_model_server, kill_times
from loadtests.soak.samples import GATEWAY, LOAD, MODEL_SERVER, Sample, look
from loadtests.soak.watching import Watch, Watched
from sluice.cli.embedded import Embedded
from tests.conftest import MODELS

HOUR = 3600.0
MIB = 2**20


def series(value, load_s=HOUR, every_s=1.0):
    """What a process holds that holds `value(t)` at second t, looked at every second."""
    at = [every_s * number for number in range(1, int(load_s / every_s) + 1)]
    return Series(at, [value(each) for each in at], load_s)


def noise(seed, spread):
    draw = random.Random(seed)
    return lambda: draw.gauss(0, spread)


def flat(_):
    return 150 * MIB


def rising_by(share_an_hour):
    return lambda t: 150 * MIB * (1 + share_an_hour * t / HOUR)


def memory_change(value):
    return change(series(value).means())


def descriptors_growth(value, load_s=HOUR):
    second, last = series(value, load_s).medians()
    return last - second


@pytest.mark.parametrize("direction", [1, -1])
def test_memory_that_moves_changes_by_as_much_as_from_the_middle_of_the_second_quarter_to_that_of_the_last(direction):
    expected = 0.05 * (7 / 8 - 3 / 8) / (1 + direction * 0.05 * 3 / 8)
    assert memory_change(rising_by(direction * 0.05)) == pytest.approx(expected, rel=1e-3)


def test_memory_that_stays_does_not_change():
    assert memory_change(flat) == 0


def test_memory_that_grows_in_rare_steps_changes():
    assert memory_change(lambda t: 150 * MIB + 2 * MIB * (t // 600)) == pytest.approx(6 / 153, rel=0.02)


def test_memory_that_rises_and_falls_again_and_again_does_not_change():
    assert memory_change(lambda t: 150 * MIB + 30 * MIB * (t % 97) / 97) < 0.005


def test_what_a_gateway_takes_at_the_start_does_not_count():
    assert memory_change(lambda t: 150 * MIB - 60 * MIB * math.exp(-t / 120)) < 0.001


@pytest.mark.parametrize("seed", range(5))
def test_noise_neither_hides_a_change_nor_makes_one(seed):
    shaken = noise(seed, 5 * MIB)
    assert memory_change(lambda t: flat(t) + shaken()) < 0.005
    assert memory_change(lambda t: rising_by(0.05)(t) + shaken()) > 0.02


def test_a_quarter_is_found_by_time_not_by_the_number_of_samples():
    dense = series(flat, every_s=0.5).at_s[: int(HOUR)]  # the first half, twice as often
    sparse = [at for at in series(flat).at_s if at > HOUR / 2]
    at = [*dense, *sparse]
    assert Series(at, [1.0 if each < HOUR / 2 else 2.0 for each in at], HOUR).means() == (1.0, 2.0)


def test_a_quarter_without_samples_is_told():
    with pytest.raises(TooFew, match="got none in quarter 2 of 3600 s"):
        Series([1.0, 1000.0, 3000.0][::2], [1.0, 1.0], HOUR).means()


def test_descriptors_that_are_not_closed_grow_even_if_it_is_one_in_five_minutes():
    coming = noise(1, 1.5)
    assert descriptors_growth(lambda t: 60 + round(coming()) + t // 300) == pytest.approx(6, abs=1)
    assert descriptors_growth(lambda t: 60 + t // 5, load_s=60) == 6


@pytest.mark.parametrize("seed", range(5))
def test_descriptors_that_come_and_go_with_clients_do_not_grow(seed):
    coming = noise(seed, 3)
    assert abs(descriptors_growth(lambda t: 60 + round(coming()))) <= 1
    assert abs(descriptors_growth(lambda t: 60 + round(coming()), load_s=60)) <= 2


@pytest.mark.parametrize("load_s", [30, 60, 300, 1000, 3600])
def test_a_model_server_is_killed_once_at_least_and_has_time_to_come_back(load_s):
    for seed in range(20):
        times = kill_times(load_s, seed)
        assert len(times) == max(1, round(load_s / 600))
        assert times == kill_times(load_s, seed)
        part = load_s / len(times)
        gaps = [b - a for a, b in zip([0, *times], [*times, load_s], strict=True)]
        assert min(gaps) >= part / 4
    assert kill_times(load_s, 1) != kill_times(load_s, 2)


# A gateway as far as a soak looks at it: it is ready while its model server runs, which it starts again.
GATEWAY_OF_OURS = textwrap.dedent("""
    import subprocess, sys
    from http.server import BaseHTTPRequestHandler, HTTPServer

    command = [sys.executable, "-c", "import sys; sys.stdin.read()", "-m", "sluice.model_server"]
    start = lambda: subprocess.Popen(command, stdin=subprocess.PIPE)
    model_server = start()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            global model_server
            ready = model_server.poll() is None
            if not ready:
                model_server = start()
            body = b'{"status": "ready"}' if ready else b'{"error": "gone", "code": "unavailable"}'
            self.send_response(200 if ready else 503)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_): ...

    server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print(model_server.pid, flush=True)
    server.serve_forever()
""")


@contextmanager
def gateway_of_ours():
    """It, and the process id of its first model server."""
    address = free_address()
    command = [sys.executable, "-c", GATEWAY_OF_OURS, address.rpartition(":")[2]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            pid = int(process.stdout.readline())
            yield Embedded(f"http://{address}", "grpc://nobody", process), pid
        finally:
            process.kill()  # its model servers end with their standard input


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    for name in ("_EVERY_S", "_SETTLE_S", "_REST_S"):
        monkeypatch.setattr(watching, name, 0.02)


def test_a_look_finds_a_gateway_its_model_server_and_the_load(tmp_path):
    with gateway_of_ours() as (own, pid):
        found = look(psutil.Process(own.process.pid), psutil.Process(), 3.0)
    assert {each.process: each.pid for each in found} == {
        GATEWAY: own.process.pid, MODEL_SERVER: pid, LOAD: psutil.Process().pid
    }  # fmt: skip
    for each in found:
        assert 0 < each.unique_bytes <= each.resident_bytes
        assert each.descriptors >= 3
        assert each.threads >= 1
    samples.write(found, tmp_path / "samples.csv")
    with (tmp_path / "samples.csv").open() as lines:
        assert [each["process"] for each in csv.DictReader(lines)] == [GATEWAY, MODEL_SERVER, LOAD]


def test_the_model_server_of_another_gateway_is_not_killed():
    with gateway_of_ours() as (own, pid), gateway_of_ours() as (_, other):
        assert kill_model_server(psutil.Process(own.process.pid)) == pid
        assert psutil.Process(other).is_running()
        assert kill_model_server(psutil.Process(other)) is None  # which has no children
        assert psutil.Process(other).is_running()


def test_a_watch_sees_the_load_through_and_a_killed_model_server_come_back(tmp_path):
    with gateway_of_ours() as (own, pid):
        watch, told = Watch(own), []
        load = Child([sys.executable, "-c", "import sys; sys.stdin.readline()"], tmp_path / "load.log", apart=True)

        def tell(seen):
            told.append(len(seen.samples))
            if seen.kills and seen.kills[-1].back_s is not None:
                load.stop()

        watch.follow(load, [0.05], tell)
        watch.rest()
    seen = watch.seen
    assert [kill.pid for kill in seen.kills] == [pid]
    assert 0 < seen.kills[0].back_s < seen.load_s
    assert told == sorted(told)
    assert {each.pid for each in seen.of(MODEL_SERVER)} > {pid}
    assert [each.process for each in seen.before] == [each.process for each in seen.after] == [GATEWAY, MODEL_SERVER]
    assert findings.model_server(seen.kills).holds is True


@pytest.mark.parametrize("told", [KeyboardInterrupt, SystemExit])
def test_a_soak_that_is_told_to_stop_ends_the_load_which_writes_what_it_has(tmp_path, told):
    waits = (
        "import time\ntry:\n print('there', flush=True); time.sleep(60)\nexcept KeyboardInterrupt:\n print('written')"
    )
    with gateway_of_ours() as (own, _):
        watch, log = Watch(own), tmp_path / "load.log"
        # Who runs the tests in the background may have SIGINT ignored, and children inherit that.
        load = Child(["env", "--default-signal=INT", sys.executable, "-c", waits], log, apart=True)

        def stop(_):
            if log.read_text():
                raise told

        watch.follow(load, [], stop)
    assert watch.seen.interrupted
    assert load.code == 0
    assert load.last_words() == "written"
    load.stop()


def test_a_gateway_that_ends_is_told(tmp_path):
    with gateway_of_ours() as (own, _):
        watch = Watch(own)
        load = Child([sys.executable, "-c", "import sys; sys.stdin.readline()"], tmp_path / "load.log", apart=True)
        with pytest.raises(Failed, match="the gateway ended with code -9"):
            watch.follow(load, [], lambda _: own.process.kill())
        load.stop()


STATS = "Type,Name,Request Count,Failure Count\nPOST,rows,90,4\n,Aggregated,1200,4\n"
FAILURES = (
    "Method,Name,Error,Occurrences\nPOST,rows,Refused: gone,3\nPOST,steps,Refused: gone,2\nPOST,rows,WrongAnswer,1\n"
)


@pytest.mark.parametrize(
    ("failures", "code", "told", "holds"),
    [
        (FAILURES, 1, "code 1, 1,200 requests; 5 Refused: gone; 1 WrongAnswer", False),
        (FAILURES.partition("\n")[0], 0, "code 0, 1,200 requests; none failed", True),
        (None, 3, "it said: there is no gateway", False),
    ],
)
def test_what_users_saw_is_told_as_locust_counted_it(tmp_path, failures, code, told, holds):
    if failures is not None:
        (tmp_path / "locust_stats.csv").write_text(STATS)
        (tmp_path / "locust_failures.csv").write_text(failures)
    load = SimpleNamespace(code=code, last_words=lambda: "there is no gateway")
    found = _users(load, tmp_path)
    assert (found.found, found.holds) == (told, holds)


def test_a_length_that_is_none_is_wrong_usage(capsys):
    with pytest.raises(typer.BadParameter, match="--length: expected a duration such as 50 ms or 2 s, got '1 year'"):
        main("1 year")
    with pytest.raises(typer.BadParameter, match="--length: expected a second at least, got '10 ms'"):
        main("10 ms")


@pytest.mark.deep
def test_a_short_soak_of_a_real_gateway_finds_nothing_wrong(tmp_path):
    command = [
        sys.executable,
        "-m",
        "loadtests.soak",
        "--length",
        "45s",
        "--models",
        str(MODELS),
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "of 1 came back 1" in done.stderr
    assert done.stdout == f"The page of it: {tmp_path / 'soak.html'}\n"
    for name in ("soak.html", "summary.html", "samples.csv", "memory.svg"):
        assert (tmp_path / name).stat().st_size > 1000


PAUSES = """
from locust.env import Environment
from loadtests.locust.outcomes import Refused, WrongAnswer
from loadtests.locust.users.requests import RowsUser

RowsUser.think_s, RowsUser.host = 0.0, "http://nobody"
user = RowsUser(Environment())
for failure in (WrongAnswer("", ""), Refused("backend_unavailable")):
    user.failed(failure)
    print(user.wait_time(), user.wait_time())
"""


def test_a_user_that_is_refused_waits_a_second_once_as_the_gateway_asks():
    done = subprocess.run([sys.executable, "-c", PAUSES], capture_output=True, text=True)  # Locust patches a process
    assert done.stdout.split() == ["0.0", "0.0", "1.0", "0.0"], done.stderr


def held(load_s, *, mib=lambda t: 100.0, descriptors=lambda t: 50):
    at = range(0, int(load_s), 5)
    return [Sample(t, GATEWAY, 1, int(mib(t) * MIB), int(mib(t) * MIB) // 2, descriptors(t), 9, t / 2) for t in at]


def test_pages_of_files_that_the_kernel_takes_back_are_not_judged():
    shared = [each._replace(resident_bytes=each.resident_bytes - int(each.at_s * MIB / 100)) for each in held(HOUR)]
    found = findings.memory(GATEWAY, shared, HOUR)
    assert found.holds is True
    assert found.found.startswith("+0.00%")
    own = [each._replace(unique_bytes=each.unique_bytes + int(each.at_s * MIB / 100)) for each in held(HOUR)]
    assert findings.memory(GATEWAY, own, HOUR).holds is False


def test_memory_that_changes_by_more_than_two_percent_does_not_hold():
    for rise, holds in ((0.01, True), (0.03, False), (-0.03, False)):
        found = findings.memory(GATEWAY, held(HOUR, mib=lambda t: 100 * (1 + 2 * rise * t / HOUR)), HOUR)
        assert found.holds is holds


def test_a_short_load_does_not_tell_of_memory_but_of_descriptors():
    grown = held(60, mib=lambda t: 100 + t, descriptors=lambda t: 50 + t // 5)
    assert findings.memory(GATEWAY, grown, 60).holds is None
    assert findings.descriptors(GATEWAY, grown, 60).holds is False
    assert findings.descriptors(GATEWAY, held(60), 60).holds is True
    assert findings.descriptors(GATEWAY, grown, 59).holds is None
    assert findings.memory(GATEWAY, [], 60).holds is None


@pytest.mark.parametrize("judged", [findings.memory, findings.descriptors])
def test_a_process_that_was_gone_for_a_quarter_or_started_again_does_not_hold(judged):
    seen = held(HOUR)
    half = len(seen) // 2
    again = [*seen[:half], *(each._replace(pid=2) for each in seen[half:])]
    assert [judged("evaluator", each, HOUR).holds for each in (seen, seen[:half], again)] == [True, False, False]


def test_descriptors_that_are_left_do_not_hold():
    before, after = held(10, descriptors=lambda t: 50 + t // 5)
    assert findings.descriptors_left(before, after).holds is False
    assert findings.descriptors_left(after, before).holds is True


@pytest.mark.parametrize(("back", "holds"), [([5.0, 9.0], True), ([5.0, None], False), ([121.0], False), ([], None)])
def test_every_model_server_that_is_killed_has_to_come_back_in_time(back, holds):
    assert findings.model_server([Kill(100.0 * number, 1, each) for number, each in enumerate(back)]).holds is holds


def test_the_page_says_what_does_not_hold_and_shows_the_whole_time(tmp_path):
    seen = Watched(HOUR, samples=held(HOUR, mib=lambda t: 100 + t / 100), kills=[Kill(600.0, 7, 8.0)])
    found = [findings.memory(GATEWAY, seen.samples, HOUR), findings.model_server(seen.kills)]
    page.write(tmp_path / "soak.html", seen, found, "24 users", {"samples.csv": "every look"})
    text = (tmp_path / "soak.html").read_text()
    assert "It does not hold that the gateway&#39;s own memory is flat" in text
    assert text.count("<svg") == 5
    for words in ("24 users", "of 1 came back 1, after 8 to 8 s", 'href="samples.csv"', "60 min 0 s under load"):
        assert words in text


def test_a_picture_of_memory_stands_alone(tmp_path):
    page.write_memory(tmp_path / "memory.svg", Watched(60, samples=held(60)))
    picture = ET.fromstring((tmp_path / "memory.svg").read_text())
    assert picture.tag.endswith("svg")
    assert "var(--" not in (tmp_path / "memory.svg").read_text()


def test_what_a_run_does_not_tell_is_said_and_fails_nothing(tmp_path):
    seen = Watched(60, samples=held(60))
    page.write(tmp_path / "soak.html", seen, [findings.memory(GATEWAY, seen.samples, 60)], "24 users", {})
    text = (tmp_path / "soak.html").read_text()
    assert "Whether the gateway&#39;s own memory is flat, this run does not tell: +0.00%" in text
    assert "does not hold" not in text


def test_a_line_has_a_gap_where_one_process_took_the_place_of_another():
    one, two = held(10), [each._replace(pid=2, at_s=each.at_s + 10) for each in held(10)]
    assert [value for _, value in page._line([*one, *two], "threads")] == [9, 9, None, 9, 9]
