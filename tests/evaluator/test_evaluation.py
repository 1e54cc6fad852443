"""An evaluation from its data set to its document, through a gateway that runs."""

import asyncio
import hashlib
import os
import tracemalloc
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_squared_error

from sluice.client import AsyncClient
from sluice.evaluator import evaluation, plan
from sluice.evaluator.evaluation import here
from sluice.evaluator.progress import InMemory, Progress
from sluice.evaluator.tasks.task import Values
from sluice.evaluator.work import Work
from sluice.policy.errors import BadRequest, ModelNotFound, VersionNotFound
from tests.evaluator.evaluations import ROWS, Evaluations, Kept, Killed, but_for_the_run, made_up
from tests.gateway.here import running
from tests.gateway.puppet import Puppet


async def test_metrics_are_those_of_scikit_learn(run: Evaluations) -> None:
    document, rows = await run(), made_up()
    predicted, weights = 2 * rows["x"].astype(np.float64), rows["weight"]
    mse = mean_squared_error(rows["label"], predicted, sample_weight=weights)
    assert document.metrics["mse"].value == pytest.approx(mse, rel=1e-9)
    mae = mean_absolute_error(rows["label"], predicted, sample_weight=weights)
    assert document.metrics["mae"].value == pytest.approx(mae, rel=1e-9)
    assert document.data.rows == ROWS
    assert [row[0] for row in document.sections[-1].rows] == ["<img onerror=alert(1)>", "thirds"]


async def test_rows_without_a_weight_count_nowhere(run: Evaluations, puppet: Puppet, tmp_path: Path) -> None:
    puppet.versions["plain"] = [1, 2]
    rows = made_up()
    counted = rows["weight"] > 0
    labels, groups = np.where(counted[:, np.newaxis], rows["label"], 0), np.where(counted, rows["group"], "!")
    poison = {"label": labels, "group": groups}
    np.savez(tmp_path / "all.npz", **{**rows, **poison})  # of 0, the percentage error is NaN
    np.savez(tmp_path / "counted.npz", **{name: column[counted] for name, column in rows.items()})
    found = [await run.of(tmp_path / f"{name}.npz")(compare_to=1) for name in ("all", "counted")]
    assert found[0].metrics["mape"].value is not None
    assert found[0].metrics == found[1].metrics
    assert found[0].sections == found[1].sections
    assert found[0].comparison == found[1].comparison


@pytest.mark.parametrize("batch_size", [7, 100, 1000])
async def test_metrics_are_the_same_at_every_batch_size(run: Evaluations, batch_size: int) -> None:
    assert (await run(batch_size=batch_size)).metrics == (await run()).metrics


async def test_batch_sizes_are_those_that_the_model_server_sees(run: Evaluations, puppet: Puppet) -> None:
    document = await run(batch_sizes=[7, 100, "whole"])
    assert [each.batch_size for each in document.batch_sizes] == [7, 100, ROWS]
    assert all(each.largest_difference == 0 and not each.changed_rows for each in document.batch_sizes)
    assert all(each.metrics["mse"] == document.metrics["mse"].value for each in document.batch_sizes)
    sizes = [rows for _, rows in puppet.batches]
    assert sizes.count(7) >= ROWS // 7
    assert sizes.count(ROWS) == 1
    assert [each["batch_size"] for each in document.run.batch_sizes] == [7, 100, ROWS]
    assert all(each["memory_bytes"] > 1e6 for each in document.run.batch_sizes)


async def test_a_model_whose_answers_change_with_the_batch_is_found_out(run: Evaluations, puppet: Puppet) -> None:
    puppet.twist = lambda outputs: {name: array + (len(array) == 7) * 1e-3 for name, array in outputs.items()}
    document = await run(batch_sizes=[7, 100])
    assert [each.largest_difference > 1e-5 for each in document.batch_sizes] == [True, False]


async def test_exact_batches_all_have_the_same_shape(run: Evaluations, puppet: Puppet) -> None:
    await run(batch_size=32, exact=True)
    assert {rows for _, rows in puppet.batches} == {32}


async def test_a_batch_holds_no_more_rows_than_there_are(run: Evaluations, puppet: Puppet) -> None:
    await run(batch_size=10**9, exact=True)
    assert {rows for _, rows in puppet.batches} == {ROWS}


