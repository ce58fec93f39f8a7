"""The address of a server: taken once."""

from messages import refused

from training.serving.listening import listen


def test_a_port_is_taken_once():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with refused("port", port):
            listen("127.0.0.1", port).close()
