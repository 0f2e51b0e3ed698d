"""API keys: parsing, protected routes, and secrecy."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.command.embedded import private_redis
from app.contract.keys import Keys
from app.contract.settings import Settings
from app.http.binding import OpenBindError, check_binding
from tests.app.replica import Replica, assert_problem, replicas
from tests.conftest import value

ALICE, BOB = "alice-secret-0123456789", "bob-secret-9876543210"
KEYS = f"alice={ALICE}\nbob=sha256:{hashlib.sha256(BOB.encode()).hexdigest()}\n"
STRANGER = "a-stranger-tries-this-one"


# -- the list of keys -----------------------------------------------------------------------------


def caller_of(keys: Keys, secret: str) -> str | None:
    found = keys.find(secret)
    return found and found.caller


def test_secrets_and_hashes_of_callers() -> None:
    keys = Keys.parse(KEYS)
    assert caller_of(keys, ALICE) == "alice"
    assert caller_of(keys, BOB) == "bob"
    assert caller_of(keys, KEYS.strip().rpartition("sha256:")[2]) is None, "a hash is no key"
    for wrong in ("", ALICE[:-1], ALICE + "x", ALICE.upper(), STRANGER, "ÿ"):
        assert caller_of(keys, wrong) is None


def test_keys_of_a_team() -> None:
    keys = Keys.parse(f"anna@news={ALICE},news={BOB},anna@sports={STRANGER}")
    named = [(key.caller, key.name) for key in map(keys.find, (ALICE, BOB, STRANGER)) if key]
    assert named == [("news", "anna"), ("news", "news"), ("sports", "anna")]


def test_forms_of_the_list() -> None:
    one = Keys.parse(KEYS)
    assert Keys.parse(KEYS.replace("\n", ",")) == one
    assert Keys.parse(["", *KEYS.split()]) == one
    assert caller_of(Keys.parse(f"a={ALICE}=="), f"{ALICE}==") == "a"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        " , \n",
        ALICE,
        f"={ALICE}",
        f"al ice={ALICE}",
        f"{'a' * 65}={ALICE}",
        f"anonymous={ALICE}",
        f"a={ALICE},a={BOB}",
        f"a@t={ALICE},a@t={BOB}",
        f"a@={ALICE}",
        f"@t={ALICE}",
        f"a@t@u={ALICE}",
        f"a@anonymous={ALICE}",
        f"a={ALICE},b={ALICE}",
        "a=",
        "a=tooshortsecret",
        f"a={ALICE} with spaces",
        f"a=sha256:{'0' * 63}",
        f"a=sha256:{'g' * 64}",
    ],
)
def test_invalid_list_is_refused_without_showing_it(wrong: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - any wording
        Keys.parse(wrong)
    message = str(error.value)
    assert message
    assert not any(secret in message for secret in (ALICE, BOB, "tooshort", "0" * 63))


@pytest.mark.parametrize("presented", [ALICE, BOB, STRANGER])
def test_all_keys_are_compared_in_every_case(
    presented: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def compare_digest(known: bytes, given: bytes) -> bool:
        compared.append(known)
        return known == given

    keys = Keys.parse(KEYS)
    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    caller_of(keys, presented)
    assert compared == [key.digest for key in keys.entries]


def test_keys_are_not_shown() -> None:
    keys = Keys.parse(KEYS)
    shown = f"{keys!r} {keys} {Settings(api_keys=KEYS)!r} {Settings(api_keys=KEYS)}"
    digests = [hashlib.sha256(secret.encode()) for secret in (ALICE, BOB)]
    assert not any(d.hexdigest() in shown or repr(d.digest()) in shown for d in digests)
    assert ALICE not in shown


# -- binding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_may_be_bound_without_keys(host: str) -> None:
    check_binding(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_other_addresses_need_keys_or_allow_anonymous(host: str) -> None:
    with pytest.raises(OpenBindError, match="GAMMA_API_KEYS"):
        check_binding(Settings(host=host))
    check_binding(Settings(host=host, api_keys=KEYS))
    check_binding(Settings(host=host, allow_anonymous=True))


# -- the API --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    folder = tmp_path_factory.mktemp("keys")
    with (
        private_redis(folder / "redis", 2**26) as (url, _),
        replicas(url, folder, 1, GAMMA_API_KEYS=KEYS, GAMMA_HOST="0.0.0.0") as (one,),
    ):
        yield one


def routes_of(api: Replica) -> list[tuple[str, str, dict]]:
    """Method, a path that fits the template, and the description of each documented route."""
    with api.client() as client:
        document = client.get("/openapi.json").json()
    return [
        (method.upper(), path.replace("{detection_id}", "0" * 32).replace("{head}", "ai"), route)
        for path, methods in document["paths"].items()
        for method, route in methods.items()
    ]


def test_every_route_of_v1_needs_a_key(api: Replica) -> None:
    routes = [(method, path) for method, path, _ in routes_of(api) if path.startswith("/v1/")]
    assert len(routes) > 6
    with api.client() as nobody, api.client(STRANGER) as stranger:
        for method, path in routes:
            refused = nobody.request(method, path)
            assert_problem(refused, 401, "key_missing")
            assert refused.headers["www-authenticate"] == "Bearer"
            assert_problem(stranger.request(method, path), 403, "key_invalid")


def test_other_routes_need_no_key(api: Replica) -> None:
    with api.client() as nobody:
        for path in ("/", "/docs", "/openapi.json", "/livez", "/static/index.html"):
            assert nobody.get(path).status_code == 200, path
        assert_problem(nobody.get("/readyz"), 503, "no_worker")


@pytest.mark.parametrize("secret", [ALICE, BOB])
def test_valid_key_is_accepted(api: Replica, secret: str) -> None:
    with api.client(secret) as client:
        assert_problem(client.get("/v1/model"), 503, "no_worker")
        assert_problem(client.get("/v1/detections/none"), 404, "not_found")
        assert client.get("/v1/model", headers={"Authorization": f"bearer {secret}"}).is_error


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", f"Basic {ALICE}", ALICE, f"Token {ALICE}"]
)
def test_malformed_header_is_refused(api: Replica, header: str) -> None:
    status, fields = api.raw("GET /v1/model HTTP/1.1", f"Authorization: {header}")
    assert status == 401
    assert fields["www-authenticate"] == "Bearer"
    assert fields["content-type"] == "application/problem+json"


@pytest.mark.parametrize("secret", [f"{ALICE} x", f"{ALICE}, {BOB}", "\xff\x80", "x" * 30_000])
def test_hostile_key_is_refused(api: Replica, secret: str) -> None:
    status, fields = api.raw("GET /v1/model HTTP/1.1", f"Authorization: Bearer {secret}")
    assert status == 403
    assert fields["content-type"] == "application/problem+json"


def test_a_key_is_checked_before_the_body_is_sent(api: Replica) -> None:
    announced = ["POST /v1/detections HTTP/1.1", "Content-Length: 9999999"]
    assert api.raw(*announced)[0] == 401
    assert api.raw(*announced, f"Authorization: Bearer {STRANGER}")[0] == 403


def test_openapi_declares_the_key(api: Replica) -> None:
    with api.client() as client:
        document = client.get("/openapi.json").json()
    (scheme,) = document["components"]["securitySchemes"].items()
    assert scheme[1]["type"] == "http"
    assert scheme[1]["scheme"] == "bearer"
    for _, path, route in routes_of(api):
        documented = {"401", "403"} <= set(route["responses"])
        assert documented == path.startswith("/v1/")
        assert route.get("security", []) == ([{scheme[0]: []}] if path.startswith("/v1/") else [])


def test_refusals_are_counted_and_logged_without_keys(api: Replica) -> None:
    counter = 'gamma_http_rejections_total{reason="key_%s"}'
    missing, invalid = (value(api.metrics(), counter % kind) for kind in ("missing", "invalid"))
    with api.client() as nobody, api.client(STRANGER) as stranger, api.client(ALICE) as alice:
        answers = [client.get("/v1/detections/none") for client in (nobody, stranger, alice)]
    assert value(api.metrics(), counter % "missing") == missing + 1
    assert value(api.metrics(), counter % "invalid") == invalid + 1
    names = []
    for answer in answers:
        (line,) = api.lines_of(answer.headers["x-request-id"])
        names.append((line["code"], line["caller"]))
    assert names == [("key_missing", None), ("key_invalid", None), ("not_found", "alice")]
    log = api.log()
    for secret in (ALICE, BOB, STRANGER):
        assert secret not in log
        assert hashlib.sha256(secret.encode()).hexdigest() not in log


def test_invalid_list_prints_one_line(tmp_path: Path) -> None:
    replica = Replica("unix:///nowhere", tmp_path / "log", GAMMA_API_KEYS="alice=hush")
    assert replica.process.wait(60) == 2
    assert "setting api_keys" in replica.log()
    assert "hush" not in replica.log()
    assert "Traceback" not in replica.log()
