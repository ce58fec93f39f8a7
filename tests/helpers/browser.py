"""A real browser for tests of pages: Chromium, driven by selenium; skipped where either is missing."""

import contextlib
import shutil
import socket
import threading
import time

import pytest
import uvicorn

from training.serving.listening import IDLE_SECONDS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
NARROWEST = 600  # pixels of a window


@contextlib.contextmanager
def serving(app):
    """The address of an application that a thread serves."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_keep_alive=IDLE_SECONDS))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        listener.close()


@contextlib.contextmanager
def browser(width=1100, height=800, dark=False):
    """A Chromium window of its own, with its own cookies; logs what it says and requests."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    if not (CHROMIUM and DRIVER):
        pytest.skip("no Chromium with its driver here: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={width},{height}")
    if width < NARROWEST:  # a window cannot be as narrow as a phone
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": {"width": width, "height": height}})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    if dark:
        feature = {"name": "prefers-color-scheme", "value": "dark"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        yield driver
    finally:
        driver.quit()


def wait_for(condition, seconds=20):
    """The first true value of a condition.

    Raises:
        AssertionError: none within this time.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(Exception):  # the page changes while it is read
            if value := condition():
                return value
        time.sleep(0.05)
    raise AssertionError("the page did not get there")
