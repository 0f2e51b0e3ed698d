"""Each alert fires when it should, and nothing else does: scenes for promtool."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.contract.schemas import ErrorCode
from tests.conftest import require_program
from tests.deploy.promql import RULES_FILE, RUNBOOKS, alerts

pytestmark = pytest.mark.slow

JOBS = 'gamma_jobs_total{instance="w",outcome="%s"}'
REJECTED = 'gamma_http_rejections_total{instance="a",reason="%s"}'
DELIVERIES = 'gamma_webhook_deliveries_total{instance="h",outcome="%s"}'
DETECTION = 'gamma_job_duration_seconds_bucket{instance="w",le="%s"}'
READ = 'gamma_http_request_duration_seconds_bucket{instance="a",method="GET",route="/x",le="%s"}'
POSTS = 'gamma_http_requests_total{instance="a",method="POST",route="/v1/detections",status="%s"}'
STARTED = 'process_start_time_seconds{instance="w",job="gamma-worker"}'
REVIEWS_UP = 'gamma_reviews_database_up{instance="a"}'
UP = 'up{instance="w",job="gamma-worker"}'
DURABLE = 'gamma_redis_append_only{instance="a"}'
SUSPENDED = 'gamma_queue_suspended{instance="a"}'
CLOCK = 'gamma_redis_clock_offset_seconds{instance="a"}'
LAST_SUCCESS = 'gamma_worker_last_success_timestamp_seconds{instance="w"}'
SCORES = 'gamma_score_bucket{instance="w",model_version="1",le="%s"}'

FOR_EVER = 600  # steps
# Values are in promtool's notation, of which the number of steps may be left out: start, and rise
# a step; `stale` is the end; STEP is the seconds of a step.
HEALTHY = {
    'gamma_redis_up{instance="a"}': "1",
    'gamma_workers{instance="a"}': "2",
    'gamma_model_sick{instance="a"}': "0",
    'gamma_device_failed{instance="a"}': "0",
    'gamma_queue_depth{instance="a"}': "3",
    'gamma_queue_oldest_age_seconds{instance="a"}': "2",
    'gamma_webhook_queue_oldest_age_seconds{instance="a"}': "0",
    'gamma_redis_memory_bytes{instance="a"}': "650",
    'gamma_redis_reserved_bytes{instance="a"}': "50",
    'gamma_redis_memory_limit_bytes{instance="a"}': "1000",
    'gamma_redis_evicted_keys_total{instance="a"}': "0",
    DURABLE: "1",
    SUSPENDED: "0",
    CLOCK: "0.001",
    UP: "1",
    STARTED: "-900",
    'gamma_worker_up{instance="w"}': "1",
    'gamma_jobs_in_hand{instance="w"}': "4",
    LAST_SUCCESS: "0+STEP",
    'gamma_out_of_memory_total{instance="w"}': "0",
    JOBS % "succeeded": "0+150",
    JOBS % "unreadable": "0+50",
    JOBS % "failed": "0",
    POSTS % "202": "0+200",
    **{REJECTED % code: "0" for code in ErrorCode},
    REJECTED % "not_an_image": "0+100",
    DELIVERIES % "delivered": "0+100",
    DELIVERIES % "failed": "0",
    DETECTION % "10.0": "0+100",
    DETECTION % "30.0": "0+100",
    DETECTION % "100.0": "0+100",
    DETECTION % "+Inf": "0+100",
    READ % "0.25": "0+100",
    READ % "2.5": "0+100",
    READ % "+Inf": "0+100",
}


@dataclass(frozen=True)
class Scene:
    """What happens from the start of a test on.

    Attributes:
        changes: series that differ from a healthy stack.
        fires: which alerts fire, at which time; nothing else does.
        step: seconds between samples, and between evaluations.
    """

    name: str
    changes: dict[str, str]
    fires: dict[str, set[str]]
    step: int = 15

    def text(self) -> str:
        """It in promtool's form."""
        tests = [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": time,
                "exp_samples": [
                    {"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(names)
                ],
            }
            for time, names in self.fires.items()
        ]
        scene = {
            "rule_files": [str(RULES_FILE)],
            "evaluation_interval": f"{self.step}s",
            "tests": [
                {
                    "interval": f"{self.step}s",
                    "input_series": [
                        {"series": name, "values": _spelt_out(values, self.step)}
                        for name, values in {**HEALTHY, **self.changes}.items()
                    ],
                    "promql_expr_test": tests,
                }
            ],
        }
        return yaml.safe_dump(scene)


def _spelt_out(values: str, step: int) -> str:
    values = values.replace("STEP", str(step))
    return values if "x" in values else f"{values}x{FOR_EVER}"


