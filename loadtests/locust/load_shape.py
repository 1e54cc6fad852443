"""A shape of load as Locust takes it: its users, for as long as the run lasts."""

from locust import LoadTestShape

from loadtests.locust.shapes import Shape

LENGTH_S = 120.0  # of a run without --run-time
_SPAWN_RATE = 100.0  # the most that Locust recommends: the shape says when users come, not Locust


class Load(LoadTestShape):
    """Follows a shape, with Locust's `--users` as the most users and `--run-time` as its length."""

    use_common_options = True
    abstract = True  # or Locust would take it for the shape of every run

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._shape = shape

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        users = self._shape.users(self.get_run_time(), options.run_time or LENGTH_S, options.num_users)
        return None if users is None else (users, _SPAWN_RATE)
