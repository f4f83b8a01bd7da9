"""`face3d-tune dashboard`: look at studies in a browser."""

import click

from face3d_tune.cli.base import Command, example, storage_option


@click.command(cls=Command, epilog=example("face3d-tune dashboard --port 0"))
@storage_option
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    metavar="N",
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page in a browser.")
def dashboard(storage: str, host: str, port: int, browser: bool) -> None:
    """Serve optuna-dashboard on a storage until Ctrl-C."""
    import warnings
    import webbrowser

    import optuna

    from face3d_tune.dashboard import make_dashboard
    from face3d_tune.storage import Storage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = Storage.parse(storage)
    with place.opened() as opened, make_dashboard(opened, host, port) as server:
        url = f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/"
        click.echo(f"dashboard of {place} at {url} (Ctrl-C ends it)")
        if host not in ("127.0.0.1", "localhost", "::1"):
            click.echo("warning: anyone who reaches this address can change and delete studies", err=True)
        if browser:
            webbrowser.open(url)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna has one for every plot of a young study
            server.serve_forever()
