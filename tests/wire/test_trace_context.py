"""Which traces are passed on, and which headers are of no use."""

import pytest

from sluice.wire.trace_context import read_trace

ID, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{ID}-{SPAN}-01"


def read(*parents: str, states: tuple[str, ...] = ()):
    headers = [("host", "a"), *(("traceparent", each) for each in parents), *(("tracestate", each) for each in states)]
    return read_trace([(name.encode(), value.encode("latin-1")) for name, value in headers])


def test_a_trace_is_passed_on_as_it_came():
    trace = read(PARENT, states=("a=1,b=2",))
    assert trace is not None
    assert (trace.id, trace.metadata) == (ID, (("traceparent", PARENT), ("tracestate", "a=1,b=2")))


def test_a_state_that_comes_in_parts_is_one():
    assert read(PARENT, states=("a=1", "", "b=2")).metadata[1:] == (("tracestate", "a=1,b=2"),)


@pytest.mark.parametrize("state", ["a=\x01", "a=é", "a=" + "1" * 511])
def test_a_state_that_cannot_be_passed_on_is_left_out_and_its_trace_is_not(state):
    assert read(PARENT, states=(state,)).metadata == (("traceparent", PARENT),)


def test_a_later_version_may_say_more():
    assert read(f"cc-{ID}-{SPAN}-01-what-else").id == ID


@pytest.mark.parametrize(
    "parents",
    [
        (),
        ("",),
        ("nonsense",),
        (PARENT, PARENT),  # of which one is somebody else's
        (PARENT.upper(),),
        (f"00-{'0' * 32}-{SPAN}-01",),
        (f"00-{ID}-{'0' * 16}-01",),
        (f"ff-{ID}-{SPAN}-01",),
        (f"{PARENT}-more",),
        (f"cc-{ID}-{SPAN}-01.more",),
        (f"cc-{ID}-{SPAN}-01-" + "m" * 500,),
        (PARENT[:-1],),
        (f"{PARENT}\x00",),
    ],
)
def test_what_is_no_trace_is_ignored(parents):
    assert read(*parents) is None
