"""The client is light: it can be used where neither the gateway nor TensorFlow is."""

import subprocess
import sys

HEAVY = ("tensorflow", "tensorflow_serving", "keras", "fastapi", "uvicorn")
OURS = ("sluice_models", "sluice.gateway", "sluice.model_server")


def test_the_client_loads_neither_the_gateway_nor_tensorflow() -> None:
    code = f"import sys, sluice.client; print([name for name in {HEAVY + OURS} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
