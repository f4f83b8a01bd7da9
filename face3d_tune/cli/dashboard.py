"""`face3d-tune dashboard`: look at studies in a browser."""

import click

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.language import say
from face3d_tune.cli.options import artifacts_option, storage_option

TOKEN_VARIABLE = "FACE3D_TUNE_TOKEN"


@click.command(
    cls=Command,
    epilog=example(
        "face3d-tune dashboard --port 0\n"
        "face3d-tune dashboard --host 0.0.0.0 --token auto\n"
        "face3d-tune dashboard --public-url https://tune.example.org --token auto"
    ),
)
@storage_option
@artifacts_option
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    metavar="N",
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--token",
    envvar=TOKEN_VARIABLE,
    show_envvar=True,
    metavar="TEXT",
    help="Token that visitors must send once, as ?token=TEXT; required beyond this machine. `auto` generates one.",
)
@click.option(
    "--public-url",
    "public_urls",
    multiple=True,
    envvar="FACE3D_TUNE_PUBLIC_URL",
    show_envvar=True,
    metavar="URL",
    help="Address that visitors open if a proxy is in front, e.g. https://tune.example.org; may be repeated.  "
    "[default: none]",
)
@click.option(
    "--allow-changes", is_flag=True, help="Allow visitors to steer searches, and to rename and delete studies."
)
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page in a browser.")
def dashboard(
    storage: str,
    artifacts: str | None,
    host: str,
    port: int,
    token: str | None,
    public_urls: tuple[str, ...],
    allow_changes: bool,
    browser: bool,
) -> None:
    """Serve optuna-dashboard on a storage until Ctrl-C."""
    import secrets
    import warnings
    import webbrowser

    import optuna

    from face3d_tune.dashboard.server import make_dashboard
    from face3d_tune.storage.artifacts import Artifacts
    from face3d_tune.storage.database import Storage
    from face3d_tune.system.freed_memory import give_freed_memory_back

    give_freed_memory_back()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = Storage.parse(storage)
    store = None if artifacts is None else Artifacts.parse(artifacts, to_write=False)
    if token == "auto":
        token = secrets.token_hex(16)

    query = f"?token={token}" if token else ""

    def warn(line: str) -> None:
        say(f"warning: {line}", err=True)

    with (
        place.opened() as opened,
        make_dashboard(
            opened,
            host,
            port,
            allow_changes=allow_changes,
            token=token,
            public_urls=public_urls,
            artifacts=store,
            say=warn,
        ) as server,
    ):
        name = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        url = f"http://{name}:{server.server_port}/{query}"
        say(f"dashboard of {place} at {url} (Ctrl-C ends it)")
        for public in public_urls:
            say(f"visitors open {public.rstrip('/')}/{query}")
        if allow_changes:
            warn("visitors can steer searches, and rename and delete studies")
        if browser:
            webbrowser.open(url)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna warns for every plot of a study with few trials
            server.serve_forever()