async def test_data_that_changes_meanwhile_is_not_reported_under_its_old_checksum(
    run: Evaluations, tmp_path: Path
) -> None:
    def change(_: Progress) -> None:
        os.utime(tmp_path / "rows.npz", ns=(0, 0))

    with pytest.raises(BadRequest, match="it has changed since"):
        await run(None, change)


@pytest.mark.parametrize("where", ["look", "findings"])
async def test_a_cancelled_evaluation_leaves_no_thread_at_work(
    run: Evaluations, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    begun, ended = Event(), Event()

    def endless(*given: Any) -> None:
        *_, go_on = given
        begun.set()
        try:
            while True:
                go_on()
        finally:
            ended.set()

    monkeypatch.setattr(evaluation, where, endless)
    asked = asyncio.create_task(run())
    await asyncio.to_thread(begun.wait)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert await asyncio.to_thread(ended.wait, 10)


@pytest.mark.parametrize("parts", [0, 1, 3])
async def test_an_evaluation_that_was_killed_goes_on_where_it_was(run: Evaluations, puppet: Puppet, parts: int) -> None:
    asked = {"batch_size": 50, "exact": True, "batch_sizes": [50, 125]}
    whole = await run(**asked)
    kept = Kept(limit=parts)
    with pytest.raises(Killed):
        await run(kept, **asked)
    there = set(kept.parts)
    assert len(there) == parts
    kept.limit = None
    told = list[Progress]()
    assert but_for_the_run(await run(kept, told.append, **asked)) == but_for_the_run(whole)
    assert told[-1].rows_done == told[-1].rows == 3 * ROWS
    assert told[0].rows_done > len(there)


async def test_progress_only_grows_and_ends_with_all_rows(run: Evaluations) -> None:
    told = list[Progress]()
    await run(None, told.append, batch_sizes=[100])
    done = [each.rows_done for each in told]
    assert done == sorted(set(done))
    assert told[-1] == Progress(2 * ROWS, 2 * ROWS, told[-1].rows_per_s, 0.0)


async def test_a_version_is_compared_with_another_row_by_row(run: Evaluations, puppet: Puppet) -> None:
    puppet.versions["plain"] = [1, 2]
    document = await run(version=2, compare_to=1, fail_if=["mae rises > 0 vs 1", "mse > 100"])
    assert document.comparison is not None
    assert document.comparison.differences["mae"].value == 0.0
    assert [gate.failed for gate in document.gates] == [False, False]


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        ({"model": "plane"}, ModelNotFound, "no model .plane.; the gateway serves"),
        ({"version": 9}, VersionNotFound, "no version 9; it has version 1"),
        ({"compare_to": 9}, VersionNotFound, "version 9"),
        ({"label": "stable"}, VersionNotFound, "no label 'stable'"),
        ({"options": {"signature": "nothing"}}, BadRequest, "no signature 'nothing'; it has .*serving_default"),
        ({"fail_if": ["maes > 1"]}, BadRequest, "did you mean 'mae'"),
        ({"metrics": ["accuracy"]}, BadRequest, "accuracy"),
        (
            {"data": {"path": "rows.npz", "sha256": "A" * 64}},
            BadRequest,
            r"data\.sha256: expected data of the SHA-256 a{64}; that of .*rows\.npz is [0-9a-f]{64}\. It is damaged or",
        ),
        ({"columns": {"label": "truth"}}, BadRequest, "expected the column truth for the label; got .*x"),
        (
            {"columns": {"inputs": {"x": "label"}}},
            BadRequest,
            'expected a column \'label\', .*; got x, label, group, weight.* "columns": {"label": "x"}; over HTTP, in',
        ),
        ({"task": "sequences"}, BadRequest, r"y is float32 .*\. Is the task (classification|regression)\?"),
    ],
)
async def test_what_cannot_be_evaluated_says_why_before_anything_runs(
    run: Evaluations, puppet: Puppet, fields: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        await run(**fields)
    assert not puppet.batches


async def test_only_the_metrics_that_are_asked_for_are_reported(run: Evaluations) -> None:
    document = await run(metrics=["mse"], fail_if=["mae > 0.001"])
    assert set(document.metrics) == {"mse", "mae"}
    assert document.failed


async def test_parts_of_another_version_or_of_other_data_are_not_taken_for_those_that_are_missing(
    run: Evaluations, puppet: Puppet
) -> None:
    puppet.versions["plain"] = [1, 2]
    kept = Kept(limit=1)
    with pytest.raises(Killed):
        await run(kept, version=1)
    kept.limit = None
    told = list[Progress]()
    assert (await run(kept, told.append)).version == 2
    assert told[-1].rows_done == ROWS
    assert len(kept.parts) == 1 + len(told)


async def test_parts_that_were_cut_otherwise_are_not_taken_for_those_that_are_missing(
    run: Evaluations, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, whole = Kept(limit=1), await run()
    with pytest.raises(Killed):
        await run(kept)
    kept.limit = None
    monkeypatch.setattr(plan, "_ROWS_IN_PART", 700)  # as another version of the evaluator may have it
    assert (await run(kept)).metrics == whole.metrics


async def test_a_batch_has_no_more_rows_than_the_data(run: Evaluations, puppet: Puppet) -> None:
    document = await run(batch_size=10**12, exact=True)
    assert [rows for _, rows in puppet.batches] == [ROWS]
    assert document.metrics == (await run()).metrics


async def test_no_more_rows_are_read_at_once_than_memory_has_room_for(
    run: Evaluations, puppet: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_NUMBERS_IN_BATCH", 1000)
    document = await run(batch_sizes=[500, "whole"])
    assert [each.batch_size for each in document.batch_sizes] == [500]
    assert (
        f"Batches of {ROWS} rows cannot be measured: rows like these are read 500 at a time at most." in document.notes
    )
    assert max(rows for _, rows in puppet.batches) == 500
    with pytest.raises(BadRequest, match=r"batch_size.*501 rows"):
        await run(batch_size=501)


async def test_a_batch_size_that_the_gateway_does_not_take_is_left_out_and_told(puppet: Puppet, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", **made_up())
    told = list[Progress]()
    async with running(puppet, body_bytes=1500) as here:
        evaluations = Evaluations(f"http://127.0.0.1:{here.port}", tmp_path / "rows.npz")
        document = await evaluations(None, told.append, batch_size=25, batch_sizes=[25, 100])
    assert [each.batch_size for each in document.batch_sizes] == [25]
    assert any(note.startswith("Batches of 100 rows were not measured: ") for note in document.notes)
    assert told[-1].rows_done == 2 * ROWS


async def test_the_model_is_described_once_however_many_parts_there_are(
    run: Evaluations, puppet: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    puppet.versions["plain"] = [1, 2]
    described, signatures = list[int](), AsyncClient.signatures

    async def counted(client: AsyncClient, model: str, *, version: int) -> Any:
        described.append(version)
        return await signatures(client, model, version=version)

    monkeypatch.setattr(AsyncClient, "signatures", counted)
    await run(version=2, compare_to=1, batch_sizes=[100, 500])
    assert described == [2, 1]


async def test_memory_does_not_grow_with_the_number_of_batch_sizes(
    run: Evaluations, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def doubled(client: AsyncClient, model: str, rows: Any, *_: Any, **which: Any) -> Any:
        return {"y": 2 * rows["x"]}

    async def wide(work: Work, numbers: Sequence[int]) -> AsyncGenerator[tuple[int, Values]]:
        async for number, values in here(work, numbers):
            yield number, {**values, "wide": np.zeros((len(values["place"]), 1000))}

    async def peak_of(*sizes: int) -> int:
        tracemalloc.start()
        await run(InMemory(), batch_size=500, batch_sizes=sizes, engine=wide)
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    monkeypatch.setattr(AsyncClient, "predict", doubled)
    assert await peak_of(500, 501, 502, 503) < 1.1 * await peak_of(500)


async def test_data_may_be_named_with_its_checksum(run: Evaluations, tmp_path: Path) -> None:
    sha256 = hashlib.sha256((tmp_path / "rows.npz").read_bytes()).hexdigest()
    assert (await run(data={"path": "rows.npz", "sha256": sha256.upper()})).data.sha256 == sha256
