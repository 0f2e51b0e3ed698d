"""All settings of the service: command line > environment > file > default."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from app.contract.addresses import Allowlist
from app.contract.client import check_url
from app.contract.environment import UnknownSettingError as UnknownSettingError
from app.contract.environment import check_names
from app.contract.keys import Keys
from app.contract.limits import RateLimit
from app.contract.signing import SigningSecrets

CONFIG_VARIABLE = "GAMMA_CONFIG"
SECRETS_VARIABLE = "GAMMA_SECRETS_DIR"

_POINTERS = (CONFIG_VARIABLE, SECRETS_VARIABLE)
_DEFAULT_FILE = "gamma.toml"
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")


def _redis_url(given: SecretStr) -> SecretStr:
    check_url(given.get_secret_value())
    return given


def _origins(given: str | Sequence[str]) -> tuple[str, ...]:
    """Parse origins (RFC 6454): scheme, host and port, as browsers send them in `Origin`."""
    entries = given.split(",") if isinstance(given, str) else given
    origins = tuple(entry.strip() for entry in entries if entry.strip())
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin} is not an origin such as https://desk.example")
    return origins


def _database_url(given: SecretStr) -> SecretStr:
    if not re.match(r"postgres(ql)?(\+psycopg)?://[^/]", given.get_secret_value()):
        raise ValueError("it must begin with postgresql://")
    return given


_DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
_RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
_Origins = Annotated[tuple[str, ...], BeforeValidator(_origins)]
_Keys = Annotated[Keys, BeforeValidator(Keys.parse)]
RateLimitSetting = Annotated[RateLimit, BeforeValidator(RateLimit.parse)]
SecretsSetting = Annotated[SigningSecrets, BeforeValidator(SigningSecrets.parse)]


class Settings(BaseSettings):
    """Each field is read from `GAMMA_<FIELD>`, or from the TOML file named by `GAMMA_CONFIG`.

    Mounted secrets are read from the directory named by `GAMMA_SECRETS_DIR`, one file per setting,
    e.g. `gamma_redis_url`. An unknown key in the TOML file is an error.
    """

    model_config = SettingsConfigDict(
        env_prefix="GAMMA_",
        env_ignore_empty=True,  # compose files pass unset variables as empty
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # may be a secret
    )

    redis_url: _RedisUrl | None = Field(
        None, description="URL of Redis; unset: `gamma serve` starts a private one"
    )
    redis_maxmemory: ByteSize = Field(
        ByteSize(2 * 2**30), description="memory limit of the private Redis", ge=2**26
    )
    storage_limit: float = Field(
        0.9,
        description="share of Redis's memory, used or reserved for results, above which uploads "
        "get 503",
        gt=0,
        le=1,
    )
    store: str | None = Field(
        None,
        description="where pictures and masks are stored, `s3://BUCKET` or `s3://BUCKET/PREFIX`; "
        "unset: in Redis",
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]+)*/?$",
    )
    data_dir: Path = Field(
        Path(".gamma"), description="directory of the files of the private Redis and of SQLite"
    )
    queue: str = Field("gamma", description="name of the RQ queue", pattern=r"^[A-Za-z0-9_-]+$")
    queue_limit: int = Field(
        10_000, description="number of waiting jobs above which uploads get 503", ge=1
    )
    queue_age_limit: int = Field(
        1800,
        description="age of a caller's oldest waiting job above which its uploads get 503, s",
        ge=1,
    )
    queue_ttl: int = Field(
        3600, description="longest wait in the queue before a detection is `expired`, s", ge=1
    )
    retention: int = Field(
        86_400, description="how long picture, masks and scores are kept after the upload, s", ge=1
    )
    require_append_only: bool = Field(
        True,
        description="`false` accepts a Redis without an append-only file, as some managed "
        "services are; a restart of it may lose accepted work",
    )
    erase_within: int = Field(
        3600,
        description="time within which deleted and expired data is removed from Redis's "
        "append-only file, s; 0: Redis alone decides",
        ge=0,
    )
    cache: bool = Field(
        True, description="return the earlier result if the caller sends a picture again"
    )
    host: str = Field("127.0.0.1", description="address the API binds")
    port: int = Field(8000, description="port of the API", ge=0, le=65535)
    root_path: str | None = Field(
        None,
        description="path at which a proxy serves API and page, e.g. `/gamma`; links in answers "
        "begin with it; unset: none",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
    )
    api_keys: Annotated[_Keys | None, NoDecode] = Field(
        None,
        description="keys of callers, `name=secret`, `name=sha256:…` or `name@team=…`, separated "
        "by commas or lines; unset: no keys are needed",
    )
    callers_file: Path | None = Field(
        None,
        description="TOML file with keys, weight, limits and webhook secrets of each caller; "
        "reloaded when it changes",
    )
    rate_limit: Annotated[RateLimitSetting | None, NoDecode] = Field(
        None, description="maximum upload rate of a caller, e.g. `600/minute`; unset: no limit"
    )
    database_url: _DatabaseUrl | None = Field(
        None,
        description="PostgreSQL database of reviews, `postgresql://USER:PASSWORD@HOST/NAME`; "
        "required for several replicas of the API; unset: SQLite, `reviews.db` in `GAMMA_DATA_DIR`",
    )
    review_retention: int = Field(400, description="how long reviews are kept, days", ge=1)
    review_lock: int = Field(
        300,
        description="how long a detection that a reviewer has opened is not given to another, s",
        ge=10,
        le=86_400,
    )
    allow_anonymous: bool = Field(
        False,
        description="without keys, bind beyond loopback and answer under any name; anyone who can "
        "connect may use the API",
    )
    cors_origins: Annotated[_Origins, NoDecode] = Field(
        (),
        description="origins whose web pages may call the API from a browser, e.g. "
        "`https://desk.example`, separated by commas; needs keys",
    )
    metrics_host: str = Field("127.0.0.1", description="address of the metrics port")
    metrics_port: int = Field(
        9400,
        description="Prometheus port of this process; under `gamma serve` this is the API's, "
        "workers have the next ones, then webhooks",
        ge=1,
        le=65534,
    )
    request_timeout: float = Field(
        30.0,
        description="longest time for the head of a request, s; bodies must arrive, and answers "
        "be read, at 16 KiB/s or more on average over this time",
        gt=0,
    )
    max_connections: int = Field(
        1000,
        description="maximum number of open connections to the API; above it idle ones are "
        "closed, and if none is idle new ones get 503",
        ge=1,
    )
    max_upload: ByteSize = Field(
        ByteSize(50 * 2**20), description="largest picture file; accepts units, e.g. `50MiB`", ge=1
    )
    max_batch_upload: ByteSize = Field(
        ByteSize(200 * 2**20), description="largest batch upload, all files together", ge=1
    )
    upload_space: ByteSize = Field(
        ByteSize(512 * 2**20),
        description="maximum size in the temporary folder of all incoming uploads above 1 MiB "
        "together",
        ge=1,
    )
    max_pixels: int = Field(64_000_000, description="largest picture, width × height", ge=1)
    default_view: Literal["auto", "tiled", "center", "glance"] = Field(
        "auto", description="view of an upload that names none"
    )
    checkpoint: str | None = Field(
        None, description="model directory or hub id; unset: the built-in model"
    )
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`, `cuda:1` …")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="precision of the network; `auto`: depends on the hardware"
    )
    max_batch: int = Field(
        8,
        description="maximum number of crops in a batch (a CPU computes them one by one)",
        ge=1,
    )
    batch_window: float = Field(
        0.0, description="how long a batch that is not full waits for more crops, s", ge=0, le=10
    )
    max_tiles: int = Field(
        64,
        description="maximum number of crops of a picture, of 512 × 512 or the same area in "
        "smaller ones; larger pictures are shrunk",
        ge=1,
    )
    tile_budget: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="the same for the view `auto`; `auto`: 12 on a CPU, else `GAMMA_MAX_TILES`",
    )
    decode_threads: int = Field(
        2,
        description="number of pictures decoded, each in its own process, and encoded at the same "
        "time",
        ge=1,
    )
    trust_list: Path | None = Field(
        None,
        description="PEM file of the certificates by which C2PA signatures are trusted; unset: the "
        "C2PA's list and the CAI's, dated in `pictures/provenance/trust`",
    )
    show_location: bool = Field(
        False, description="read the GPS position of photographs and return it in records"
    )
    stop_timeout: int = Field(
        60,
        description="time a worker has to stop, s; it finishes pictures that it has begun and "
        "puts the others back into the queue 5 s before the end",
        ge=10,
    )
    webhook_secrets: Annotated[SecretsSetting | None, NoDecode] = Field(
        None,
        description="secrets that sign webhooks of callers not in `GAMMA_CALLERS_FILE`, `whsec_` "
        "and base64; two during a rotation; unset: these callers have no webhooks",
    )
    webhook_url: str | None = Field(
        None,
        description="webhook URL for uploads that name none, of callers not in "
        "`GAMMA_CALLERS_FILE`; needs `GAMMA_WEBHOOK_SECRETS`",
        pattern="^https?://",
        max_length=2048,
    )
    webhook_allow: Annotated[
        Annotated[Allowlist, BeforeValidator(Allowlist.parse)] | None, NoDecode
    ] = Field(
        None,
        description="hosts, addresses and networks that webhooks may reach although they are not "
        "public, also by http",
    )
    fetch: bool = Field(
        False, description="`on` lets uploads name a `url`, which the API then fetches"
    )
    fetch_allow: Annotated[
        Annotated[Allowlist, BeforeValidator(Allowlist.parse)] | None, NoDecode
    ] = Field(
        None,
        description="hosts, addresses and networks that may be fetched from although they are not "
        "public, also by http",
    )
    search_links: bool = Field(
        True,
        description="`off` hides the page's links to reverse image searches, except for callers in "
        "`GAMMA_CALLERS_FILE` with `search_links = true`",
    )
    webhook_timeout: float = Field(
        10.0, description="timeout of one webhook attempt, s", gt=0, le=60
    )
    webhook_retries: str = Field(
        "10,60,600,3600,21600",
        description="pauses before the retries of a webhook, s",
        pattern=r"^[1-9]\d{0,5}(,[1-9]\d{0,5})*$",
    )
    webhook_threads: int = Field(8, description="number of webhooks sent at the same time", ge=1)
    log_format: Literal["console", "json"] = Field("console", description="format of log lines")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="lowest level that is logged"
    )
    log_client: Literal["full", "masked", "off"] = Field(
        "masked",
        description="address of the client in log lines and spans of requests; `masked`: its "
        "network, /24 or /48",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources by priority, highest first."""
        file = os.environ.get(CONFIG_VARIABLE) or _DEFAULT_FILE
        toml = TomlConfigSettingsSource(settings_cls, file)
        return init_settings, env_settings, file_secret_settings, toml

    @classmethod
    def load(cls, **command_line: Any) -> Settings:
        """Load the settings of this process; command-line values of None are ignored.

        Raises:
            pydantic.ValidationError: If a value is invalid or a key is unknown.
            SettingsFileError: If a settings file or folder cannot be read.
            UnknownSettingError: If a `GAMMA_*` variable or a secret file is not a setting.
        """
        given = {name: value for name, value in command_line.items() if value is not None}
        file, folder = os.environ.get(CONFIG_VARIABLE), os.environ.get(SECRETS_VARIABLE) or None
        if file and not Path(file).is_file():
            raise SettingsFileError(f"{CONFIG_VARIABLE} is not a file: {file}")
        if folder and not Path(folder).is_dir():
            raise SettingsFileError(f"{SECRETS_VARIABLE} is not a folder: {folder}")
        known = {*cls.model_fields, *(name.removeprefix("GAMMA_").lower() for name in _POINTERS)}
        try:
            check_names(known, os.environ, os.listdir(folder) if folder else ())
            return cls(_secrets_dir=folder, **given)
        except tomllib.TOMLDecodeError as error:
            raise SettingsFileError(f"{file or _DEFAULT_FILE} is not TOML: {error}") from None
        except (OSError, UnicodeDecodeError, SettingsError) as error:
            raise SettingsFileError(f"a settings file cannot be read: {error}") from None

    @property
    def asks_for_keys(self) -> bool:
        """Whether requests need a key."""
        return self.api_keys is not None or self.callers_file is not None

    @property
    def may_sign_webhooks(self) -> bool:
        """Whether webhooks are on: there is a signing secret, or a file that may contain one."""
        return self.webhook_secrets is not None or self.callers_file is not None

    @property
    def webhook_pauses(self) -> list[int]:
        """Seconds before each retry of a webhook."""
        return [int(pause) for pause in self.webhook_retries.split(",")]

    @property
    def required_redis_url(self) -> str:
        """URL of Redis, for processes that do not start a private one.

        Raises:
            RedisUrlMissingError: If it is not set.
        """
        if self.redis_url is None:
            raise RedisUrlMissingError
        return self.redis_url.get_secret_value()


class SettingsFileError(ValueError):
    """A settings file or folder cannot be read; the message contains none of its contents."""


class RedisUrlMissingError(ValueError):
    """`GAMMA_REDIS_URL` is required but not set."""

    def __init__(self) -> None:
        super().__init__("GAMMA_REDIS_URL is not set (only `gamma serve` starts its own Redis)")
