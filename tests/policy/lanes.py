"""Lanes of one model, and requests' rows that wait in them."""

import numpy as np

from sluice.policy.batch import PRIORITIES, Lane, Ticket

from .puppet import FAR

LANES = [Lane("m", 1, "a"), Lane("m", 1, "b"), Lane("m", 2, "a"), Lane("m", 1, "a", time_bound=4)]
EXACT = LANES[0]._replace(exact=True)
LOW = [each._replace(low=True) for each in (LANES[0], LANES[1], EXACT)]


def ticket_of(rows: int = 1, lane: Lane = LANES[0], deadline: float = FAR, priority: str = "normal") -> Ticket:
    ticket = Ticket(lane, {"x": np.arange(rows)}, rows, deadline)
    ticket.priority_s = PRIORITIES[priority]
    return ticket
