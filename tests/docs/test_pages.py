"""The pages of docs/ refer to existing settings, routes, files, links, log events and versions."""

from __future__ import annotations

import json
import re
import time
import tomllib

import pytest
from typer.testing import CliRunner

from app.command.cli import app as cli
from app.command.scan.table import schema
from app.contract.settings import CONFIG_VARIABLE, SECRETS_VARIABLE, Settings
from app.contract.signing import SigningSecrets
from app.http import examples
from app.http.api import documented
from app.webhooks.events import FinishedEvent
from tests.app.test_imports import WALLS
from tests.deploy.promql import DASHBOARDS, alerts, panels
from tests.deploy.promql import documented as metrics
from tests.docs.files import PAGES, ROOT, blocks

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
SETTINGS = {f"GAMMA_{name.upper()}" for name in Settings.model_fields}
OTHER_VARIABLES = {  # of the files in deploy/, of examples, and of Kubernetes
    *(CONFIG_VARIABLE, SECRETS_VARIABLE, "GAMMA_KEY", "GAMMA_REDIS_SERVICE_HOST"),
    *("GAMMA_PUBLISHED_ADDRESS", "GAMMA_PUBLISHED_PORT"),
}
SOURCES = "\n".join(
    file.read_text()
    for folder in ("app", "model", "pictures", "training", "worker")
    for file in (ROOT / folder).rglob("*.py")
)
PROVENANCE = "\n".join(file.read_text() for file in (ROOT / "pictures/provenance").rglob("*.py"))
each_page = pytest.mark.parametrize("page", PAGES)


def test_the_table_of_settings_is_that_of_the_command() -> None:
    table = CliRunner().invoke(cli, ["settings"], catch_exceptions=False).output
    assert len(table.splitlines()) == len(Settings.model_fields) + 2
    assert PAGES["docs/settings.md"].endswith(f"\n\n{table}"), (
        "replace the table by the output of: gamma settings"
    )


@each_page
def test_a_page_names_settings_that_exist(page: str) -> None:
    named = set(re.findall(r"GAMMA_[A-Z_]+[A-Z](?![A-Z_*])", PAGES[page]))
    assert named <= SETTINGS | OTHER_VARIABLES


def test_the_table_of_calls_has_every_call() -> None:
    rows = re.findall(r"^\| (`(?:GET|POST|PUT|DELETE) /.*?) \|", PAGES["docs/api.md"], re.MULTILINE)
    table = {call for row in rows for call in re.findall(r"`(.*?)`", row)}
    document = {
        f"{method.upper()} {path}"
        for path, operations in documented().openapi()["paths"].items()
        for method in operations
    }
    names = {"{id}": "{detection_id}", "{ai,manipulation}": "{head}"}
    for shown, name in names.items():
        table = {call.replace(shown, name) for call in table}
    assert table == document | {"GET /docs", "GET /"}


def test_the_tables_of_an_upload_have_every_field_and_view() -> None:
    form = documented().openapi()["paths"]["/v1/detections"]["post"]["requestBody"]
    properties = form["content"]["multipart/form-data"]["schema"]["properties"]
    upload = PAGES["docs/api.md"].partition("\n## Upload\n")[2].partition("\n## ")[0]
    fields, views, *_ = re.findall(r"^\|---.*\n((?:\|.*\n)+)", upload, re.MULTILINE)
    listed = re.findall(r"^\| `(\w+)`", fields, re.MULTILINE)
    assert sorted(listed) == sorted(set(properties) - {"file"})
    assert sorted(re.findall(r"^\| `(\w+)`", views, re.MULTILINE)) == sorted(
        Settings.model_fields["default_view"].annotation.__args__
    )


@each_page
def test_links_lead_somewhere(page: str) -> None:
    for text, link in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", PAGES[page]):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), (text, link)
        if anchor:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in [_anchor(title) for title in titles], (text, link)


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@each_page
def test_paths_exist(page: str) -> None:
    """Paths in code spans that begin with one of the folders, such as `app/static/words.js`."""
    folders = "app|benchmarks|clients|configs|deploy|docs|model|pictures|tests|training|worker"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", PAGES[page]):
        assert (ROOT / path).exists() or path in MADE, path


def test_the_packages_are_those_of_the_import_rule() -> None:
    rows = re.findall(
        r"^\| `([\w.]+)` \| [^|]+ \| ([^|]+) \|$", PAGES["docs/architecture.md"], re.MULTILINE
    )
    assert {package: tuple(re.findall(r"`(.+?)`", may)) for package, may in rows} == WALLS


