"""The gateway's own counts, out of its metrics."""

from sluice.client import AsyncClient


async def counted(client: AsyncClient, name: str, label: str) -> float:
    """The sum of a metric's values with a label, such as `model="temperature"`."""
    lines = (await client.metrics()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{") and label in line)
