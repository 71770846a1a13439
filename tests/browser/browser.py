"""A headless Chromium that opens pages made by the program, and what it saw: errors, requests, screenshots.

Ends the process with status 77, which CTest counts as skipped, where there is no browser to test with.
"""

import base64
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

skipped = 77


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(skipped)


try:
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
except ImportError as missing:
    skip(f"no Selenium for Python ({missing}); it is in the package python3-selenium")

program = os.environ["TRAINYARD_BINARY"]
root = pathlib.Path(os.environ["TRAINYARD_SOURCE_DIR"])
folder = pathlib.Path(os.environ["TRAINYARD_SCREENSHOTS"])


def trainyard(*arguments):
    subprocess.run([program, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


class Browser:
    def __init__(self, width=1400, height=1000):
        browser = shutil.which("chromium")
        driver = shutil.which("chromedriver")
        if browser is None or driver is None:
            skip("no Chromium; it is in the packages chromium and chromium-driver")
        options = Options()
        options.binary_location = browser
        options.add_argument("--headless=new")
        options.add_argument("--disable-gpu")
        options.add_argument("--disable-dev-shm-usage")
        options.add_argument(f"--window-size={width},{height}")
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        try:
            self.driver = webdriver.Chrome(service=Service(driver), options=options)
        except WebDriverException as failure:
            skip(f"Chromium does not start here: {failure.msg}")
        self.size = (width, height)

    def quit(self):
        self.driver.quit()

    def open(self, page):
        self.resize(self.size[1])
        self.driver.get(pathlib.Path(page).absolute().as_uri())
        self.wait(lambda: self.script("return document.getElementById('page').dataset.ready") == "yes", "the page is drawn")

    def prefer(self, colors):
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": colors}]})

    def move_to(self, selector, x, y, click=False):
        """To a point of an element, from its upper left corner."""
        element = self.find(selector)
        self.script("arguments[0].scrollIntoView({block: 'center'})", element)
        size = element.size
        pointer = ActionChains(self.driver)
        pointer.move_to_element_with_offset(element, round(x - size["width"] / 2), round(y - size["height"] / 2))
        if click:
            pointer.click()
        pointer.perform()

    def script(self, text, *arguments):
        return self.driver.execute_script(text, *arguments)

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def find_all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def button(self, within, text):
        return next(found for found in self.find_all(within + " button") if found.text == text)

    def wait(self, holds, what, seconds=10):
        until = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < until, f"waited for: {what}"
            time.sleep(0.02)

    def chart(self, section, expression, index=0):
        """Of the section's chart, as Chart.js has it: `expression` may use `chart`."""
        return self.script(f"const chart = Chart.getChart(document.querySelectorAll('#{section} canvas')[{index}]); return {expression}")

    def errors(self):
        """What the console has seen since the last call, of warnings and worse."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]

    def requests(self):
        """Whatever was asked for since the last call, from anywhere."""
        messages = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        return [message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"]

    def screenshot(self, name):
        """The whole page, however long: as in a window of that height, in which charts are drawn anew."""
        folder.mkdir(parents=True, exist_ok=True)
        height = min(self.script("return document.documentElement.scrollHeight"), 12000)
        self.resize(height)
        time.sleep(0.3)
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {})
        self.resize(self.size[1])
        (folder / name).write_bytes(base64.b64decode(shot["data"]))

    def resize(self, height):
        # The window of a headless browser has borders, too: what counts is what the page sees.
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": self.size[0], "height": height, "deviceScaleFactor": 1, "mobile": False})
