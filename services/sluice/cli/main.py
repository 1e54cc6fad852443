"""The command line `sluice`. It alone may reach both `services` and `models`, each when its command runs."""

import os
from pathlib import Path
from typing import Annotated

import typer

from sluice.cli.errors import WRONG_USAGE, CommandError
from sluice.cli.keras_import import import_keras

_SAFE_MODE = "Refuse a file that holds Python code, as a Lambda layer does."
_FORWARDED = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

# Of commands that ask a gateway, or start one for as long as they run.
Url = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="The gateway that serves NAME.", show_default="one of its own, stopped again afterwards"
    ),
]
OwnModels = Annotated[
    Path | None,
    typer.Option(
        "--models", metavar="DIR", help="Without --url: the folder that holds NAME.", show_default="var/models"
    ),
]

app = typer.Typer(
    name="sluice",
    help="Serve Keras models: sessions for stateful RNNs, rows batched across clients, in front of TensorFlow Serving.",
    epilog="sluice --version says which version this is.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)
models = typer.Typer(help="Build the example models, and look at their data.", no_args_is_help=True)
app.add_typer(models, name="models")


@app.command(context_settings=_FORWARDED)
def serve(context: typer.Context) -> None:
    """Serve models over HTTP and gRPC; `sluice serve --help` lists every setting."""
    from sluice.cli.serve import serve as run

    raise typer.Exit(run(context.args))


@app.command("model-server", context_settings=_FORWARDED)
def model_server(context: typer.Context) -> None:
    """Run the embedded model server alone, with TensorFlow Serving's flags."""
    from sluice.cli.model_server import model_server as run

    raise typer.Exit(run(context.args))


@app.command(context_settings=_FORWARDED)
def evaluator(context: typer.Context) -> None:
    """Evaluate models over HTTP, in a process of its own; `sluice evaluator --help` lists every setting."""
    from sluice.cli.evaluator import evaluator as run

    raise typer.Exit(run(context.args))


@models.command("build")
def build(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Models to build, or one network of one, such as digits_other; all models without names.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder that gets NAME/VERSION.")] = Path("var/models"),
) -> None:
    """Train the example models and export them; what is there from the same sources is kept."""
    from sluice_models.train import UnknownExample, build, is_built

    # Operations this small gain nothing by threads, whose number would change the order of sums and so the weights.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    try:
        if not is_built(names or (), out):
            import_keras("models build")
        build(names or (), out)
    except UnknownExample as error:
        raise CommandError(str(error), WRONG_USAGE) from None


@models.command("data")
def data(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model whose data is wanted.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder that gets the data.")] = Path("var/data"),
) -> None:
    """Write a model's data as CSV, and beside it labelled rows and the request for its evaluation on these."""
    from sluice_models.train import UnknownExample, data

    try:
        typer.echo(data(name, out))
    except UnknownExample as error:
        raise CommandError(str(error), WRONG_USAGE) from None


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="A Keras model, FILE.keras.", metavar="FILE.keras")],
    out: Annotated[Path, typer.Option(metavar="DIR/NAME/VERSION", help="Where to write it, VERSION a whole number.")],
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE_OR_FILE.py", help="Imported first: registers layers of your own."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="A,B,…", help="A classifier's classes, in the order of its logits: it can recognize."),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(metavar="LAYER", help="Layer of output \\[batch, d], by which rows are compared with --train."),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Rows that it was trained on, with a `label`, as `sluice calibrate` takes."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="M", help="A method of --features; may be repeated.", show_default="all"),
    ] = None,
    steps: Annotated[
        bool, typer.Option("--steps", help="Fail if it cannot be run step by step, and so has no sessions.")
    ] = False,
    safe_mode: Annotated[bool, typer.Option(help=_SAFE_MODE)] = True,
) -> None:
    """Export a Keras model so that it can be served, and check what was written against Keras."""
    import_keras("export", file)
    from sluice.cli.export import Recognition, Source, how_to_ask, run

    source = Source(file, imports or (), safe_mode)
    typer.echo(run(source, out, steps, Recognition(classes, features, train, method or ())))
    typer.echo(how_to_ask(out), err=True)


@app.command()
def explain(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FILE.keras|DIR/NAME/VERSION|NAME",
            help="A Keras model, an exported version, or the name of a model that a gateway serves.",
        ),
    ],
    rows: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many rows (samples, whole sequences) you have.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, metavar="B", help="How many rows a batch holds.")] = None,
    steps: Annotated[
        int | None, typer.Option("--time", min=1, metavar="T", help="How many time steps (frames, months) a row has.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The gateway that serves NAME.",
            show_default="NAME in var/models, or else http://127.0.0.1:8080",
        ),
    ] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE_OR_FILE.py", help="Imported first: registers layers of your own."),
    ] = None,
    safe_mode: Annotated[bool, typer.Option(help=_SAFE_MODE)] = True,
) -> None:
    """Say in words and shapes what a model takes, how rows are grouped into batches, and what it remembers."""
    from sluice.cli.explain.command import run
    from sluice.cli.explain.numbers import Numbers

    run(target, Numbers(rows, batch_size, steps), url, imports or (), safe_mode)


