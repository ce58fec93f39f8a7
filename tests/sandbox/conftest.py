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
