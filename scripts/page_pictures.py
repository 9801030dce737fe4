#!/usr/bin/env python3
"""Take the pictures of the operator's page in docs/images, under load, as a laptop and a phone show it.

    scalellm-trt up recipes/cpu.yaml &
    python -m scripts.page_pictures [--gateway http://127.0.0.1:2345] [--page http://127.0.0.1:2346/ui/] [--seconds 75]

`scalellm-trt bench` asks the gateway for as long. Needs Chromium on the PATH and Playwright (the `dev` extra).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = {"laptop": 1280, "phone": 390}
STREAMS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", default="http://127.0.0.1:2345")
    parser.add_argument("--page", default="http://127.0.0.1:2346/ui/")
    parser.add_argument("--seconds", type=float, default=75, help="of load before the pictures are taken")
    parser.add_argument("--tokenizer", help="of the served model, where the repository has several")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="page-pictures-") as name:
        argv = [sys.executable, "-m", "scalellm_trt", "bench", "--target", f"gateway={options.gateway}"]
        argv += ["--concurrency", f"{STREAMS}", "--isl", "64", "--osl", "uniform:min=24,max=96", "--warmup", "0"]
        argv += ["--duration", f"{options.seconds + 20}", "--out", f"{name}/run"]
        argv += ["--tokenizer", options.tokenizer] if options.tokenizer else []
        load = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        try:
            until_s = time.monotonic() + options.seconds
            while time.monotonic() < until_s and load.poll() is None:
                time.sleep(0.2)
            if load.poll() is not None:
                message = f"the load ended by itself, exit code {load.returncode}: {' '.join(argv)}"
                raise SystemExit(message)
            _take(options.page, options.out)
        finally:
            load.terminate()
            load.wait()


def _take(url: str, out: Path) -> None:
    from playwright.sync_api import sync_playwright

    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        message = f"no browser: none of {', '.join(BROWSERS)} is on the PATH (Debian: apt-get install chromium)"
        raise SystemExit(message)
    with sync_playwright() as playwright:
        # Chromium's sandbox does not start for root, and a page of our own is all that it is shown.
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        for name, width in WIDTHS.items():
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="light")
            page.goto(url)
            page.wait_for_timeout(3000)  # it asks each second
            path = out / f"page-{name}.png"
            page.screenshot(path=path, full_page=True)
            print(path)
        browser.close()


if __name__ == "__main__":
    main()