def test_the_places_of_a_change_have_what_is_named() -> None:
    """A name in the first column, such as an alert, is in a file of the second."""
    table = PAGES["docs/architecture.md"].partition("\n## Where to change what\n")[2]
    rows = re.findall(r"^\| ([^|]+) \| (`[^|]+`) \|$", table, re.MULTILINE)
    assert len(rows) > 20
    for what, where in rows:
        files = [ROOT / path for path in re.findall(r"`(.+?)`", where)]
        assert all(file.exists() for file in files), where
        for name in re.findall(r"`(.+?)`", what):
            assert any(name in file.read_text() for file in files), (name, where)


MADE = {"deploy/secrets/"}
"""Paths that only exist once a command was run."""


def operating_texts() -> dict[str, str]:
    """What operators read: pages and runbooks, and the texts of alerts and dashboards."""
    pages = {page: text for page, text in PAGES.items() if page.startswith(("docs/", "SEC"))}
    pages = {page: text for page, text in pages.items() if not page.startswith("docs/training")}
    texts = {page: " ".join(re.findall(r"`([^`\n]+)`", text)) for page, text in pages.items()}
    summaries = [alert["annotations"]["summary"] for alert in alerts().values()]
    texts["deploy/prometheus/rules.yml"] = "\n".join(summaries)
    for name, dashboard in DASHBOARDS.items():
        texts[name] = "\n".join(panel["description"] for panel in panels(dashboard))
    return texts


@pytest.mark.parametrize(("where", "text"), operating_texts().items(), ids=operating_texts())
def test_log_events_exist(where: str, text: str) -> None:
    """Every `snake_case` word is a log event that the code writes, or one of these others."""
    words = set(re.findall(r"(?<![\w/.:-])[a-z]+(?:_[a-z0-9]+)+(?![\w/.(-])", text))
    unknown = words - LOGGED - OTHER_WORDS
    assert not unknown, f"{where}: neither log events nor known names: {sorted(unknown)}"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("bucket-down", "temporary folder: "),
        ("device", "out of memory at "),
        ("device", " cannot be used"),
        ("model-sick", "NaN model"),
        ("model-sick", "differ from those at its export"),
    ],
)
def test_messages_of_runbooks_exist(page: str, message: str) -> None:
    assert message in PAGES[f"docs/runbooks/{page}.md"]
    assert message in SOURCES


LOGGED = set(re.findall(r"\blog\.(?:debug|info|warning|error|critical)\(\s*\"(\w+)\"", SOURCES))
OTHER_WORDS = {
    *re.findall(r"\w+", json.dumps(documented().openapi())),  # fields, codes, values
    *(sample for row in metrics() for sample in row.samples),
    *(row.name for row in metrics()),
    *(label for row in metrics() for label in row.labels),
    *re.findall(r"\w+", PROVENANCE),  # details of statements
    *(name.lower() for name in SETTINGS),
    *Settings.model_fields,
    *("delivery_id", "span_id", "trace_id"),  # of log lines
    *(*schema().names, "file_unreadable"),  # of `gamma scan`
    *("aof_enabled", "aof_last_write_status"),  # of Redis
    *("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"),  # of redis-py
    *("sentinel_password", "sentinel_username"),
    *(
        "proxy_request_buffering",
        "sample_limit",
        "runbook_url",
        "when_required",
    ),  # of nginx, Prometheus, AWS
    *("under_way", "whsec_new", "whsec_old"),  # of examples
}


def test_the_newest_version_of_the_changelog_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", PAGES["CHANGELOG.md"], re.MULTILINE)
    assert versions[0] == project["version"]


@pytest.mark.parametrize(("secret", "status"), [(SECRET, 204), (OTHER_SECRET, 400)])
def test_the_documented_receiver_checks_the_signature(secret: str, status: int) -> None:
    (block,) = blocks("docs/webhooks.md", "python")
    names: dict = {}
    exec(block, names)
    event = FinishedEvent(
        id="msg_1", created_at=examples.SUCCEEDED.finished_at, detection=examples.SUCCEEDED
    )
    body = event.model_dump_json().encode()
    headers = SigningSecrets.parse(SECRET).headers(event.id, int(time.time()), body)
    assert names["receive"](headers, body, secret) == status


def test_moderators_read_the_thresholds_of_the_built_in_model() -> None:
    config = json.loads((ROOT / "model/pretrained/config.json").read_text())
    shown = {
        name: f"{value:.1%}".replace("%", " %") for name, value in config["thresholds"].items()
    }
    page = PAGES["docs/moderate.md"]
    low, high = shown["uncertain"], shown["ai_generated"]
    assert f"below {low}." in page
    assert f"between {low} and {high}." in page
    assert f"the score is {high} or more" in page
    assert f"({shown['manipulated_area']} with the built-in model)" in page
