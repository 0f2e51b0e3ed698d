"""`gamma scan` without Ray: sources, plan, targets, and what an actor does with a partition."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from app.command.cli import app as gamma
from app.command.scan import places, run
from app.command.scan.places import Target, target
from app.command.scan.plan import Model, Plan, PlanError, part, prepare
from app.command.scan.progress import ProgressLine, Tally
from app.command.scan.run import Resources, resources_for
from app.command.scan.scanner import Scanner
from app.command.scan.sources import Source, SourceError, shown
from app.command.scan.table import encode as encode_rows
from app.command.scan.table import schema
from app.contract.settings import Settings
from pictures.findings import View
from tests.buckets import Bucket
from tests.conftest import encode, photo
from tests.pictures.bombs import BOMBS

ROOT = Path(__file__).parents[2]
MODEL = Model("gamma", "1", "weights")
NO_REPORT = lambda partition, done, failed: None  # noqa: E731


def listed(source: str | Path) -> list[str]:
    return [os.fsdecode(path) for path in Source(str(source)).paths()]


def planned(source: Path, out: str, size: int = 2, **changed: Any) -> Plan:
    given = {"model": MODEL, "view": "auto", "partition_size": size, **changed}
    return prepare(Source(str(source)), str(source), out, **given)


def plant(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(encode(photo(48, 40, number)))
    return folder


# -- sources --------------------------------------------------------------------------------------


def test_folder_is_listed_in_a_fixed_order(tmp_path: Path) -> None:
    names = ("b/2.jpg", "b/1.JPG", "a.png", "b/a/3.webp", os.fsdecode(b"caf\xe9.jpg"))
    for name in (*names, "b/notes.txt", "scores.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "gone.jpg").symlink_to("/no/such/file")
    source = Source(str(tmp_path))
    found = [os.fsdecode(path) for path in source.paths()]
    order = ("a.png", names[-1], "gone.jpg", "b/1.JPG", "b/2.jpg", "b/a/3.webp")
    assert found == [str(tmp_path / name) for name in order]
    assert source.left_out == 2
    assert shown(os.fsencode(found[1])) == f"{tmp_path}/caf\\xe9.jpg"


def test_lists_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = ["/z.jpg", "s3://bucket/a b.jpg", "near/a.jpg"]
    expected = ["/z.jpg", "s3://bucket/a b.jpg", str(tmp_path / "near/a.jpg")]
    Path("list.txt").write_text("\r\n".join([paths[0], "", *paths[1:]]))
    pq.write_table(pa.table({"id": [1, 2, 3], "path": paths}), "list.parquet")
    assert listed("list.txt") == listed("list.parquet") == expected


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("list.txt", b"a.jpg\nhttp://192.0.2.1/a.jpg\n", "line 2 is neither a path nor s3://"),
        ("list.txt", b"s3://bucket/\xff.jpg\n", "line 1 is not UTF-8"),
        ("list.parquet", b"PAR1", "is not a Parquet file"),
        ("picture.jpg", b"", "is neither a folder nor a list"),
    ],
)
def test_what_is_no_source(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(SourceError, match=reason):
        listed(file)
    with pytest.raises(SourceError, match="does not exist"):
        listed(tmp_path / "gone")


def test_list_without_paths(tmp_path: Path) -> None:
    pq.write_table(pa.table({"file": ["a.jpg"]}), tmp_path / "other.parquet")
    with pytest.raises(SourceError, match="has no column `path`"):
        listed(tmp_path / "other.parquet")
    pq.write_table(pa.table({"path": ["a.jpg", None]}), tmp_path / "null.parquet")
    with pytest.raises(SourceError, match="row 2 is not a path"):
        listed(tmp_path / "null.parquet")


@pytest.fixture
def s3(bucket: Bucket) -> Iterator[Bucket]:
    places.bucket.cache_clear()
    yield bucket
    places.bucket.cache_clear()


def test_bucket_is_listed_in_pages(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.command.scan.sources._PAGE", 2)
    for key in ("in/1.jpg", "in/2/3.PNG", "in/4.jpg", "in/notes.txt", "in/", "inside.jpg"):
        s3.s3.put_object(Bucket=s3.name, Key=key, Body=b"")
    source = Source(f"s3://{s3.name}/in")
    names = ("in/1.jpg", "in/2/3.PNG", "in/4.jpg")
    assert [path.decode() for path in source.paths()] == [f"s3://{s3.name}/{key}" for key in names]
    assert source.left_out == 1


def test_objects_are_read_up_to_a_limit(s3: Bucket) -> None:
    from worker.scoring import TooLargeFileError, UnreadableFileError

    s3.s3.put_object(Bucket=s3.name, Key="a", Body=b"12345")
    s3.s3.put_object(Bucket=s3.name, Key="empty", Body=b"")
    read = places.read_picture
    assert read(f"s3://{s3.name}/a".encode(), 5) == b"12345"
    assert read(f"s3://{s3.name}/empty".encode(), 5) == b""
    with pytest.raises(TooLargeFileError, match="more than 4 bytes"):
        read(f"s3://{s3.name}/a".encode(), 4)
    with pytest.raises(UnreadableFileError):
        read(f"s3://{s3.name}/gone".encode(), 4)
    with pytest.raises(FileNotFoundError):  # of all pictures: not an error of one
        read(b"s3://no-such-bucket/a", 4)


# -- targets and plan -----------------------------------------------------------------------------


@pytest.fixture(params=["folder", "bucket"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "deep/out")
    return f"s3://{request.getfixturevalue('s3').name}/deep/out"


def test_targets(out: str) -> None:
    place: Target = target(out)
    assert (place.names(), place.read("a"), place.has("a")) == (set(), None, False)
    place.delete("a")
    place.write("a", b"1")
    place.write("a", b"2")
    place.write("sub/b", b"3")
    assert (place.read("a"), place.has("a")) == (b"2", True)
    assert "a" in place.names()
    assert place.names("sub") == {"b"}
    with place.open("sub/b") as stream:
        assert stream.read() == b"3"
    place.delete("a")
    assert place.read("a") is None


def test_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = target(str(tmp_path))
    place.write("a", b"1")

    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        place.write("a", b"2")
    assert (place.names(), place.read("a")) == ({"a"}, b"1")


def test_plan_resumes(out: str, tmp_path: Path) -> None:
    source = plant(tmp_path / "in", 5)
    plan = planned(source, out)
    assert (plan.partitions, [plan.size(k) for k in range(3)]) == (3, [2, 2, 1])
    assert [os.fsdecode(p) for k in range(3) for p in plan.paths(k)] == listed(source)
    plan.target.write(part(1), b"")
    again = planned(source, out)
    assert again == plan
    assert again.unfinished() == [0, 2]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"model": replace(MODEL, digest="other")}, "of the model gamma 1 weights, not gamma 1 ot"),
        ({"view": "center"}, "results of the view auto, not center"),
        ({"size": 3}, "results of the partition size 2, not 3"),
        ({"more": True}, r"of another list of pictures \(5 pictures of .*; now 6\)"),
    ],
)
def test_other_results_are_kept_unless_told(
    changed: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    source, out = plant(tmp_path / "in", 5), str(tmp_path / "out")
    before = planned(source, out)
    before.target.write(part(1), b"kept")
    before.target.write(before.attempts(2), b"")
    (tmp_path / "out/notes.txt").touch()
    if changed.pop("more", False):
        plant(source, 6)
    with pytest.raises(PlanError, match=reason):
        planned(source, out, **changed)
    assert before.target.read(part(1)) == b"kept"
    plan = planned(source, out, **changed, overwrite=True)
    assert plan.unfinished() == list(range(plan.partitions))
    assert plan.target.names() == {"_scan", "notes.txt"}
    assert plan.target.names("_scan/attempts") == set()


def test_unknown_target(tmp_path: Path) -> None:
    source, place = plant(tmp_path / "in", 1), target(str(tmp_path / "out"))
    place.write(part(0), b"mine")
    with pytest.raises(PlanError, match="but no manifest"):
        planned(source, str(tmp_path / "out"))
    place.write("_scan/manifest.json", b'{"format": 99}')
    with pytest.raises(PlanError, match="this version cannot read"):
        planned(source, str(tmp_path / "out"))
    assert place.read(part(0)) == b"mine"


def test_columns_are_documented() -> None:
    table = (ROOT / "docs/scan.md").read_text().partition("\n## Results\n")[2]
    rows = re.findall(r"^\| (`.+?) \|", table.partition("\n## ")[0], re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == schema().names


def test_documented_program_reads_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"path": "/a.jpg", "status": "failed"}, {"path": "/b.jpg", "status": "succeeded"}]
    rows[1]["verdict"] = "ai_generated"
    target(str(tmp_path / "scores")).write(part(0), encode_rows(rows))
    target(str(tmp_path / "scores")).write("_scan/manifest.json", b"{}")
    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/scan.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    assert names["suspects"]["path"].to_pylist() == ["/b.jpg"]
    assert listed("again.parquet") == ["/a.jpg"]


# -- a partition ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of an actor with a small network."""
    from tests.towers import small_checkpoint

    model = small_checkpoint(tmp_path_factory.mktemp("small") / "model")
    options = Settings(checkpoint=str(model), device="cpu", max_pixels=4_000_000, max_upload=10**6)
    return options.model_dump(include=set(run._SENT))


