"""Chromium without a window, driven through ChromeDriver by the W3C's WebDriver protocol."""

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = [
    *('headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run', 'disable-background-networking'),
    *('disable-component-update', 'disable-sync', 'disable-dev-shm-usage'),
]
END, HOME, RIGHT, ENTER, SPACE = '\ue010', '\ue011', '\ue014', '\ue007', ' '
Element = dict[str, str]  # as the protocol refers to it


class Browser:
    """A session of ChromeDriver; the browser records its requests and what it complains of.

    Args:
        address: of the driver's sessions.
        binary: of the browser.
        profile: an empty folder.
    """

    def __init__(self, address: str, binary: str, profile: Path):
        self.address = address
        chrome = {'binary': binary, 'args': [f'--{flag}' for flag in (*FLAGS, f'user-data-dir={profile}')]}
        logs = {'browser': 'ALL', 'performance': 'ALL'}
        wanted = {'browserName': 'chrome', 'goog:chromeOptions': chrome, 'goog:loggingPrefs': logs}
        self.address += f'/{self.call("", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]}'

    def call(self, command: str, content: dict[str, Any] | None = None, method: str = 'POST') -> Any:
        data = json.dumps(content or {}).encode() if method == 'POST' else None
        headers = {'Content-Type': 'application/json'}
        request = urllib.request.Request(f'{self.address}{command}', data, headers, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)['value']

    def open(self, page: Path) -> None:
        self.call('/url', {'url': page.as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns; its first argument is ``arguments[0]``."""
        return self.call('/execute/sync', {'script': script, 'args': list(arguments)})

    def find(self, selector: str) -> Element:
        """The first element of a CSS selector."""
        return self.call('/element', {'using': 'css selector', 'value': selector})

    def press(self, element: Element, keys: str) -> None:
        self.call(f'/element/{next(iter(element.values()))}/value', {'text': keys})

    def drag(self, element: Element, *places: tuple[int, int]) -> None:
        """Press the mouse at the first place, in pixels from the middle of an element, and release it at the last."""
        moves = [{'type': 'pointerMove', 'origin': element, 'x': x, 'y': y} for x, y in places]
        down, up = ({'type': f'pointer{what}', 'button': 0} for what in ('Down', 'Up'))
        actions = [moves[0], down, *moves[1:], up]
        self.call('/actions', {'actions': [{'type': 'pointer', 'id': 'mouse', 'actions': actions}]})

    def devtools(self, command: str, **settings: Any) -> Any:
        """A command of Chromium's DevTools protocol."""
        return self.call('/goog/cdp/execute', {'cmd': command, 'params': settings})

    def complaints(self) -> list[str]:
        """Messages on the console since the last call."""
        return [entry['message'] for entry in self.call('/se/log', {'type': 'browser'})]

    def requests(self, page: Path) -> list[str]:
        """The URLs that a page has asked for since the last call."""
        found = [json.loads(entry['message'])['message'] for entry in self.call('/se/log', {'type': 'performance'})]
        sent = [message['params'] for message in found if message['method'] == 'Network.requestWillBeSent']
        return [one['request']['url'] for one in sent if one['documentURL'] == page.as_uri()]


@contextmanager
def opened_browser(profile: Path) -> Iterator[Browser]:
    """A browser, until the block ends; the test is skipped where there is none."""
    binary = shutil.which('chromium') or shutil.which('google-chrome')
    driver = shutil.which('chromedriver')
    if not binary or not driver:
        pytest.skip('needs Chromium and ChromeDriver: apt-get install chromium chromium-driver')
    with subprocess.Popen([driver, '--port=0'], stdout=subprocess.PIPE, text=True) as process:
        try:
            started = next(line for line in process.stdout if 'started successfully' in line)
            browser = Browser(f'http://127.0.0.1:{re.search("port ([0-9]+)", started)[1]}/session', binary, profile)
            try:
                yield browser
            finally:
                browser.call('', method='DELETE')
        finally:
            process.terminate()
