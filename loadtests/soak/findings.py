"""Judges what a gateway held under a soak: memory and file descriptors flat, its model server back after every kill.

It does not know how it was seen, nor what the users saw; that is judged by the budgets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.soak.figures import Series, TooFew, change
from loadtests.soak.killing import Kill
from loadtests.soak.samples import Sample

MEMORY_CHANGE = 0.02  # of the second quarter's mean
DESCRIPTORS_MORE = 2  # in the last quarter's median, as clients come and go
BACK_S = 120.0
DESCRIPTORS_TELL_S = 60.0  # in a shorter load the users are still coming in its second quarter
MEMORY_TELLS_S = 600.0  # a shorter load does not tell of memory, which in its first minutes grows to what traffic takes
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is asked, and what came of it. `holds` is None if the load does not tell."""

    title: str
    asked: str
    found: str
    holds: bool | None


def memory(process: str, samples: Sequence[Sample], load_s: float) -> Finding:
    """A process's own memory, by the means of the second quarter and of the last; what is resident is told with it.

    Pages of libraries' files are resident as the kernel likes: it takes them back when others need memory.
    """
    title = f"the {process}'s own memory is flat"
    asked = f"the last quarter's mean within {MEMORY_CHANGE:.0%} of the second's"
    at = [each.at_s for each in samples]
    try:
        second, last = Series(at, [each.unique_bytes / MIB for each in samples], load_s).means()
        resident = Series(at, [each.resident_bytes / MIB for each in samples], load_s).means()
        found = (
            f"{last / second - 1:+.2%}, from {second:.1f} to {last:.1f} MiB; "
            f"resident were {resident[0]:.1f}, then {resident[1]:.1f}"
        )
        holds = change((second, last)) <= MEMORY_CHANGE
    except TooFew as error:
        found, holds = str(error), False
    return _told(title, asked, found, holds, samples, load_s, MEMORY_TELLS_S)


def descriptors(process: str, samples: Sequence[Sample], load_s: float) -> Finding:
    """A process's open file descriptors, by the medians of the second quarter and of the last."""
    title = f"the {process}'s file descriptors are flat"
    series = Series([each.at_s for each in samples], [each.descriptors for each in samples], load_s)
    asked = f"the last quarter's median at most {DESCRIPTORS_MORE} above the second's"
    try:
        second, last = series.medians()
        found, holds = f"from {second:g} to {last:g}", last <= second + DESCRIPTORS_MORE
    except TooFew as error:
        found, holds = str(error), False
    return _told(title, asked, found, holds, samples, load_s, DESCRIPTORS_TELL_S)


def _told(
    title: str, asked: str, found: str, holds: bool, samples: Sequence[Sample], load_s: float, tells_s: float
) -> Finding:
    """Of what has to be one process all the time, under a load that tells from `tells_s` on."""
    if load_s < tells_s:
        return Finding(title, asked, f"{found}; so short a load does not tell", None)
    if (processes := len({each.pid for each in samples})) > 1:
        return Finding(title, asked, f"{processes} processes, one after the other", False)
    return Finding(title, asked, found, holds)


def descriptors_left(before: Sample, after: Sample) -> Finding:
    """Open file descriptors when the clients have gone, beside before they came."""
    title, asked = "the gateway's file descriptors are closed", "no more after the load than before it"
    found = f"open were {before.descriptors} before, and {after.descriptors} after"
    return Finding(title, asked, found, after.descriptors <= before.descriptors)


def model_server(kills: Sequence[Kill]) -> Finding:
    """How long the gateway was not ready after its model server had been killed."""
    title, asked = "a model server that is killed comes back", f"ready again within {BACK_S:g} s, every time"
    if not kills:
        return Finding(title, asked, "none was killed", None)
    back = [kill.back_s for kill in kills if kill.back_s is not None]
    found = f"of {len(kills)} came back {len(back)}"
    if back:
        found += f", after {min(back):.0f} to {max(back):.0f} s"
    return Finding(title, asked, found, len(back) == len(kills) and max(back) <= BACK_S)


def sentence(findings: Sequence[Finding]) -> str:
    """In a sentence, what does not hold."""
    if broken := [finding for finding in findings if finding.holds is False]:
        return " ".join(f"It does not hold that {finding.title}: {finding.found}." for finding in broken)
    return f"What is asked holds: {sum(finding.holds is True for finding in findings)} of {len(findings)}."


def unknown(findings: Sequence[Finding]) -> Sequence[str]:
    """What the load does not tell, a sentence each."""
    return [f"Whether {each.title}, this run does not tell: {each.found}." for each in findings if each.holds is None]