def test_every_picture_has_a_row_and_bad_ones_cost_themselves(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    from pictures.decoding import decode
    from worker.main import load_detector

    source = plant(tmp_path / "in", 3)
    good = (source / "0.jpg").read_bytes()
    bad = {
        "bomb.png": (BOMBS["png line"](), "too_many_pixels"),
        "cut.jpg": (good[: len(good) // 2], "image_truncated"),
        "empty.jpg": (b"", "file_empty"),
        "large.jpg": (bytes(10**6 + 1), "upload_too_large"),
        "text.jpg": (b"no picture", "not_an_image"),
    }
    for name, (content, _) in bad.items():
        (source / name).write_bytes(content)
    (source / "gone.jpg").symlink_to("/no/such/file")
    os.mkfifo(tmp_path / "pipe")
    (source / "pipe.jpg").symlink_to(tmp_path / "pipe")
    paths = tmp_path / "list.txt"
    paths.write_text("\n".join([*listed(source), str(source / "pipe.jpg")]))

    detector = load_detector(Settings.model_construct(**settings))
    plan = planned(paths, str(tmp_path / "out"), 100, model=replace(MODEL, digest=None))
    plan = replace(plan, manifest=replace(plan.manifest, model=own_model(detector)))
    reports: list[tuple[int, int, int]] = []
    scanner = Scanner(plan, settings, 1, lambda *numbers: reports.append(numbers))
    answer = scanner({"partition": [0]})
    assert answer == {"partition": [0], "failed": [len(bad) + 2], "error": [""]}
    rows = {Path(row["path"]).name: row for row in pq.read_table(tmp_path / "out").to_pylist()}
    scanner.close()

    codes = {name: row["error_code"] for name, row in rows.items()}
    assert codes == {
        **dict.fromkeys(("0.jpg", "1.jpg", "2.jpg"), None),
        **{name: code for name, (_, code) in bad.items()},
        **dict.fromkeys(("gone.jpg", "pipe.jpg"), "file_unreadable"),
    }
    assert rows["gone.jpg"]["error_detail"] == "No such file or directory."
    assert {row["status"] for row in rows.values() if row["error_code"]} == {"failed"}
    assert reports[-1] == (0, len(rows), len(rows) - 3)

    row, found = (
        rows["1.jpg"],
        detector.examine(decode((source / "1.jpg").read_bytes(), max_pixels=10**6), View.AUTO),
    )
    data = (source / "1.jpg").read_bytes()
    assert (row["status"], row["width"], row["height"]) == ("succeeded", 48, 40)
    assert (row["bytes"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert row["ai_probability"] == pytest.approx(found.ai_probability, abs=1e-6)
    assert (row["verdict"], row["manipulated"]) == (str(found.verdict), found.manipulated)
    assert (row["model_name"], row["model_version"]) == ("gamma", "small")
    assert row["seconds"] > 0
    assert found.masks is not None
    for head, mask in zip(("ai", "manipulation"), found.masks, strict=True):
        boxes = [
            tuple(region[side] for side in ("x", "y", "width", "height"))
            for region in row["regions"]
            if region["head"] == head
        ]
        assert boxes == [tuple(region.box) for region in mask.summary.regions]


def own_model(detector: Any) -> Model:
    return Model(detector.info.name, detector.info.version, detector.info.digest)


class Process:
    """Stands in for an actor whose process ends when it computes a certain picture."""

    def __init__(self, plan: Plan, deadly: str = "") -> None:
        self.scanner = Scanner(plan, {}, 1, NO_REPORT)
        self.scanner._load = lambda: self  # type: ignore[method-assign,assignment,return-value]
        self.deadly = deadly
        self.calls: list[list[str]] = []

    def score(self, paths: list[bytes], report: Callable[[int, int], None] = NO_REPORT) -> Any:
        names = [Path(os.fsdecode(path)).name for path in paths]
        self.calls.append(names)
        if self.deadly in names:
            raise SystemExit  # as little is caught as of a kill
        return [{"status": "succeeded"} for _ in names]

    def run(self) -> None:
        assert self.scanner({"partition": [0]})["error"] == [""]


def test_picture_that_ends_processes_fails_alone(tmp_path: Path) -> None:
    plan = planned(plant(tmp_path / "in", 4), str(tmp_path / "out"), 4)
    for _ in range(3):  # together, then twice alone
        with pytest.raises(SystemExit):
            Process(plan, "2.jpg").run()
    Process(plan, "2.jpg").run()
    rows = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["error_code"] for row in rows] == [None, None, "processing_failed", None]
    assert plan.target.names("_scan/attempts") == set()


def test_killed_process_costs_no_picture(tmp_path: Path) -> None:
    plan = planned(plant(tmp_path / "in", 4), str(tmp_path / "out"), 4)
    for _ in range(2):
        with pytest.raises(SystemExit):
            Process(plan, "2.jpg").run()
    healthy = Process(plan)
    healthy.run()
    assert healthy.calls == [["0.jpg"], ["1.jpg"], ["2.jpg"], ["3.jpg"]]
    statuses = [row["status"] for row in pq.read_table(tmp_path / "out").to_pylist()]
    assert statuses == ["succeeded"] * 4
    healthy.run()  # a repeated task finds the results
    assert len(healthy.calls) == 4


def test_stopped_scan_suspects_no_picture(tmp_path: Path) -> None:
    plan = planned(plant(tmp_path / "in", 4), str(tmp_path / "out"), 4)
    with pytest.raises(SystemExit):
        Process(plan, "2.jpg").run()
    plan.forget_attempts()
    healthy = Process(plan)
    healthy.run()
    assert healthy.calls == [["0.jpg", "1.jpg", "2.jpg", "3.jpg"]]


def test_outage_fills_no_rows(settings: dict[str, Any], tmp_path: Path) -> None:
    from worker.main import load_detector

    model = own_model(load_detector(Settings.model_construct(**settings)))
    plan = planned(plant(tmp_path / "in", 1), str(tmp_path / "out"), 4, model=model)

    def fail(path: bytes, most: int) -> bytes:
        raise ConnectionError("no route to the bucket")

    scanner = Scanner(plan, settings, 1, NO_REPORT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.command.scan.scanner.read_picture", fail)
        answer = scanner({"partition": [0]})
    scanner.close()
    assert answer["error"] == ["ConnectionError: no route to the bucket"]
    assert plan.unfinished() == [0]


def test_node_with_another_model(settings: dict[str, Any], tmp_path: Path) -> None:
    plan = planned(plant(tmp_path / "in", 1), str(tmp_path / "out"))
    (failure,) = Scanner(plan, settings, 1, NO_REPORT)({"partition": [0]})["error"]
    assert failure == "ValueError: this node has another model than gamma 1"
    assert plan.unfinished() == [0]


# -- progress and resources -----------------------------------------------------------------------


def test_progress_line() -> None:
    now = 0.0
    tally = Tally()
    line = ProgressLine(10_000, 1000, clock=lambda: now)
    assert line.text(*tally.total()) == "1,000 of 10,000 pictures, 0.0/s, 0 failed, ? left"
    tally.note(1, 900, 5)
    tally.note(2, 100, 0)
    tally.note(1, 400, 4)  # after its actor was killed
    now = 10.0
    assert line.text(*tally.total()) == "1,500 of 10,000 pictures, 50.0/s, 4 failed, 0:02:50 left"


def test_log_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with ProgressLine(100, 0, clock=lambda: now) as line:
        for now in range(1, 70):
            line.show(int(now), 0)
    shown_lines = capsys.readouterr().err.splitlines()
    assert [text.partition(" ")[0] for text in shown_lines] == ["30", "60"]


@pytest.mark.parametrize(
    ("nodes", "actors", "device", "expected"),
    [
        ([{"CPU": 8.0}], None, "auto", Resources(1, 8, 0)),
        ([{"CPU": 8.0}], 3, "auto", Resources(3, 2, 0)),
        ([{"CPU": 2.0}], 4, "auto", Resources(4, 1, 0)),
        ([{"CPU": 32.0, "GPU": 4.0}, {"CPU": 64.0, "GPU": 4.0}], None, "auto", Resources(8, 8, 1)),
        ([{"CPU": 32.0, "GPU": 4.0}], None, "cpu", Resources(1, 32, 0)),
        ([{"CPU": 4.0}, {"CPU": 16.0}], None, "auto", Resources(2, 4, 0)),
        ([{"memory": 1.0}, {"CPU": 16.0}], None, "auto", Resources(1, 16, 0)),
    ],
)
def test_share_of_machines(
    nodes: list[dict[str, float]], actors: int | None, device: str, expected: Resources
) -> None:
    assert resources_for(nodes, actors, device) == expected


# -- command --------------------------------------------------------------------------------------


@pytest.fixture
def scan(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> Callable[..., Any]:
    checkpoint = settings["checkpoint"]

    def invoke(*arguments: str | Path) -> Any:
        command = ["scan", *map(str, arguments), "--checkpoint", checkpoint]
        return CliRunner().invoke(gamma, command)

    return invoke


def test_command_without_ray(
    scan: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = plant(tmp_path / "in", 1)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with contextlib.ExitStack() as stack:
        for name in (*run._LOCAL_RAY, *run._QUIET_RAY, "RAY_AUTH_TOKEN"):
            stack.callback(os.environ.pop, name, None)
        answer = scan(source, "--out", tmp_path / "out")
    assert answer.exit_code == 1
    assert "gamma scan needs the extra `scan`" in answer.stderr
    target(str(tmp_path / "out")).write(part(0), b"")
    answer = scan(source, "--out", tmp_path / "out")  # nothing is left to compute
    assert answer.exit_code == 0
    assert f"0 pictures scored, 0 failed, 1 skipped: {tmp_path}/out" in answer.stderr


def test_command_answers_what_it_cannot_do(scan: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    answer = scan(tmp_path / "empty", "--out", tmp_path / "out")
    assert (answer.exit_code, "contains no pictures" in answer.stderr) == (1, True)
    answer = scan(plant(tmp_path / "in", 1), "--out", tmp_path / "out")
    assert (answer.exit_code, "another list of pictures" in answer.stderr) == (1, True)
    manifest = json.loads((tmp_path / "out/_scan/manifest.json").read_text())
    assert manifest["model"].keys() == asdict(MODEL).keys()
    answer = scan(tmp_path / "gone", "--out", tmp_path / "out")
    assert (answer.exit_code, "does not exist" in answer.stderr) == (1, True)
