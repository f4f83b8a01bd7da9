"""The network of `benchmarks/network.py` does to connections what it says, else nothing would be shown by it."""

import os
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from faulty_network import FaultyNetwork

pytestmark = pytest.mark.skipif(os.name == "nt", reason="it resets connections as Linux does")


@pytest.fixture
def network():
    """The way to a server that answers everything in capital letters."""

    def answer(client):
        with client:
            while data := client.recv(1000):
                client.sendall(data.upper())

    def accept(listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        with FaultyNetwork(listener.getsockname()) as network:
            yield network
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def connected(network):
    with socket.create_connection(("127.0.0.1", network.port), timeout=5) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield client


def ask(client, question=b"begin"):
    client.sendall(question)
    return client.recv(1000)


def test_a_network_that_is_well_passes_everything_on_and_ends_with_the_client(network):
    with connected(network) as client:
        assert ask(client) == b"BEGIN"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1000) == b""


def test_a_reset_meets_every_connection_and_a_new_one_is_well(network):
    with connected(network) as client, connected(network) as another:
        assert ask(client) == ask(another) == b"BEGIN"
        network.reset()
        for each in (client, another):
            with pytest.raises(ConnectionResetError):
                each.recv(1000)
    with connected(network) as client:
        assert ask(client) == b"BEGIN"
    assert network.happened == {"resets": 2, "held": 0}


def test_what_comes_into_a_hole_comes_after_it(network):
    with connected(network) as client:
        network.hole(0.3)
        began = time.monotonic()
        assert ask(client) == b"BEGIN"
        assert time.monotonic() - began >= 0.3


def test_data_take_the_delay_each_way(network):
    with connected(network) as client:
        network.delay = 0.1
        began = time.monotonic()
        assert ask(client) == b"BEGIN"
        assert time.monotonic() - began >= 0.2


def test_what_is_said_in_a_silence_is_lost_and_so_is_its_connection(network):
    with connected(network) as client:
        network.silence(0.2)
        client.sendall(b"begin")
        time.sleep(0.3)
        client.sendall(b"more")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1000)
    with connected(network) as client:
        assert ask(client) == b"BEGIN"


def test_refused_connections_are_refused_and_those_that_stand_are_reset(network):
    with connected(network) as client:
        assert ask(client) == b"BEGIN"
        network.refuse(0.3)
        with pytest.raises(ConnectionResetError):
            client.recv(1000)
    until = time.monotonic() + 5
    with pytest.raises(ConnectionRefusedError):  # noqa: PT012 - the listener may take a moment
        while time.monotonic() < until:
            with connected(network):
                time.sleep(0.01)
    while True:
        try:
            with connected(network) as client:
                assert ask(client) == b"BEGIN"
                return
        except ConnectionRefusedError:
            assert time.monotonic() < until


WRITES = [  # as psycopg sends them
    b"COMMIT",
    b"with taken as (Update trials set state = 'RUNNING' returning trial_id) select trial_id from taken; commit",
    b"P_pg3_1\0with mine as (select 1), new as (insert into trial_values select 1) select 1\0",
]


@pytest.mark.parametrize("write", WRITES)
def test_the_server_does_a_write_whose_answer_is_lost(network, write):
    network.lost_writes = 1
    with connected(network) as client:
        assert ask(client, b"P_pg3_2\0select state from trials for update of t\0")
        with pytest.raises(ConnectionResetError):
            ask(client, write)
    with connected(network) as client:
        assert ask(client, write) == write.upper()
    assert network.happened["lost_writes"] == 1


def test_a_prepared_write_is_known_by_its_name(network):
    with connected(network) as client:
        for name, statement in (b"_pg3_1", b"insert into trials"), (b"_pg3_12", b"select 1"):
            ask(client, b"P" + name + b"\0" + statement + b"\0")
        network.lost_writes = 1
        assert ask(client, b"B\0_pg3_12\0values") == b"B\0_PG3_12\0VALUES"
        with pytest.raises(ConnectionResetError):
            ask(client, b"B\0_pg3_1\0values")


def test_half_an_answer_comes_before_the_reset(network):
    network.cut_answers = 1
    with connected(network) as client:
        assert ask(client, b"12345678") == b"1234"
        with pytest.raises(ConnectionResetError):
            client.recv(1000)
