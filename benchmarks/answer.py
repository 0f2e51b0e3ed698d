"""Time of a complete detection, from a picture file to its masks, here and at another commit.

    python -m benchmarks.answer                        # compared with the commit before the glance
    python -m benchmarks.answer --commit HEAD~3 --megapixels 0.26 12

Each version runs in a separate process with the built-in checkpoint, on CPUs; the best of several
turns counts. Measurements longer than a minute are done once.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

from pictures.findings import View

ROOT = Path(__file__).parents[1]
BEFORE = "9771ba4"  # tiles of 256 pixels, at most a fixed number
BARS = {
    ("auto", "0.26"): 0.5,
    ("auto", "12"): 3.0,
    ("auto", "48"): 4.0,
    ("glance", "0.26"): 0.25,
}
"""Target seconds on two cores, by view and megapixels."""
SIDES = {"0.26": (512, 512), "12": (4000, 3000), "48": (8000, 6000)}
_LONG = 60.0  # s


def picture(megapixels: str) -> bytes:
    """Make a JPEG with shapes and noise."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    scene = np.asarray(coarse.resize((1024, 1024), Image.Resampling.BICUBIC))
    grain = np.clip(scene + rng.normal(0, 6, scene.shape), 0, 255).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(grain).resize(SIDES[megapixels]).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def measure(
    views: list[str], sizes: list[str], turns: int, checkpoint: str | None
) -> dict[str, float | None]:
    """Return the seconds of the best turn by view and size, for the imported version."""
    from model.detector import Detector

    try:
        from pictures import png
    except ImportError:  # earlier commits
        from model import png

    detector = Detector.from_pretrained(checkpoint, device="cpu", max_pixels=10**8, max_tiles=64)
    detector.warm_up()

    def answer(data: bytes, view: View) -> None:
        found = detector.detect(data, view)
        if hasattr(found, "ai_mask"):  # before the glance
            masks = [found.ai_mask, found.manipulation_mask]
        else:
            masks = [mask.values for mask in found.masks or ()]
        for mask in masks:
            png.encode([mask])

    best: dict[str, float | None] = {}
    for size in sizes:
        data = picture(size)
        for name in views:
            known = name in list(View)
            if not known and name == "glance":
                best[f"{name} {size}"] = None
                continue
            seconds: list[float] = []
            while len(seconds) < turns and (not seconds or seconds[0] < _LONG):
                start = time.perf_counter()
                answer(data, View(name) if known else View("tiled"))
                seconds.append(time.perf_counter() - start)
            best[f"{name} {size}"] = min(seconds)
    return best


def run(checkout: Path, *asked: object) -> dict[str, float | None]:
    """Measure a checkout in a separate process."""
    code = f"import json; from answer import measure; print(json.dumps(measure(*{asked!r})))"
    search = os.pathsep.join([str(checkout), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": search},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commit", default=BEFORE, help="commit to compare with")
    parser.add_argument("--megapixels", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--views", nargs="+", default=["auto", "glance"])
    parser.add_argument("--checkpoint", help="directory [default: the built-in one]")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f} at the start, Python {platform.python_version()}"
    )
    asked = (options.views, options.megapixels, options.turns)
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "-q", "--detach", str(other), options.commit], check=True)
        try:
            before = run(other, *asked, None)
            now = run(ROOT, *asked, options.checkpoint)
        finally:
            subprocess.run([*git, "remove", "--force", str(other)], check=True)
    for key, seconds in now.items():
        view, size = key.split()
        if seconds is None:
            continue
        bar = BARS.get((view, size))
        verdict = (
            "" if bar is None else f", target {bar:g} s: {'met' if seconds <= bar else 'MISSED'}"
        )
        then = before[key]
        ratio = (
            "" if then is None else f", {then / seconds:.1f} times as fast as {options.commit}'s"
        )
        ratio += "" if then is None else f" {then:.2f} s"
        print(f"{view:7} {size:>5} megapixels {seconds:7.2f} s{ratio}{verdict}", flush=True)


if __name__ == "__main__":
    main()
