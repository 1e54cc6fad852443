"""Where states lie: slots, what is kept in them, and the memory that is given back."""

import math
import mmap
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.policy import slab as slab_module
from sluice.policy.contract import Axis, Signature, State, Tensor
from sluice.policy.slab import BLOCK, Slab, finite_rows

from .puppet import SCAN, STEP

BATCH = Axis("batch")


def signature_of(*states: State, **outputs: Tensor) -> Signature:
    return Signature("step", "step", {}, outputs or {"y": Tensor("y", "int16", (BATCH,))}, states)


def state_of(*shape: int, dtype: str = "float32", initial: Any = 1) -> State:
    return State("h", "h_in", "h_out", dtype, shape, initial)


def slab_of(slots: int = 3, *states: State) -> Slab:
    return Slab("m", 1, signature_of(*states) if states else STEP, slots)


def filled(slab: Slab, slots: int) -> None:
    """Occupy so many slots, each with a state and a last answer of its own, none of them 0."""
    for i in range(slots):
        slot = slab.occupy({"h": np.full(slab.states["h"].shape[1:], i % 100 + 1)})
        assert slot == i
        assert slab.answers is not None
        slab.answers["y"][slot] = i + 1


# Slots


def test_each_slot_is_given_out_once_and_the_lowest_free_one_first() -> None:
    slab = slab_of(5)
    assert [slab.occupy({}) for _ in range(4)] == [0, 1, 2, 3]
    for slot in (2, 0, 1):
        slab.vacate(slot)
    assert [slab.occupy({}) for _ in range(4)] == [0, 1, 2, 4]


def test_a_slab_knows_the_bytes_of_a_state() -> None:
    assert slab_of().row_bytes == 2 * 8 + 8
    assert slab_of(3, state_of(3, 5)).row_bytes == 60


def test_a_slot_begins_with_what_is_given_and_with_the_contracts_values_for_the_rest() -> None:
    slab = slab_of()
    slab.occupy({})
    slab.occupy({"hash": np.array([7.0, 8.0])})
    assert slab.states["hash"].tolist() == [[1, 2], [7, 8], [0, 0]]
    assert slab.states["count"].tolist() == [0, 0, 0]


def test_a_slot_that_is_occupied_again_begins_afresh() -> None:
    slab = slab_of()
    slab.occupy({"hash": np.array([7.0, 8.0]), "count": np.array(5)})
    slab.vacate(0)
    slab.occupy({"hash": np.array([3.0, 4.0])})
    assert (slab.states["hash"][0].tolist(), slab.states["count"][0]) == ([3, 4], 0)


def test_what_is_read_is_a_copy() -> None:
    slab = slab_of()
    slot = slab.occupy({})
    read = slab.read(slot)
    slab.write(slot, {"hash": np.array([5.0, 6.0])})
    assert (read["hash"].tolist(), read["count"].tolist()) == ([1, 2], 0)
    assert slab.read(slot)["hash"].tolist() == [5, 6]


def test_what_is_not_written_stays() -> None:
    slab = slab_of()
    slot = slab.occupy({"count": np.array(5)})
    slab.write(slot, {"hash": np.array([5.0, 6.0])})
    assert slab.read(slot)["count"] == 5


def test_states_are_gathered_by_slot_in_any_order_and_more_than_once() -> None:
    slab = slab_of()
    for i in range(3):
        slab.occupy({"count": np.array(i)})
    assert slab.gather(STEP.states, [2, 0, 2])["count_in"].tolist() == [2, 0, 2]


# Moving


