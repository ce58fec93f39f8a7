import pytest

from training.sandbox import pool


@pytest.fixture(scope="module", params=pool.ISOLATIONS)
def worker(request):
    """A server of each kind of isolation that this system offers."""
    try:
        made = pool.Worker(request.param)
    except (OSError, EOFError) as error:
        pytest.skip(f"this system does not offer {request.param}: {error}")
    made.kind = request.param
    yield made
    made.close()


@pytest.fixture(scope="session", autouse=True)
def ended_pool():
    """The idle servers of the pool end with the session, not only with the process."""
    yield
    pool._close_idle()
