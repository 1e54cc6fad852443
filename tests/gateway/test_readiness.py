"""When requests should be sent here: the model server is there, and so are the models that must be."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sluice.gateway.upstream.client import VersionStatus
from sluice.gateway.upstream.served import Model
from sluice.model_folder import LAYOUT, Found
from sluice.policy.errors import BackendError, DeadlineExceeded, InputRejected, VersionNotFound
from tests.gateway import puppet as puppets
from tests.gateway.here import Here, eventually, refused, refused_as_tf_serving, running
from tests.gateway.puppet import CONTRACT, Puppet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models folder that names `sum` and `other`, of which the puppet serves the first."""
    for name in ("sum", "other"):
        add(tmp_path / "models", name)
    return tmp_path / "models"


@pytest.fixture
def other(puppet: Puppet, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The puppet knows `other`, too, in one version that cannot be loaded."""
    monkeypatch.setitem(puppets.SIGNATURES, "other", puppets.SIGNATURES["plain"])
    puppet.versions["other"] = [1]
    puppet.states["other", 1] = "END", "its file is cut off"
    return


def add(folder: Path, model: str) -> None:
    (folder / model / "1").mkdir(parents=True)
    (folder / model / "1" / "saved_model.pb").touch()


async def readiness(here: Here) -> tuple[int, dict]:
    response = await here.http.get("/readyz")
    assert ("retry-after" in response.headers) == (response.status_code == 503)
    return response.status_code, response.json()


async def is_ready(here: Here, wanted: bool) -> bool:
    status, body = await readiness(here)
    assert (status == 200) == (body["status"] == "ready") == ("reason" not in body)
    return (status == 200) == wanted


async def is_served(here: Here, model: str) -> bool:
    return bool((await readiness(here))[1]["models"].get(model))


async def trouble_of(here: Here, model: str) -> str | None:
    return (await readiness(here))[1].get("troubled", {}).get(model)


async def health(here: Here) -> list[int]:
    """As load balancers ask: of the Open Inference Protocol the server, and the model `other`."""
    paths = ("/v2/health/ready", "/v2/models/other/ready")
    return [(await here.http.get(path)).status_code for path in paths]


async def test_readiness_follows_the_model_server(tmp_path):
    puppet = Puppet(tmp_path)
    async with running(puppet, reached=False) as here:
        status, body = await readiness(here)
        assert status == 503
        assert body["reason"]
        await puppet.start()
        await eventually(lambda: is_ready(here, True))
        adder = await here.open()
        await adder.goes_on()
        assert (await readiness(here))[1] == {"status": "ready", "backend": puppet.address, "models": {"sum": ["1"]}}
        await puppet.stop()
        await eventually(lambda: is_ready(here, False))
        assert "model server" in (await readiness(here))[1]["reason"]
        assert (await here.http.get("/healthz")).json() == {"status": "alive"}
        refused(await adder.step(), 503, "backend_unavailable")
        await puppet.start()
        await eventually(lambda: is_ready(here, True))
        await adder.goes_on()
        await puppet.stop()


async def test_a_model_server_that_was_never_reached_is_the_trouble_of_each_model_and_told_of_once(
    tmp_path, folder, logs
):
    async with running(Puppet(tmp_path), reached=False, models=folder) as here:
        await eventually(lambda: here.gateway.catalog.gone)
        body = (await readiness(here))[1]
        assert body["troubled"] == dict.fromkeys(["other", "sum"], body["reason"])
    assert [each["event"] for each in logs if each["log_level"] == "warning"] == ["not ready"]


@pytest.mark.usefixtures("other")
async def test_a_model_that_is_broken_from_the_start_is_listed_and_keeps_nobody_from_the_others(puppet, folder):
    async with running(puppet, models=folder) as here:
        status, body = await readiness(here)
        assert (status, body["models"]["sum"]) == (200, ["1"])
        assert body["troubled"] == {"other": "version 1 is END: its file is cut off"}
        assert await health(here) == [200, 503]
        await (await here.open()).goes_on()
        metrics = await here.metrics()
        told = [metrics[f'sluice_model_troubled{{model="{name}"}}'] for name in ("other", "sum")]
        assert (metrics["sluice_ready"], told) == (1, [1, 0])
        del puppet.states["other", 1]
        await eventually(lambda: not here.gateway.catalog.troubles()["other"])
        assert await health(here) == [200, 200]
        assert (await here.metrics())['sluice_model_troubled{model="other"}'] == 0


async def test_a_model_that_comes_keeps_nobody_from_the_others_while_it_loads(puppet, folder, monkeypatch):
    async with running(puppet, models=folder) as here:
        assert await trouble_of(here, "other") == "the model server does not know it"
        add(folder, "new")
        monkeypatch.setitem(puppets.SIGNATURES, "new", puppets.SIGNATURES["plain"])
        puppet.versions["new"], puppet.states["new", 1] = [1], ("LOADING", "")

        async def loads() -> bool:
            return await trouble_of(here, "new") == "version 1 is LOADING"

        await eventually(loads)
        assert await is_ready(here, True)
        del puppet.states["new", 1]
        await eventually(lambda: "new" in here.gateway.catalog.models and here.gateway.catalog.models["new"].served)
        assert await trouble_of(here, "new") is None


@pytest.mark.usefixtures("other")
async def test_a_required_model_must_be_served(puppet, folder):
    async with running(puppet, models=folder, required_models="sum,other") as here:
        status, body = await readiness(here)
        assert (status, body["reason"]) == (503, "model 'other': version 1 is END: its file is cut off")
        assert await health(here) == [503, 503]
        assert (await here.metrics())["sluice_ready"] == 0
        await (await here.open()).goes_on()
        del puppet.states["other", 1]
        await eventually(lambda: is_ready(here, True))


async def test_without_a_folder_required_models_are_waited_for_too(puppet):
    puppet.versions["plain"] = []
    async with running(puppet, required_models="sum,plain") as here:
        assert (await readiness(here))[1]["reason"] == "model 'plain': the model server does not know it"
        puppet.versions["plain"] = [1]
        await eventually(lambda: is_ready(here, True))


async def test_a_folder_that_is_empty_at_first_is_waited_for_and_one_that_is_emptied_is_not_while_its_model_is_served(
    puppet, tmp_path
):
    folder = tmp_path / "models"
    folder.mkdir()
    async with running(puppet, models=folder) as here:
        reason = (await readiness(here))[1]["reason"]
        assert reason == f"there is no model to serve in {folder}: it takes {LAYOUT}, VERSION a whole number"
        add(folder, "sum")
        await eventually(lambda: is_ready(here, True))
        (folder / "sum" / "1" / "saved_model.pb").unlink()
        await eventually(lambda: here.gateway.catalog.unserved)
        assert await is_ready(here, True)


async def test_a_gateway_whose_last_model_is_removed_is_not_ready_until_there_is_one_again(puppet, tmp_path):
    folder = tmp_path / "models"
    add(folder, "sum")
    async with running(puppet, models=folder) as here:
        await eventually(lambda: is_ready(here, True))
        (folder / "sum" / "1" / "saved_model.pb").unlink()
        puppet.versions["sum"] = []

        async def has_none() -> bool:
            status, body = await readiness(here)
            return (status, body.get("reason")) == (503, f"there is no model to serve in {folder}")

        await eventually(has_none)
        assert (await health(here))[0] == 503
        assert (await here.metrics())["sluice_ready"] == 0
        (folder / "sum" / "1" / "saved_model.pb").touch()
        puppet.versions["sum"], puppet.states["sum", 1] = [1], ("LOADING", "")

        async def loads() -> bool:
            return await trouble_of(here, "sum") == "version 1 is LOADING"

        await eventually(loads)
        status, body = await readiness(here)
        assert (status, body["reason"]) == (503, "no model can be called yet")
        del puppet.states["sum", 1]
        await eventually(lambda: is_ready(here, True))


async def test_a_gateway_whose_only_model_is_broken_is_ready(puppet, tmp_path):
    add(tmp_path / "models", "sum")
    puppet.states["sum", 1] = "END", "its file is cut off"
    async with running(puppet, models=tmp_path / "models") as here:
        await eventually(lambda: is_ready(here, True))
        assert await trouble_of(here, "sum") == "version 1 is END: its file is cut off"


async def test_what_lies_in_the_folder_and_is_not_served_is_told_with_what_to_do(puppet, folder, logs):
    (folder / "bare").mkdir()
    (folder / "bare" / "saved_model.pb").touch()
    (folder / "weather.keras").touch()
    reasons = {
        "bare": f"{folder}/bare has no version folder: move what is in it to {folder}/bare/1",
        "weather": f"{folder}/weather.keras is a Keras file: "
        f"export it, `sluice export {folder}/weather.keras --out {folder}/weather/1`",
    }
    async with running(puppet, models=folder) as here:
        assert (await readiness(here))[1]["unserved"] == reasons
        for name, reason in reasons.items():
            for path in (f"/v1/models/{name}/contract", f"/v2/models/{name}"):
                assert f" It is not served: {reason}." in (await here.http.get(path)).json()["error"]
        missing = await here.http.post("/v1/models/bare:predict", json={"instances": [[1]]})
        assert reasons["bare"] in refused_as_tf_serving(missing, 404, "model_not_found")
        await eventually(lambda: [each for each in logs if each["event"] == "not served"])
        (folder / "bare" / "1").mkdir()
        (folder / "bare" / "saved_model.pb").rename(folder / "bare" / "1" / "saved_model.pb")
        await eventually(lambda: here.gateway.catalog.unserved.keys() == {"weather"})
    told = [(each["model"], each["reason"]) for each in logs if each["event"] == "not served"]
    assert told == [*reasons.items()]


async def test_a_folder_that_is_one_model_is_told_of_what_to_name_instead(puppet, folder):
    async with running(puppet, models=folder / "sum") as here:
        status, body = await readiness(here)
        assert (status, body["reason"]) == (503, f"there is no model to serve in {folder}/sum")
        told = f"{folder}/sum is one model: name the folder of all models, --models {folder}"
        assert body["unserved"] == {"sum": told}


async def test_a_contract_that_cannot_be_read_is_trouble_of_its_own_model(puppet, folder, monkeypatch):
    monkeypatch.setitem(CONTRACT, "schema", 99)
    async with running(puppet, models=folder) as here:
        assert await is_ready(here, True)
        assert "contract.schema" in await trouble_of(here, "sum")
        response = await here.http.post("/v1/models/sum/sessions", json={})
        assert "contract.schema" in refused(response, 503, "backend_unavailable")["error"]


async def test_a_model_may_have_a_signature_of_its_own_that_is_named_contract(puppet, monkeypatch):
    monkeypatch.setitem(puppets.SIGNATURES["plain"], "contract", puppets.double)
    async with running(puppet) as here:
        body = {"instances": [[1, 2]], "signature_name": "contract"}
        answer = await here.http.post("/v1/models/plain:predict", json=body)
        assert answer.json() == {"predictions": [[2, 4]]}
        assert "contract" in (await here.http.get("/v1/models/plain/contract")).json()["shapes"]


@pytest.mark.parametrize(
    ("fails", "error"),
    [
        ("versions", BackendError),
        ("contract", BackendError),
        ("contract", DeadlineExceeded),
        ("contract", VersionNotFound),
        ("versions", InputRejected),
        ("contract", InputRejected),
    ],
)
async def test_what_the_model_server_cannot_say_of_one_model_is_trouble_of_that_model(
    puppet, monkeypatch, fails, error
):
    async with running(puppet, required_models="plain") as here:
        backend, catalog = here.gateway.catalog._backend, here.gateway.catalog
        asked = getattr(backend, fails)

        async def stumble(name, *more):
            if name == "sum":
                raise error("as the test told me")
            return await asked(name, *more)

        monkeypatch.setattr(backend, fails, stumble)
        monkeypatch.setattr(catalog, "_look", lambda: Found(Path(), ["sum"]))
        await eventually(lambda: "as the test told me" in catalog.troubles().get("sum", ""))
        assert await is_ready(here, True)
        assert await predict(here) == 200
        monkeypatch.setattr(backend, fails, asked)
        await eventually(lambda: not catalog.troubles()["sum"])
        await (await here.open()).goes_on()


async def test_a_catalog_that_stumbles_keeps_watching(puppet, monkeypatch):
    async with running(puppet) as here:
        await (await here.open()).goes_on()
        backend = here.gateway.catalog._backend
        versions, asked = backend.versions, []

        async def stumble(*args):
            asked.append(args)
            raise RuntimeError("as the test told me")

        monkeypatch.setattr(backend, "versions", stumble)
        await eventually(lambda: len(asked) > 2)
        assert not here.ready
        monkeypatch.setattr(backend, "versions", versions)
        await eventually(lambda: here.ready)


@pytest.mark.parametrize(
    ("statuses", "served", "trouble"),
    [
        ([(1, "AVAILABLE", "")], [1], ""),
        ([(1, "AVAILABLE", ""), (2, "LOADING", "")], [1], ""),
        ([(1, "AVAILABLE", ""), (2, "END", "cut off")], [1], "version 2 is END: cut off"),
        ([(1, "AVAILABLE", "moved, and cut off")], [1], "version 1 is AVAILABLE: moved, and cut off"),
        ([(1, "END", "cut off"), (2, "AVAILABLE", "")], [2], ""),
        ([(1, "END", ""), (2, "LOADING", "")], [], "version 1 is END; version 2 is LOADING"),
        ([], [], "the model server does not know it"),
    ],
)
def test_a_model_is_in_trouble_if_no_version_runs_or_a_newer_one_has_failed(statuses, served, trouble):
    model = Model("m", [VersionStatus(*each) for each in statuses], dict.fromkeys(served))
    assert model.trouble() == trouble


async def predict(here: Here) -> int:
    return (await here.http.post("/v1/models/plain:predict", json={"instances": [[1, 2]]})).status_code


async def forward(here: Here) -> int:
    return (await here.http.get("/v1/models/plain/metadata")).status_code


@pytest.mark.parametrize("call", [predict, forward])
async def test_the_first_call_that_finds_no_model_server_turns_readiness_and_the_next_that_is_answered_turns_it_back(
    puppet, call
):
    async with running(puppet, poll_s=1000) as here:
        assert await call(here) == 200
        await puppet.stop()
        assert await is_ready(here, True)
        assert await call(here) == 503
        await eventually(lambda: is_ready(here, False))
        assert (await health(here))[0] == 503
        await puppet.start()

        async def answered() -> bool:
            return await call(here) == 200

        await eventually(answered)
        assert await is_ready(here, True)


async def test_the_open_inference_protocol_says_of_no_model_that_it_is_ready_without_a_model_server(puppet):
    async with running(puppet, poll_s=1000) as here:
        path = "/v2/models/plain/ready"
        assert (await here.http.get(path)).status_code == 200
        await puppet.stop()
        await predict(here)
        await eventually(lambda: here.gateway.catalog.gone)
        assert (await here.http.get(path)).status_code == 503


async def test_a_model_server_that_says_that_it_is_busy_is_there(puppet):
    import grpc

    async def busy(_):
        return grpc.StatusCode.UNAVAILABLE

    async with running(puppet, poll_s=1000) as here:
        puppet.before = busy
        assert await predict(here) == 503
        here.gateway.catalog._check_connection()
        assert await is_ready(here, True)


@pytest.mark.usefixtures("other")
async def test_a_model_that_loads_is_no_trouble_to_warn_of_and_one_that_fails_is_told_of_once(puppet, folder, logs):
    def told():
        return [(each["model"], each["reason"]) for each in logs if each["event"] == "model in trouble"]

    puppet.states["sum", 1] = ("LOADING", "")
    async with running(puppet, models=folder) as here:
        await eventually(told)
        del puppet.states["sum", 1]
        await eventually(lambda: is_served(here, "sum"))
    assert told() == [("other", "version 1 is END: its file is cut off")]
