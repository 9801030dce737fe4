"""The operator's page in a real browser, before a gateway whose server is a fake: it answers with the prompt."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from scalellm_trt.triton import ports
from tests.fakes import browsers, small_tokenizer
from tests.fakes.gateways import END_ID, MODEL, RunningGateway, running, write_repository
from tests.fakes.token_server import TokenServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page, Route

pytestmark = pytest.mark.integration
TIMEOUT_MS = 20_000
LAPTOP, PHONE = (1280, 800), (375, 812)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers.opened() as browser:
        yield browser


@pytest.fixture(scope="module")
def one_server() -> Iterator[TokenServer]:
    server = TokenServer(MODEL, END_ID)
    yield server
    server.close()


@pytest.fixture
def server(one_server: TokenServer) -> TokenServer:
    one_server.reset()
    return one_server


@pytest.fixture(scope="module")
def gateway(one_server: TokenServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    directory = tmp_path_factory.mktemp("gateway")
    with running(write_repository(directory / "repository"), one_server.url, directory / "log") as gateway:
        yield gateway


def _open(browser: Browser, url: str | None, size: tuple[int, int] = LAPTOP, scheme: str = "light") -> Page:
    """Open the page; what it logs as an error, and whom it asks, is kept on it."""
    assert url is not None
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    page.goto(url)
    return page


def _wait(page: Page, condition: str) -> None:
    # A function, since the page forbids what would have to be made of a text.
    page.wait_for_function(f"() => {condition}", timeout=TIMEOUT_MS)


def _ask(page: Page, text: str) -> None:
    page.fill("#prompt", text)
    page.press("#prompt", "Enter")


def _wait_live(page: Page) -> None:
    _wait(page, "document.querySelector('#connection').dataset.state === 'live'")


def _chat(url: str, **fields: object) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], **fields}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20)


def test_the_page_shows_what_the_gateway_does(browser: Browser, server: TokenServer, gateway: RunningGateway) -> None:
    server.num_reused_blocks = 0
    assert gateway.page is not None
    for _ in range(5):
        assert _chat(gateway.url, stream=True, max_tokens=9).status_code == 200
    assert _chat(gateway.url, n=99).status_code == 400
    page = _open(browser, "about:blank")
    errors: list[str] = []
    asked: set[str] = set()
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.add(request.url.split("/ui/")[0]))
    page.goto(gateway.page)
    _wait_live(page)
    _wait(page, "document.querySelector('[data-value=ttft_count]').textContent.endsWith('streams')")
    shown = {
        name: page.inner_text(f"[data-value={name}]")
        for name in ("requests", "tokens", "ttft_p50", "itl_p99", "cached")
    }
    assert all(any(digit.isdigit() for digit in value) for value in shown.values()), shown
    assert page.inner_text("#errors") == "400 × 1"
    assert page.inner_text("#servers tbody .name") == server.url
    assert page.inner_text("#servers tbody .pill") == "Ready"
    _wait(page, "document.querySelector('[data-chart=generation_tokens] .line').getAttribute('d')")
    assert page.is_hidden("#tenants-section")
    assert errors == []
    assert asked == {gateway.page.removesuffix("/ui/")}
    page.context.close()


def test_an_answer_streams_and_tells_its_speed(browser: Browser, server: TokenServer, gateway: RunningGateway) -> None:
    server.step_s = 0.02
    page = _open(browser, gateway.page)
    _wait_live(page)
    assert page.input_value("#model") == MODEL
    page.fill("#max-tokens", "12")
    page.fill("#temperature", "0.5")
    _ask(page, "Where is the sea?")
    _wait(page, "document.querySelector('.said.model').textContent.length > 3")
    assert page.is_visible("#stop")
    _wait(
        page,
        "/first token .* · 12 tokens · .* tokens.s · cut at max tokens/.test("
        "document.querySelector('.speed').textContent)",
    )
    assert page.inner_text(".said.model") == "[user]Where i"
    (request,) = server.requests
    assert (request["max_tokens"], request["temperature"]) == ([12], [0.5])
    assert page.is_hidden("#stop")
    # The next question knows what was said before.
    _ask(page, "And now?")
    _wait(page, "document.querySelectorAll('.speed').length === 2 && !document.querySelector('.open')")
    prompt = small_tokenizer.byte_level().decode(server.requests[1]["input_ids"], skip_special_tokens=False)
    assert prompt == "[user]Where is the sea?[assistant][user]Where i[user]And now?"
    page.click("#clear")
    assert page.is_visible("#empty")
    assert page.locator(".said").count() == 0
    page.context.close()


def test_text_stays_text(browser: Browser, server: TokenServer, gateway: RunningGateway) -> None:
    page = _open(browser, gateway.page)
    _wait_live(page)
    evil = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
    _ask(page, evil)
    _wait(page, "document.querySelector('.speed')?.textContent.includes('complete')")
    assert page.inner_text(".said.user") == evil
    assert page.inner_text(".said.model") == f"[user]{evil}"
    assert page.locator("#messages img, #messages script").count() == 0
    assert page.title() == "ScaleLLM gateway"
    page.context.close()


def test_stop_ends_the_answer_on_the_server_too(browser: Browser, server: TokenServer, gateway: RunningGateway) -> None:
    server.is_endless, server.step_s = True, 0.02
    page = _open(browser, gateway.page)
    _wait_live(page)
    page.fill("#max-tokens", "1000")
    _ask(page, "on and on")
    _wait(page, "document.querySelector('.said.model')?.textContent.length > 5")
    page.click("#stop")
    _wait(page, "document.querySelector('.speed').textContent.endsWith('stopped')")
    assert server.has_left.wait(10)
    assert server.events == ["cancelled"]
    _wait(page, "document.querySelector('[data-value=cancelled]').textContent !== '0'")
    page.context.close()


def test_what_the_gateway_refuses_is_said_and_not_lost(
    browser: Browser, server: TokenServer, gateway: RunningGateway
) -> None:
    server.failure = "the engine died"
    page = _open(browser, gateway.page)
    _wait_live(page)
    _ask(page, "anybody there?")
    _wait(page, "document.querySelector('.failed')?.textContent.includes('the engine died')")
    assert page.input_value("#prompt") == "anybody there?"
    _wait(page, "document.querySelector('#servers .error').textContent.includes('the engine died')")
    page.context.close()


def test_the_page_survives_a_restart_of_the_gateway(browser: Browser, server: TokenServer, tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "repository")
    port, admin_port = ports.free_ports(2)
    options = ("--port", str(port), "--admin-port", str(admin_port))
    with running(repository, server.url, tmp_path / "log", *options) as gateway:
        page = _open(browser, gateway.page)
        _wait_live(page)
        page.evaluate("window.isTheSame = true")
    _wait(page, "document.querySelector('#connection').textContent === 'Not connected'")
    assert "Trying again" in page.inner_text("#lost")
    assert page.title().startswith("Not connected")
    with running(repository, server.url, tmp_path / "log2", *options):
        _wait_live(page)
        assert page.evaluate("window.isTheSame")
        assert page.is_hidden("#lost")
        # Its connections to the page would else be waited for.
        page.context.close()


def test_a_clients_key_is_asked_for_and_kept_only_where_that_is_wanted(
    browser: Browser, server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALELLM_API_KEY", "sk-right")
    with running(write_repository(tmp_path / "repository"), server.url, tmp_path / "log") as gateway:
        page = _open(browser, gateway.page)
        _wait_live(page)
        _ask(page, "hello")
        _wait(page, "document.querySelector('.failed')?.textContent.includes('API key')")
        assert page.is_visible("#api-key")
        page.fill("#api-key", "sk-right")
        page.press("#prompt", "Enter")
        _wait(page, "document.querySelector('.said.model')?.textContent === '[user]hello'")
        assert page.evaluate("Object.keys(localStorage).length") == 0
        page.check("#remember")
        assert page.evaluate("Object.values(localStorage)") == ["sk-right"]
        page.reload()
        _wait_live(page)
        assert page.input_value("#api-key") == "sk-right"
        page.click("#key-box summary")
        page.uncheck("#remember")
        assert page.evaluate("Object.keys(localStorage).length") == 0
        page.context.close()


def test_an_operators_key_unlocks_the_page(
    browser: Browser, server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALELLM_ADMIN_KEY", "opensesame")
    with running(write_repository(tmp_path / "repository"), server.url, tmp_path / "log") as gateway:
        page = _open(browser, gateway.page)
        page.fill("#admin-key", "wrong")
        page.press("#admin-key", "Enter")
        _wait(page, "document.querySelector('#admin-hint').classList.contains('bad')")
        page.fill("#admin-key", "opensesame")
        page.press("#admin-key", "Enter")
        _wait_live(page)
        assert page.is_hidden("#admin")
        _ask(page, "hello")
        _wait(page, "document.querySelector('.said.model')?.textContent === '[user]hello'")
        assert page.evaluate("Object.keys(localStorage).length + Object.keys(sessionStorage).length") == 0
        page.context.close()


def _enrich(route: Route) -> None:
    """Show what larger gateways have: several servers, long names and errors, tenants."""
    answer = route.fetch()
    state = answer.json()
    error = {"message": "no connection to " + "a-long-name." * 9 + "example.net", "time_s": state["time_s"] - 5}
    more = {"url": "a-long-name." * 5 + "example.net:8001", "state": "not ready", "last_error": error}
    state["servers"].append({**state["servers"][0], **more})
    state["tenants"] = [{"name": "acme", "values": {f"metric_{number}": 1e9 for number in range(9)}}]
    state["minute"]["errors"] = {str(code): 1234 for code in range(400, 412)}
    route.fulfill(response=answer, json=state)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_nothing_is_wider_than_the_screen(
    browser: Browser, server: TokenServer, gateway: RunningGateway, size: tuple[int, int], scheme: str
) -> None:
    page = _open(browser, "about:blank", size, scheme)
    page.route("**/state.json", _enrich)
    assert gateway.page is not None
    page.goto(gateway.page)
    _wait_live(page)
    _ask(page, "x" * 200)
    _wait(page, "document.querySelector('.speed')?.textContent.includes('complete')")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= size[0]
    # The tenants' table has as many columns as there are metrics, and scrolls.
    wide = page.evaluate(
        "[...document.querySelectorAll('main *')].filter("
        "e => !e.closest('#tenants') && e.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert wide == 0
    assert page.locator("#servers tbody tr").count() == 2
    assert page.inner_text("#servers tbody tr:nth-child(2) .error").startswith("no connection to")
    assert page.inner_text("#tenants tbody tr .name") == "acme"
    assert page.locator("#tenants th").all_inner_texts() == ["Tenant", *(f"Metric {number}" for number in range(9))]
    page.context.close()


def test_workers_are_one_gateway_on_the_page(browser: Browser, server: TokenServer, tmp_path: Path) -> None:
    server.is_endless, server.step_s = True, 0.01
    options = ("--workers", "2")
    with running(write_repository(tmp_path / "repository"), server.url, tmp_path / "log", *options) as gateway:
        assert gateway.page is not None
        threads = [
            threading.Thread(target=_chat, args=(gateway.url,), kwargs={"stream": True, "max_tokens": 100})
            for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        page = _open(browser, gateway.page)
        _wait(page, "document.querySelector('#about').textContent.startsWith('16 requests, 1,600 tokens · 2 workers')")
        assert page.inner_text("[data-value=ttft_count]") == "16 streams"
        page.context.close()