@app.command()
def buckets(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of a model that a gateway serves.")],
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The gateway that serves NAME.", show_default="http://127.0.0.1:8080"),
    ] = None,
    lengths: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Lengths to look at instead of those that came: one a line, or columns of a .csv or .npz file. "
            "Without --url no gateway is asked for its bounds.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw lengths and padding too, as .png or .svg.")
    ] = None,
) -> None:
    """Show what lengths a model's sequences have, what their padding costs, and what other bounds would save."""
    from sluice.cli.buckets.command import run

    run(name, url, lengths, plot)


@app.command()
def calibrate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of a classifier.")],
    known: Annotated[
        Path,
        typer.Option(
            metavar="DATA",
            help="Rows of known classes that were not trained on, with a `label`: .npz, .csv, .jsonl, "
            ".parquet, or a folder of these.",
        ),
    ],
    unknown: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Rows of no class: methods are compared, and the best becomes the default."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="M",
            help="A method, or two that must agree, such as knn+energy; may be repeated.",
            show_default="all",
        ),
    ] = None,
    level: Annotated[float, typer.Option(metavar="A", help="The share of known rows that may be rejected.")] = 0.05,
    by_class: Annotated[bool, typer.Option("--by-class", help="Give each class a threshold of its own.")] = False,
    url: Url = None,
    models_dir: OwnModels = None,
    calibrations: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder that gets NAME-VERSION.json; `sluice serve` reads it.")
    ] = Path("var/calibrations"),
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw histograms of scores and ROC too, as .png or .svg.")
    ] = None,
) -> None:
    """Measure how strange known rows look to a classifier, so that `:recognize` can say what it does not know.

    Without --url a gateway and a model server are started for it, and stopped again.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no gateway that answers.
    """
    from sluice.cli.calibrate.command import ALL, Options, run

    run(name, url, models_dir, Options(known, unknown, method or [ALL], level, by_class, calibrations, plot))


@app.command()
def evaluate(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The name of a model; an example model brings its own data.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA",
            help="Rows with a `label`: .npz, .csv, .jsonl, .parquet, or a folder of these; or NAME.evaluation.json, "
            "which names them, the task and more.",
            show_default="the example's, written to var/data",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="T", help="classification, regression, forecasting, sequences or open_set."),
    ] = None,
    url: Url = None,
    models_dir: OwnModels = None,
    batch_sizes: Annotated[
        str | None,
        typer.Option(
            metavar="N,…",
            help="Measure everything again at these batch sizes, to see that only time and memory change.",
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Batches of one shape throughout, so that results are bit-identical.")
    ] = False,
    compare_to: Annotated[int | None, typer.Option(metavar="V", help="Compare with this version, row by row.")] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPR",
            help='"accuracy < 0.97", "accuracy drops > 0.5pt vs 3": ends with code 1 if it holds; may be repeated.',
        ),
    ] = None,
    report: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Write the report as .html, .md or .json; may be repeated."),
    ] = None,
    engine: Annotated[
        str, typer.Option(metavar="E", help="local, or dask: the workers of a Dask cluster ask.")
    ] = "local",
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="With --engine dask: tcp://HOST:PORT.")
    ] = None,
) -> None:
    """Measure a model the way it is served: metrics with intervals, at several batch sizes, against other versions.

    Without --url a gateway and a model server are started for it, and stopped again.

    Exit codes: 0 done, 1 failed or a condition of --fail-if holds, 2 wrong usage, 3 no gateway that answers.
    """
    from sluice.cli.evaluate.command import Where, run
    from sluice.cli.evaluate.request import Flags

    flags = Flags(data, task, batch_sizes, exact, compare_to, fail_if or ())
    run(name, flags, Where(url, models_dir, engine, scheduler), report or ())


@app.command()
def doctor(
    backend: Annotated[str, typer.Option(metavar="HOST:PORT", help="The model server's gRPC port.")],
    models_dir: Annotated[
        Path | None, typer.Option("--models", metavar="DIR", help="Folder whose models are looked at, by their names.")
    ] = None,
    names: Annotated[
        list[str] | None, typer.Option("--model", metavar="NAME", help="A model to look at; may be repeated.")
    ] = None,
    rest: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The model server's REST port, which tells its clock.")
    ] = None,
) -> None:
    """Look at a model server before traffic comes: what it serves, what is risky, whether it batches, too.

    Sends it made-up rows. Exit codes: 0 all is well, 1 something must be mended, 2 wrong usage, 3 not reached.
    """
    from sluice.cli.doctor.command import run

    run(backend, models_dir, names or (), rest)


@app.command()
def demo(
    models_dir: Annotated[
        Path, typer.Option("--models", metavar="DIR", help="Folder of models; built if missing.")
    ] = Path("var/models"),
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder that gets the picture.")] = Path("var/demo"),
    clients: Annotated[
        int, typer.Option(metavar="N", min=1, max=5000, help="Clients at one time, each with a session.")
    ] = 200,
) -> None:
    """Show it: many clients, each with a session of its own, served in shared batches and compared with Keras."""
    from sluice.cli.demo.command import run

    run(models_dir, out, clients)
