"""A dashboard that is served, what a visitor asks it, and studies to show."""

import gzip
import http.client
import json
import math
import socket
import threading
from contextlib import contextmanager
from unittest.mock import patch
from uuid import uuid4

import optuna
from stored_study import add_trial, our_study

from face3d_tune.dashboard import shown_study
from face3d_tune.dashboard.server import make_dashboard


@contextmanager
def serving(storage, **how):
    """A server that answers until the block ends, with the notes of now also on a busy machine."""
    with patch.object(shown_study, "SLOW", math.inf), make_dashboard(storage, **how) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()


def ask(made, path, method="GET", **headers):
    """(status, headers, body); a header that is None is not sent."""
    connection = http.client.HTTPConnection("127.0.0.1", made.server_port, timeout=60)
    given = {"Host": f"127.0.0.1:{made.server_port}", "Accept_Encoding": "gzip"} | headers
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in given.items():
            if value is not None:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def detail(made, study_id=1, after=0):
    status, headers, body = ask(made, f"/api/studies/{study_id}?after={after}")
    assert (status, headers["Content-Encoding"]) == (200, "gzip"), body
    return json.loads(gzip.decompress(body)), headers


def ours(storage, *cosines, name="faces", **how):
    study = our_study(storage, name, id=uuid4().hex)
    for cosine in cosines:
        add_trial(study, "COMPLETE", [cosine], lr=1e-3 * cosine, **how)
    return study


def theirs(storage, *values, name="theirs"):
    study = optuna.create_study(storage=storage, study_name=name)
    for value in values:
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr(f"seen_{value}", value)
        study.tell(trial, value)
    return study


def begin(made, sent):
    visitor = socket.create_connection(("127.0.0.1", made.server_port), timeout=60)
    visitor.sendall(sent)
    return visitor