@pytest.mark.parametrize(
    ("slots", "rows"), [([2, 0], [0, 2]), ([2, 0, 1], [0, 1, 2]), ([1], [2]), ([0, 2], [1, 2]), ([], [])]
)
def test_rows_move_to_the_slots_asked_for_and_to_no_others(slots: list[int], rows: list[int]) -> None:
    slab = slab_of(3)
    news = np.array([[1.0, 1], [2, 2], [3, 3]])
    assert slab.move(STEP, slots, rows, {"hash_out": news, "count_out": np.array([1, 2, 3]), "y": news * 10})
    wanted = dict(zip(slots, rows, strict=True))
    for slot in range(3):
        own = wanted[slot] + 1 if slot in wanted else 0
        assert slab.read(slot)["hash"].tolist() == [own, own]
        assert slab.read(slot)["count"] == own
        assert slab.answers is not None
        assert slab.answers["y"][slot].tolist() == [own * 10, own * 10]


def test_the_answers_of_a_scan_are_not_kept_in_the_slab() -> None:
    slab = slab_of(3)
    outputs = {"hash_out": np.array([[1.0, 1]]), "count_out": np.array([1]), "y": np.ones((1, 4, 2))}
    assert not slab.move(SCAN, [1], [0], outputs)
    assert slab.read(1)["hash"].tolist() == [1, 1]
    assert slab.answers is not None
    assert not slab.answers["y"].any()


@pytest.mark.parametrize(
    "output",
    [
        Tensor("y", "string", (BATCH,)),
        Tensor("y", "float32", (BATCH, Axis("words"))),
        Tensor("y", "float32", (BATCH, Axis("time"))),
    ],
    ids=["text", "a free axis", "time"],
)
def test_answers_of_text_or_of_no_fixed_size_are_not_kept_in_the_slab(output: Tensor) -> None:
    signature = signature_of(state_of(2), good=Tensor("good", "float32", (BATCH,)), y=output)
    slab = Slab("m", 1, signature, 3)
    assert slab.answers is None
    assert not slab.move(signature, [0], [0], {"h_out": np.ones((1, 2))})
    assert slab.read(0)["h"].tolist() == [1, 1]


def test_answers_are_kept_in_the_dtypes_of_the_contract() -> None:
    outputs = {"y": Tensor("y", "bfloat16", (BATCH, Axis("a", 2))), "z": Tensor("z", "bool", (BATCH,))}
    slab = Slab("m", 1, signature_of(state_of(2), **outputs), 3)
    assert slab.answers is not None
    assert {name: (array.dtype, array.shape) for name, array in slab.answers.items()} == {
        "y": (np.dtype(ml_dtypes.bfloat16), (3, 2)),
        "z": (np.dtype(bool), (3,)),
    }


# Memory


def test_a_block_is_whole_pages_however_few_bytes_a_row_has() -> None:
    assert BLOCK % mmap.PAGESIZE == 0


@pytest.mark.parametrize("state", [state_of(dtype="int8"), state_of(3), state_of(5, 1, dtype="bool")], ids=str)
def test_memory_is_given_back_when_the_last_slot_of_a_block_is_free_and_not_before(state: State) -> None:
    slots = 2 * BLOCK + 5  # the last block is not whole
    slab = slab_of(slots, state)
    filled(slab, slots)
    assert slab.answers is not None
    before, answers = slab.states["h"].copy(), slab.answers["y"].copy()
    for slot in range(1, BLOCK):
        slab.vacate(slot)
    assert np.array_equal(slab.states["h"], before)
    slab.vacate(0)
    assert not slab.states["h"][:BLOCK].any()
    assert not slab.answers["y"][:BLOCK].any()
    assert np.array_equal(slab.states["h"][BLOCK:], before[BLOCK:])
    assert np.array_equal(slab.answers["y"][BLOCK:], answers[BLOCK:])
    for slot in range(2 * BLOCK, slots):
        slab.vacate(slot)
    assert not slab.states["h"][2 * BLOCK :].any()
    assert np.array_equal(slab.states["h"][BLOCK : 2 * BLOCK], before[BLOCK : 2 * BLOCK])


