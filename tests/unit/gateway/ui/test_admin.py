"""Who may see what at the admin listener, and what a browser is told of the page."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import PlainTextResponse

from scalellm_trt.gateway.api_keys import KeyRing
from scalellm_trt.gateway.options import GatewayOptions
from scalellm_trt.gateway.ui import files
from scalellm_trt.gateway.ui import state as states
from scalellm_trt.gateway.ui.admin import AdminDoor, admin_app, routes_of_page
from scalellm_trt.gateway.ui.state import Queue, State
from scalellm_trt.gateway.ui.window import Counts, Series

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message

ADMIN_PORT = 2346
LOCAL = GatewayOptions()
OPEN = GatewayOptions(admin_host="0.0.0.0", admin_key="opensesame")
NOTHING = states.Percentiles(count=0, p50=None, p90=None, p99=None)
STATE = State(
    version="1",
    time_s=1.0,
    age_s=2.0,
    workers=1,
    needs_key=False,
    models=[],
    servers=[],
    queue=Queue(running=0, waiting=0, max_running=1, max_waiting=1),
    minute=states.Minute(
        seconds=1.0,
        requests_per_s=0,
        prompt_tokens_per_s=0,
        generation_tokens_per_s=0,
        ttft_ms=NOTHING,
        itl_ms=NOTHING,
        cached_share=None,
        errors={},
        cancelled=0,
    ),
    total=Counts(),
    series=Series(),
)


async def _state() -> State:
    return STATE


def _door(options: GatewayOptions) -> ASGIApp:
    keys = KeyRing(options.api_key, options.key_file)
    return AdminDoor(PlainTextResponse("the API"), admin_app(routes_of_page(_state)), ADMIN_PORT, options, keys)


def _get(
    path: str, options: GatewayOptions = LOCAL, *, port: int = ADMIN_PORT, method: str = "GET", **headers: str
) -> tuple[int, Mapping[str, str], bytes]:
    sent: list[Message] = []
    given = {"host": f"localhost:{port}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "server": ("127.0.0.1", port),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
    }

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def ask() -> None:
        await _door(options)(scope, receive, send)

    asyncio.run(ask())
    raw = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], raw, b"".join(message.get("body", b"") for message in sent[1:])


def test_only_the_admin_listener_has_the_page() -> None:
    status, headers, body = _get("/ui/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"<title>" in body
    assert json.loads(_get("/ui/state.json")[2])["version"] == "1"
    for path in ("/ui", "/ui/", "/ui/state.json", "/ui/main.js", "/admin/drain"):
        assert _get(path, port=2345)[2] == b"the API"


def test_the_admin_listener_has_the_api_too() -> None:
    for path in ("/v1/chat/completions", "/metrics", "/"):
        assert _get(path)[2] == b"the API"


def test_the_page_may_load_its_own_files_and_nothing_else() -> None:
    for name in files.load():
        status, headers, _ = _get(f"/ui/{name}")
        assert status == 200
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert {policy[kind] for kind in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
    assert _get("/ui/state.json")[1]["cache-control"] == "no-store"


def test_the_page_names_no_other_place_and_holds_no_inline_code() -> None:
    directory = files.load()
    assert {"index.html", "style.css", "main.js"} <= directory.keys()
    for name, answer in directory.items():
        text = bytes(answer.body).decode()
        assert "innerHTML" not in text, name
        # SVG's namespace is a name, not an address.
        assert "http" not in text.replace("http://www.w3.org/2000/svg", ""), name
        if name == "index.html":
            assert " style=" not in text
            assert "<style" not in text
            assert text.count("<script") == text.count('<script type="module" src=')


@pytest.mark.parametrize(
    "path", ["/ui/none.js", "/ui/..%2fadmin.py", "/ui/../admin.py", "/ui/sub/x.js", "/uix", "/admin"]
)
def test_there_is_nothing_but_the_page(path: str) -> None:
    status, headers, body = _get(path)
    assert (status, headers["content-type"]) == (404, "application/json")
    assert json.loads(body)["error"]["type"] == "not_found_error"


def test_ui_leads_to_the_page_whose_links_are_relative() -> None:
    status, headers, _ = _get("/ui")
    assert (status, headers["location"]) == (307, "/ui/")


@pytest.mark.parametrize("host", ["localhost:2346", "127.0.0.1:2346", "[::1]:2346", "LOCALHOST", "localhost:7000"])
def test_loopback_answers_to_its_own_names(host: str) -> None:
    assert _get("/ui/state.json", host=host)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:2346", "127.0.0.1.evil.example:2346", "", "10.0.0.1"])
def test_a_name_that_was_pointed_at_loopback_is_refused(host: str) -> None:
    for path in ("/ui/", "/ui/state.json", "/v1/models"):
        assert _get(path, host=host)[0] == 403
    assert _get("/v1/models", port=2345, host=host)[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_web_pages_are_refused_but_a_link_is_followed(site: str) -> None:
    assert _get("/ui/state.json", sec_fetch_site=site, sec_fetch_mode="cors")[0] == 403
    assert _get("/admin/drain", method="POST", sec_fetch_site=site, sec_fetch_mode="navigate")[0] == 403
    assert _get("/ui/", sec_fetch_site=site, sec_fetch_mode="navigate")[0] == 200
    assert _get("/ui/state.json", sec_fetch_site="same-origin")[0] == 200


def test_where_there_is_an_admin_key_all_but_the_page_itself_asks_for_it() -> None:
    assert _get("/ui/", OPEN, host="gateway.example")[0] == 200
    assert _get("/ui/main.js", OPEN)[0] == 200
    for path in ("/ui/state.json", "/admin/drain", "/admin"):
        status, _, body = _get(path, OPEN)
        assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_admin_key")
        assert _get(path, OPEN, authorization="Bearer opensesam")[0] == 401
        assert _get(path, OPEN, authorization="Basic opensesame")[0] == 401
    assert _get("/ui/state.json", OPEN, authorization="Bearer opensesame")[0] == 200


def test_an_open_api_is_not_open_to_everybody_at_an_admin_listener_with_a_key() -> None:
    for path in ("/v1/models", "/predict", "/metrics", "/v2"):
        assert _get(path, OPEN)[0] == 401
        assert _get(path, OPEN, authorization="Bearer opensesame")[2] == b"the API"
    # A client's key is asked for behind the door.
    both = dataclasses.replace(OPEN, api_key="sk-client")
    assert _get("/v1/models", both, authorization="Bearer sk-client")[2] == b"the API"
    assert _get("/metrics", both, authorization="Bearer sk-client")[0] == 401