def _end(*parts: str) -> dict[str, str]:
    """The series with any of these parts in their names end after a minute."""
    return {
        name: f"{values}x4 stale"
        for name, values in HEALTHY.items()
        if any(part in name for part in parts)
    }


def _drift(pictures: int, before: float, after: float) -> dict[str, str]:
    """Scores of so many pictures in 5 minutes; a share of them is below 0.5, `after` 25 hours."""
    shares = {"0.5": (before, after), "1.0": (1, 1), "+Inf": (1, 1)}
    return {
        SCORES % le: f"0+{first * pictures}x300 {300 * first * pictures}+{then * pictures}x200"
        for le, (first, then) in shares.items()
    }


SCENES = [
    Scene("a healthy stack", {}, {"1h": set(), "7h": set()}, step=120),
    Scene(
        "a night without requests",
        {
            **{name: "100" for name, values in HEALTHY.items() if "+" in values},
            'gamma_queue_depth{instance="a"}': "0",
            'gamma_queue_oldest_age_seconds{instance="a"}': "0",
            'gamma_jobs_in_hand{instance="w"}': "0",
        },
        {"1h": set(), "7h": set()},
        step=120,
    ),
    Scene(
        "all API processes end",
        _end('instance="a"'),
        {"90s": set(), "3m": {"GammaApiDown"}, "10m": {"GammaApiDown"}},
    ),
    Scene(
        "Redis ends",
        {
            **_end("queue", "gamma_redis_", "gamma_workers"),
            'gamma_redis_up{instance="a"}': "1x4 0x600",
        },
        {"90s": set(), "3m": {"GammaRedisDown"}, "10m": {"GammaRedisDown"}},
    ),
    Scene(
        "the bucket is away",
        {REJECTED % "storage_unavailable": "0x4 0+200x600"},
        {"2m": set(), "5m": {"GammaBucketDown"}, "10m": {"GammaBucketDown"}},
    ),
    Scene(
        "one request met a bucket that was away",
        {REJECTED % "storage_unavailable": "0x4 1x600"},
        {"2m": set(), "5m": set(), "10m": set()},
    ),
    Scene(
        "the database of reviews is away",
        {REVIEWS_UP: "1x4 0x600", REJECTED % "reviews_unavailable": "0x4 1+1x600"},
        {"2m": set(), "10m": {"GammaReviewsDown"}},
    ),
    Scene(
        "nobody uses reviews, and there is no database",
        {REVIEWS_UP: "0x600"},
        {"2m": set(), "10m": set()},
    ),
    Scene(
        "the database of reviews restarts",
        {REVIEWS_UP: "1x4 0x8 1x600", REJECTED % "reviews_unavailable": "0x4 1+1x8 9x600"},
        {"2m": set(), "5m": set(), "10m": set()},
    ),
    Scene(
        "the only worker is killed",
        {
            'gamma_workers{instance="a"}': "1x4 0x600",
            'gamma_queue_oldest_age_seconds{instance="a"}': "2x4 17+15x600",
            **_end('instance="w"'),
            UP: "1x4 0x600",
        },
        {
            "2m": set(),
            "4m": {"GammaNoWorker"},
            "10m": {"GammaNoWorker", "GammaTargetDown"},
        },
    ),
    Scene(
        "one worker of two is being replaced",
        {UP: "1x4 0x8 1x600", STARTED: "-900x12 180x600", 'gamma_workers{instance="a"}': "1"},
        {"3m": set(), "10m": set()},
    ),
    Scene(
        "a worker of two finds its model sick, and is repaired",
        {'gamma_model_sick{instance="a"}': "0x4 1x60 0x600", 'gamma_workers{instance="a"}': "1"},
        {"1m": set(), "2m": {"GammaModelSick"}, "10m": {"GammaModelSick"}, "20m": set()},
    ),
    Scene(
        "work stands still in a worker that says it lives",
        {LAST_SUCCESS: "0+15x8 120x600"},
        {"5m": set(), "8m": {"GammaWorkStalled"}},
    ),
    Scene(
        "more comes in than is computed",
        {
            'gamma_queue_depth{instance="a"}': "0+100",
            'gamma_queue_oldest_age_seconds{instance="a"}': "0+10",
        },
        {"3m": set(), "6m": {"GammaQueueOld"}},
    ),
    Scene(
        "a burst that drains in time",
        {
            'gamma_queue_depth{instance="a"}': "0x4 5000-500x10 0x600",
            'gamma_queue_oldest_age_seconds{instance="a"}': "0x4 5+10x10 0x600",
        },
        {"2m": set(), "4m": set(), "10m": set()},
    ),
    Scene(
        "every fiftieth request meets a fault of the API",
        {REJECTED % "internal_error": "0+4"},
        {"30s": set(), "10m": {"GammaApiErrors"}, "20m": {"GammaApiErrors"}},
    ),
    Scene(
        "the API had faults for a while, and is well again",
        {REJECTED % "internal_error": "0+20x10 200x600"},
        {"11m": {"GammaApiErrors"}, "2h": set()},
        step=60,
    ),
    Scene(
        "one fault in a quiet night",
        {POSTS % "202": "0x10 1x600", REJECTED % "internal_error": "0x10 1x600"},
        {"13m": set(), "1h": set()},
        step=60,
    ),
    Scene(
        "one request in two thousand meets a fault: what the objective allows",
        {REJECTED % "internal_error": "0+0.1"},
        {"1h": set(), "7h": set()},
        step=120,
    ),
    Scene(
        "a third of the uploads is refused for want of room",
        {REJECTED % "queue_full": "0+30", REJECTED % "storage_full": "0+30"},
        {"10m": {"GammaUploadsRefused"}},
    ),
    Scene(
        "a tenth is refused for hours",
        {REJECTED % "queue_slow": "0+20"},
        {"7h": {"GammaUploadsRefused"}},
        step=120,
    ),
    Scene(
        "a tenth is refused for hours, then nothing",
        {REJECTED % "queue_slow": "0+20x210 4200x600"},
        {"7h": {"GammaUploadsRefused"}, "427m": set()},
        step=120,
    ),
    Scene(
        "all callers are above their own limits, or send nonsense",
        {REJECTED % "rate_limited": "0+190", REJECTED % "upload_too_large": "0+190"},
        {"1h": set(), "7h": set()},
        step=120,
    ),
    Scene(
        "every fourth picture ends without a result",
        {JOBS % "failed": "0+50"},
        {"30s": set(), "10m": {"GammaJobsFail"}},
    ),
    Scene(
        "most pictures are broken",
        {JOBS % "unreadable": "0+1500"},
        {"1h": set(), "7h": set()},
        step=120,
    ),
    Scene(
        "one failure in a quiet night",
        {JOBS % "succeeded": "0", JOBS % "failed": "0x10 1x600"},
        {"13m": set(), "1h": set()},
        step=60,
    ),
    Scene(
        "one detection in ten takes a minute",
        {DETECTION % "10.0": "0+80", DETECTION % "30.0": "0+90"},
        {"5m": set(), "25m": {"GammaSlow"}},
    ),
    Scene(
        "one read in ten takes two seconds",
        {READ % "0.25": "0+90"},
        {"5m": set(), "25m": {"GammaApiSlow"}},
    ),
    Scene(
        "a batch does not fit",
        {'gamma_out_of_memory_total{instance="w"}': "0x8 1x600"},
        {"5m": set(), "15m": {"GammaOutOfMemory"}, "80m": set()},
        step=60,
    ),
    Scene(
        "a device fails",
        {'gamma_device_failed{instance="a"}': "0x8 1x40 0x600"},
        {"1m": set(), "5m": {"GammaDeviceFailed"}, "30m": set()},
    ),
    Scene(
        "a device hangs in one of two workers",
        {'gamma_worker_up{instance="w"}': "1x4 0x600", 'gamma_workers{instance="a"}': "2x4 1x600"},
        {"4m": set(), "8m": {"GammaWorkerSick"}},
    ),
    Scene(
        "a worker finishes what it has in hand, and ends",
        {'gamma_worker_up{instance="w"}': "1x4 0x12 1x600"},
        {"4m": set(), "8m": set()},
    ),
    Scene(
        "a worker dies again and again",
        {STARTED: "-900x3 60x4 120x4 180x600"},
        {"1m": set(), "4m": {"GammaRestarts"}, "30m": set()},
    ),
    Scene(
        "a worker is not scraped",
        {UP: "1x4 0x600"},
        {"4m": set(), "8m": {"GammaTargetDown"}},
    ),
    Scene(
        "Redis fills up",
        {'gamma_redis_memory_bytes{instance="a"}': "650+10x27 920x600"},
        {
            "10m": set(),
            "26m": {"GammaRedisFilling"},
            "40m": {"GammaRedisFilling", "GammaRedisFull"},
        },
        step=60,
    ),
    Scene(
        "what waits has Redis's memory reserved",
        {'gamma_redis_reserved_bytes{instance="a"}': "50x4 320x600"},
        {"2m": set(), "25m": {"GammaRedisFilling", "GammaRedisFull"}},
        step=60,
    ),
    Scene(
        "Redis has no limit",
        {'gamma_redis_memory_limit_bytes{instance="a"}': "0"},
        {"1h": set()},
    ),
    Scene(
        "Redis throws keys away",
        {'gamma_redis_evicted_keys_total{instance="a"}': "0x8 30x600"},
        {"1m": set(), "4m": {"GammaRedisEvicts"}, "20m": set()},
    ),
    Scene(
        "Redis writes no file",
        {DURABLE: "1x4 0x600"},
        {"10m": set(), "15m": {"GammaRedisForgetful"}},
    ),
    Scene(
        "a Redis without a file is accepted",
        {DURABLE: "1x4 stale"},
        {"15m": set(), "1h": set()},
    ),
    Scene(
        "the clock of an API process is late",
        {CLOCK: "0x4 -5x600"},
        {"10m": set(), "15m": {"GammaClockSkew"}},
    ),
    Scene(
        "somebody has suspended the queue",
        {SUSPENDED: "0x4 1x600"},
        {"15m": set(), "20m": {"GammaQueueSuspended"}},
    ),
    Scene(
        "nobody delivers webhooks",
        {'gamma_webhook_queue_oldest_age_seconds{instance="a"}': "0+15"},
        {"8m": set(), "12m": {"GammaWebhooksLate"}},
    ),
    Scene(
        "receivers answer badly",
        {DELIVERIES % "delivered": "0+80", DELIVERIES % "failed": "0+20"},
        {"10m": set(), "40m": {"GammaWebhooksFail"}},
    ),
    Scene(
        "scores move",
        _drift(40, 0.75, 0.25),
        {"25h": set(), "34h": {"GammaScoreDrift"}},
        step=300,
    ),
    Scene("scores move a little", _drift(40, 0.75, 0.65), {"34h": set()}, step=300),
    Scene("scores move, of a few pictures", _drift(4, 0.75, 0.25), {"34h": set()}, step=300),
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_alerts_fire(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "scene.yml"
    file.write_text(scene.text())
    done = subprocess.run(
        [require_program("promtool"), "test", "rules", file],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_every_alert_has_a_test() -> None:
    fired = {name for scene in SCENES for names in scene.fires.values() for name in names}
    assert fired == set(alerts())


def test_alerts_have_a_severity_and_a_runbook() -> None:
    for name, alert in alerts().items():
        assert alert["labels"]["severity"] in ("page", "ticket"), name
        assert alert["annotations"]["summary"], name
        page = (RUNBOOKS / runbook(alert)).read_text()
        assert name in page.splitlines()[0], name


def test_error_codes_in_rules_exist() -> None:
    named = re.findall(r'reason=~?"([^"]+)"', RULES_FILE.read_text())
    assert named
    assert {code for group in named for code in group.split("|")} <= set(ErrorCode)


def test_every_alert_has_its_runbook() -> None:
    found = {file.name for file in RUNBOOKS.glob("*.md")} - {"README.md"}
    assert found == {runbook(alert) for alert in alerts().values()}


def runbook(alert: dict[str, Any]) -> str:
    """The file that an alert links."""
    base, _, page = alert["annotations"]["runbook_url"].partition("/")
    assert base == "{{ $externalLabels.runbooks }}"
    return str(page)


def test_links_begin_with_the_address_of_the_runbooks(tmp_path: Path) -> None:
    scene = yaml.safe_load(Scene("no worker", {'gamma_workers{instance="a"}': "0"}, {}).text())
    (test,) = scene["tests"]
    summary = alerts()["GammaNoWorker"]["annotations"]["summary"]
    url = "https://ops.example/runbooks"
    annotations = {"summary": summary, "runbook_url": f"{url}/no-worker.md"}
    expected = {"exp_labels": {"severity": "page"}, "exp_annotations": annotations}
    test |= {
        "external_labels": {"runbooks": url},
        "alert_rule_test": [
            {"eval_time": "10m", "alertname": "GammaNoWorker", "exp_alerts": [expected]}
        ],
    }
    file = tmp_path / "scene.yml"
    file.write_text(yaml.safe_dump(scene))
    subprocess.run([require_program("promtool"), "test", "rules", file], check=True)


def test_runbooks_have_all_sections() -> None:
    for file in RUNBOOKS.glob("*.md"):
        if file.name != "README.md":
            sections = re.findall(r"^## (.*)$", file.read_text(), re.MULTILINE)
            assert sections == ["What it means", "How to see it", "What to do"], file.name
        for link in re.findall(r"\]\(([^)]+)\)", file.read_text()):
            assert (file.parent / link.partition("#")[0]).is_file(), (file.name, link)


def test_runbook_index_lists_all_alerts() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| \[.*\]\((.*)\) \|$", _index(), re.MULTILINE)
    assert sorted(rows) == sorted(
        (name, alert["labels"]["severity"], runbook(alert)) for name, alert in alerts().items()
    )


def _index() -> str:
    return (RUNBOOKS / "README.md").read_text()