def test_memory_that_was_given_back_is_used_again_from_the_lowest_slot() -> None:
    slab = slab_of(BLOCK + 2, state_of(3, initial=[1, 2, 3]))
    filled(slab, BLOCK + 1)
    for slot in range(BLOCK):
        slab.vacate(slot)
    assert [slab.occupy({}), slab.occupy({"h": np.array([7, 8, 9])})] == [0, 1]
    assert slab.states["h"][:3].tolist() == [[1, 2, 3], [7, 8, 9], [0, 0, 0]]
    assert slab.states["h"][BLOCK].tolist() == [BLOCK % 100 + 1] * 3


def test_a_block_of_which_few_slots_were_ever_used_is_given_back_too() -> None:
    slab = slab_of(BLOCK, state_of(1025))  # rows that are not whole pages, and never lie in one
    filled(slab, 3)
    for slot in (1, 0, 2):
        slab.vacate(slot)
    assert not slab.states["h"][:4].any()


def test_a_slab_with_fewer_slots_than_a_block_gives_its_memory_back() -> None:
    slab = slab_of(1, state_of(3))
    filled(slab, 1)
    slab.vacate(0)
    assert not slab.states["h"].any()


@pytest.mark.parametrize(
    "state", [state_of(2, dtype="string", initial=b"now"), state_of(0), state_of(2, 0, 3)], ids=str
)
def test_states_of_text_or_of_no_bytes_can_be_kept_and_their_slots_used_again(state: State) -> None:
    slab = slab_of(2, state)
    for _ in range(2):
        assert slab.occupy({}) == 0
        assert slab.read(0)["h"].tolist() == np.full(state.shape, state.initial).tolist()
        slab.vacate(0)


@given(data=st.data())
def test_no_row_in_use_ever_changes_when_others_come_and_go(data: st.DataObject) -> None:
    """A page is a block of 4 rows here; what no block holds any more reads as zeros."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slab_module, "BLOCK", 4)
        slots, state, y = (
            11,
            state_of(mmap.PAGESIZE // 16),
            Tensor("y", "int16", (BATCH, Axis("a", mmap.PAGESIZE // 8))),
        )
        slab, used = Slab("m", 1, signature_of(state, y=y), slots), dict[int, int]()
        for value in range(1, data.draw(st.integers(1, 40))):
            if used and (len(used) == slots or data.draw(st.booleans())):
                slot = data.draw(st.sampled_from(sorted(used)))
                slab.vacate(slot)
                del used[slot]
            else:
                slot = slab.occupy({"h": np.full(state.shape, value)})
                assert slot == min(set(range(slots)) - used.keys())
                used[slot] = value
            for slot, kept in used.items():
                assert (slab.states["h"][slot] == kept).all()
            for block in {slot // 4 for slot in range(slots)} - {slot // 4 for slot in used}:
                assert not slab.states["h"][block * 4 : block * 4 + 4].any()


# Finite rows


def test_rows_are_finite_if_every_state_of_theirs_is() -> None:
    hash_out = np.array([[0, 0], [0, math.nan], [math.inf, 0], [0, 0]])
    outputs = {"hash_out": hash_out, "count_out": np.array([1, 2, 3, 4])}
    assert finite_rows(STEP.states, outputs).tolist() == [True, False, False, True]


def test_states_that_cannot_be_infinite_are_finite() -> None:
    count = [state for state in STEP.states if state.name == "count"]
    assert finite_rows(count, {"count_out": np.array([1, 2])}).tolist() == [True, True]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "complex64"])
def test_every_dtype_that_can_be_infinite_is_looked_at(dtype: str) -> None:
    state = state_of(dtype=dtype)
    news = np.array([1.0, math.nan, -math.inf]).astype(slab_of(1, state).states["h"].dtype)
    assert finite_rows([state], {"h_out": news}).tolist() == [True, False, False]


def test_states_of_no_bytes_are_finite() -> None:
    assert finite_rows([state_of(2, 0)], {"h_out": np.zeros((3, 2, 0))}).tolist() == [True] * 3
