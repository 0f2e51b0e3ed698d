"""The main path in Firefox, driven by Marionette, its own remote protocol."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from marionette_driver import By, Wait
from marionette_driver.marionette import Marionette, WebElement

from tests.browser.pages import SIZE
from tests.conftest import Serve, encode, photo, require_program
from tests.ports import free_port

_START_TIMEOUT, _TIMEOUT = 120, 60  # s
_PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.enabled": False,
}


def _line(name: str, value: bool | int | str) -> str:
    shown = f'"{value}"' if isinstance(value, str) else str(value).lower()
    return f'user_pref("{name}", {shown});\n'


@pytest.fixture
def firefox(tmp_path: Path) -> Iterator[Marionette]:
    program, port = require_program("firefox-esr", "firefox"), free_port()
    profile = tmp_path / "profile"
    profile.mkdir()
    preferences = {**_PREFERENCES, "marionette.port": port}
    (profile / "user.js").write_text("".join(_line(*one) for one in preferences.items()))
    arguments = ["--headless", "--marionette", "--no-remote", "--profile", str(profile)]
    with (tmp_path / "firefox.log").open("wb") as log:
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
    driver = Marionette(host="127.0.0.1", port=port, startup_timeout=_START_TIMEOUT)
    try:
        driver.start_session(timeout=_START_TIMEOUT)
        yield driver
        driver.delete_session()
    finally:
        driver.cleanup()
        process.terminate()
        process.wait(30)


class _Page:
    """The page of a service, in Firefox."""

    def __init__(self, driver: Marionette, url: str) -> None:
        self._driver = driver
        driver.navigate(url)

    def find(self, selector: str) -> WebElement:
        return self._driver.find_element(By.CSS_SELECTOR, selector)

    def wait_for(self, script: str) -> None:
        """Wait until a JavaScript expression is true."""
        Wait(self._driver, timeout=_TIMEOUT).until(
            lambda driver: driver.execute_script(f"return Boolean({script})"), message=script
        )

    def press(self, keys: str) -> None:
        self.find("body").send_keys(keys)


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket")  # while it connects
def test_main_path_in_firefox(
    firefox: Marionette, service: Serve, empty_list: None, tmp_path: Path
) -> None:
    paths = [tmp_path / f"picture{number}.png" for number in (1, 2)]
    for seed, path in enumerate(paths):
        path.write_bytes(encode(photo(*SIZE, seed), "PNG"))
    page = _Page(firefox, service.url)
    page.wait_for("!document.body.matches('.loading')")
    for path in paths:
        page.find("#file").send_keys(str(path))
    scores = "[...document.querySelectorAll('#rows .figure')].map(({textContent}) => textContent)"
    page.wait_for(f"{scores}.filter((score) => score.endsWith('%')).length === 2")
    page.find("#rows [role=option]").click()
    page.wait_for("document.querySelector('#picture').naturalWidth")
    page.wait_for("document.querySelector('.overlay[data-layer=ai]').naturalWidth")
    page.find("input[name=layer][value=manipulation] + span").click()
    page.wait_for("!document.querySelector('.overlay[data-layer=manipulation]').hidden")
    first = page.find("#detection-title").text
    page.press("j")
    page.wait_for(f"document.querySelector('#detection-title').textContent !== '{first}'")
