"""The command line: `nightisp`. The only door to Typer.

Exit status: 0 all rendered, 1 a fault of ours, 2 wrong use or parameters, 3 some frames failed, 130 interrupted.
"""

from __future__ import annotations

import os
import sys

import typer

from nightisp import __version__
from nightisp.cli import cache, flow, models, params, raw, stage, weights
from nightisp.cli.compare import compare
from nightisp.cli.doctor import doctor
from nightisp.cli.evaluate import evaluate
from nightisp.cli.report import report
from nightisp.cli.synthesize import synthesize
from nightisp.cli.train import train
from nightisp.cli.ui import ui
from nightisp.errors import NightispError

app = typer.Typer(
    help="Turn raw photographs taken at night into finished sRGB pictures.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(flow.app, name="flow")
app.add_typer(stage.app, name="stage")
app.add_typer(cache.app, name="cache")
app.add_typer(raw.app, name="raw")
app.add_typer(weights.app, name="weights")
app.add_typer(models.app, name="models")
app.add_typer(params.app, name="params")
app.command()(doctor)
app.command()(report)
app.command()(compare)
app.command()(evaluate)
app.command()(train)
app.command()(synthesize)
app.command()(ui)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"nightisp {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: bool = typer.Option(False, "--debug", envvar="NIGHTISP_DEBUG", help="Show tracebacks."),
    _asked: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    os.environ["NIGHTISP_DEBUG"] = "1" if debug else ""


def main() -> None:
    """Run the command line; errors are one line on standard error, with the file, the cause and the remedy."""
    try:
        status = app(prog_name="nightisp", standalone_mode=False)
    except NightispError as error:
        status = _fail(error, 2)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        status = 130
    except typer.TyperException as error:
        show = getattr(error, "show", None)
        show() if show else typer.echo(f"error: {error}", err=True)
        status = error.exit_code
    except SystemExit:
        status = 0  # Typer leaves by itself only when the reader of our output has gone
    except Exception as error:
        status = _fail(error, 1)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(error: Exception, status: int) -> int:
    if os.environ.get("NIGHTISP_DEBUG"):
        raise error
    text = str(error)
    if status == 1:
        text = (
            f"a fault of nightisp: {type(error).__name__}: {text}. `nightisp --debug ...` shows where; please report it"
        )
    typer.echo(f"error: {text}", err=True)
    return status
