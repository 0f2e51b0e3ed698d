"""Training the glance on cached tower features.

The tower is computed once for each picture and its augmented copies. The MLP on top trains on the
cached features in seconds, which makes leave-sources-out cross-validation affordable: it estimates
the performance on pictures of other origin.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from model import views
from model.glance import GlanceBranch
from model.network import GammaModel
from pictures import decoding
from pictures.errors import PictureError
from training.config import ConfigError, GlanceSettings
from training.data import manifest
from training.data.labels import LABELS, Kind
from training.data.manifest import MAX_PIXELS, Row
from training.data.pixels import encode_jpeg
from training.fitting.tower_cache import compute_features

_PART = 256  # pictures per file of features
_BATCH = 8
_LONGEST = 1600  # pixels; larger pictures are shrunk before augmentation
_COPY_STREAM = 3  # random stream; training.data.dataset and sampling have others

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Features:
    """Tower features of N pictures and augmented copies."""

    tokens: Tensor
    """(N, tower.TOKENS), float16."""
    picture: NDArray[np.int64]
    """Row of the picture (N,)."""
    copy: NDArray[np.int64]
    """0: the picture itself; 1, 2, ...: augmented copies (N,)."""
    labels: NDArray[np.bool_]
    """Whether the picture is AI-generated (N,)."""
    sources: NDArray[np.str_]
    """Folder part of the source id (N,)."""
    train: NDArray[np.bool_]
    """Whether its split is `train` (N,)."""


@dataclass(frozen=True)
class SourceResult:
    """Cross-validation result for one source."""

    source: str
    n: int
    ai_share: float
    auc: float | None
    """AUC of its pictures; None if it has one class only."""
    called: float
    """Share of its pictures above the threshold of 5 % false positives."""


def read_rows(files: Sequence[str]) -> list[tuple[Path, Row]]:
    """Read the authentic and synthetic rows of manifests; the glance does not use forgeries.

    Returns:
        Folder of the manifest and row, for each picture.

    Raises:
        ConfigError: A manifest cannot be read.
    """
    rows = []
    for file in map(Path, files):
        try:
            rows += [
                (file.parent, row)
                for row in manifest.read(file)
                if row.kind in (Kind.AUTHENTIC, Kind.SYNTHETIC)
            ]
        except (OSError, manifest.ManifestError) as error:
            raise ConfigError(f"{file}: {error}") from error
    return rows


def extract(
    branch: GlanceBranch,
    rows: Sequence[tuple[Path, Row]],
    settings: GlanceSettings,
    folder: Path,
    advance: Callable[[], object],
) -> Features:
    """Compute the features of pictures and of augmented copies of the training pictures.

    They are cached in files of 256 pictures, named by pictures, splits, number of copies and seed.

    Args:
        branch: Its tower computes the features.
        rows: Result of `read_rows`.
        settings: Number of copies and seed.
        folder: Folder of the files.
        advance: Called once per picture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, start in enumerate(range(0, len(rows), _PART)):
        chosen = rows[start : start + _PART]
        file = folder / f"{number:05}-{_digest(chosen, settings)}.safetensors"
        if not file.exists():
            partial = file.with_suffix(".partial")
            save_file(_compute(branch, chosen, start, settings, advance), partial)
            partial.rename(file)
        else:
            for _ in chosen:
                advance()
        parts.append(load_file(file))
    picture = torch.cat([part["picture"] for part in parts]).numpy()
    looked_at = [rows[number][1] for number in picture]
    return Features(
        torch.cat([part["tokens"] for part in parts]),
        picture,
        torch.cat([part["copy"] for part in parts]).numpy(),
        np.array([LABELS[row.kind].ai_generated for row in looked_at]),
        np.array([str(PurePosixPath(row.source_id).parent) for row in looked_at]),
        np.array([row.split == "train" for row in looked_at]),
    )


def _digest(rows: Sequence[tuple[Path, Row]], settings: GlanceSettings) -> str:
    kept = [(row.sha256, row.split == "train") for _, row in rows]
    return hashlib.sha256(repr((settings.copies, settings.seed, kept)).encode()).hexdigest()[:16]


def _compute(
    branch: GlanceBranch,
    rows: Sequence[tuple[Path, Row]],
    first: int,
    settings: GlanceSettings,
    advance: Callable[[], object],
) -> dict[str, Tensor]:
    waiting: dict[tuple[int, ...], list[tuple[int, int, Pixels]]] = defaultdict(list)
    found: list[tuple[int, int, Tensor]] = []

    def compute(shape: tuple[int, ...]) -> None:
        looks = waiting.pop(shape)
        tokens = compute_features(branch, [pixels for *_, pixels in looks]).tokens.half().cpu()
        found.extend((n, c, row) for (n, c, _), row in zip(looks, tokens, strict=True))

    for number, (folder, row) in enumerate(rows, first):
        for copy, pixels in _versions(folder / row.path, row, number, settings):
            shrunk = views.glance(pixels)
            waiting[shrunk.shape].append((number, copy, shrunk))
            if len(waiting[shrunk.shape]) == _BATCH:
                compute(shrunk.shape)
        advance()
    for shape in list(waiting):
        compute(shape)
    found.sort(key=lambda entry: entry[:2])
    return {
        "picture": torch.tensor([n for n, *_ in found], dtype=torch.int64),
        "copy": torch.tensor([c for _, c, _ in found], dtype=torch.int64),
        "tokens": torch.stack([row for *_, row in found]) if found else torch.zeros(0),
    }


def _versions(
    file: Path, row: Row, number: int, settings: GlanceSettings
) -> Iterator[tuple[int, Pixels]]:
    """Yield the picture and its copies, with their numbers; nothing if it is unreadable."""
    try:
        picture = decoding.decode(file.read_bytes(), max_pixels=MAX_PIXELS)
    except (PictureError, OSError):
        return
    yield 0, picture
    if row.split == "train":
        smaller = _fit(picture, _LONGEST)
        for copy in range(1, settings.copies + 1):
            rng = np.random.default_rng([_COPY_STREAM, settings.seed, number, copy])
            yield copy, augment_copy(smaller, rng)


def augment_copy(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Augment a picture like uploads on the web: crop, resize, blur, noise, frame, compress, flip.

    Args:
        picture: RGB pixels (H, W, 3).
        rng: Source of all randomness.

    Returns:
        Pixels (H', W', 3).
    """
    if rng.random() < 0.6:
        picture = _crop(picture, rng)
    if rng.random() < 0.3:
        picture = _encode(picture, "JPEG", int(rng.integers(50, 96)))
    picture = _fit(picture, math.exp(rng.uniform(math.log(256), math.log(1280))), enlarge=1.5)
    if rng.random() < 0.1:
        blur = ImageFilter.GaussianBlur(rng.uniform(0.3, 2))
        picture = np.asarray(Image.fromarray(picture).filter(blur))
    if rng.random() < 0.1:
        grain = rng.normal(0, rng.uniform(1, 10), picture.shape)
        picture = np.clip(np.rint(picture + grain), 0, 255).astype(np.uint8)
    if rng.random() < 0.1:
        picture = _frame(picture, rng)
    codec = rng.choice(["JPEG", "WEBP", "AVIF", ""], p=[0.45, 0.25, 0.1, 0.2])
    if codec:
        picture = _encode(picture, str(codec), int(rng.integers(30, 96)))
    return np.ascontiguousarray(picture[:, ::-1]) if rng.random() < 0.5 else picture


def _crop(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Crop to 15 to 100 % of the area with a random aspect ratio."""
    area, shape = rng.uniform(0.15, 1), math.exp(rng.uniform(-0.35, 0.35))
    height, width = (
        min(length, max(64, round(length * math.sqrt(area) * factor)))
        for length, factor in zip(picture.shape, (shape, 1 / shape), strict=False)
    )
    top, left = (
        int(rng.integers(0, length - kept + 1))
        for length, kept in zip(picture.shape, (height, width), strict=False)
    )
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def _frame(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Add plain borders of up to 20 % of a side, as in a screenshot of a page."""
    height, width = picture.shape[:2]
    shares = rng.uniform(0, 0.2, 4)
    top, bottom, left, right = (shares * (height, height, width, width)).astype(int)
    framed = np.empty((top + height + bottom, left + width + right, 3), np.uint8)
    framed[:] = rng.integers(0, 256, 3)
    framed[top : top + height, left : left + width] = picture
    return framed


def _fit(picture: Pixels, longest: float, enlarge: float = 1.0) -> Pixels:
    """Resize the longer side to `longest` pixels, by a factor of at most `enlarge`."""
    height, width = picture.shape[:2]
    factor = min(longest / max(height, width), enlarge)
    if factor == 1.0:
        return picture
    size = (max(32, round(width * factor)), max(32, round(height * factor)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)


def _encode(picture: Pixels, codec: str, quality: int) -> Pixels:
    """Compress and decode."""
    if codec == "JPEG":
        data = encode_jpeg(picture, quality, "4:2:0")
    else:
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, codec, quality=quality)
        data = stream.getvalue()
    return decoding.decode(data, max_pixels=MAX_PIXELS)


def weigh(features: Features, chosen: NDArray[np.bool_], copy_weight: float) -> Tensor:
    """Compute sample weights: equal for both classes, and for the sources within a class.

    Args:
        features: All samples.
        chosen: Samples to train on (N,).
        copy_weight: Weight of an augmented copy; that of a picture is 1.

    Returns:
        Weights (N,): mean 1 over the chosen samples, 0 elsewhere.
    """
    own = np.where(features.copy > 0, copy_weight, 1.0) * chosen
    pairs = list(zip(features.sources, features.labels, strict=True))
    totals: defaultdict[tuple[np.str_, np.bool_], float] = defaultdict(float)
    for pair, weight in zip(pairs, own, strict=True):
        totals[pair] += weight
    sources = Counter(label for (_, label), total in totals.items() if total)
    weights = [
        weight / (totals[pair] * sources[pair[1]]) if weight else 0.0
        for pair, weight in zip(pairs, own, strict=True)
    ]
    result = torch.tensor(weights, dtype=torch.float32)
    return result * (int(chosen.sum()) / result.sum())


def fit(model: GammaModel, features: Features, weights: Tensor, settings: GlanceSettings) -> None:
    """Train `glance.tokens`, from random weights, and `classifier` on cached features.

    Args:
        model: The network; both modules are changed in place, the classifier only if it is not
            frozen.
        features: All samples.
        weights: Sample weights of `weigh`; samples of weight 0 are not used.
        settings: Optimisation.
    """
    assert model.glance is not None  # noqa: S101
    branch, classifier = model.glance, model.classifier
    labels = torch.from_numpy(features.labels).float()
    torch.manual_seed(settings.seed)
    for layer in branch.tokens:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    parameters = [*branch.tokens.parameters(), *classifier.parameters()]
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    rows = weights.nonzero().squeeze(1)
    steps = settings.epochs * -(-len(rows) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, steps)
    branch.train()
    for _ in range(settings.epochs):
        for batch in torch.split(rows[torch.randperm(len(rows))], settings.batch_size):
            logits = classifier(branch.tokens(features.tokens[batch].float())).squeeze(1)
            losses = F.binary_cross_entropy_with_logits(logits, labels[batch], reduction="none")
            loss = (losses * weights[batch]).mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    branch.eval()


@torch.no_grad()
def score(model: GammaModel, features: Features) -> NDArray[np.float64]:
    """Compute the image logits (N,) from the glance alone."""
    assert model.glance is not None  # noqa: S101
    vectors = model.glance.tokens(features.tokens.float())
    logits: Tensor = model.classifier(vectors).squeeze(1)
    return logits.double().numpy()


def leave_sources_out(
    build: Callable[[], GammaModel], features: Features, settings: GlanceSettings, folds: int
) -> tuple[float, list[SourceResult]]:
    """Cross-validate by source: each source is scored by a network not trained on it.

    Args:
        build: Returns a network with initial weights.
        features: All samples; those of split `train` are used.
        settings: Optimisation.
        folds: Number of groups into which the sources are divided.

    Returns:
        AUC over all pictures (without copies), and the result of each source.

    Raises:
        ConfigError: There is only one source.
    """
    sources = sorted(set(features.sources[features.train]))
    if len(sources) < 2:
        raise ConfigError("data.manifests: cross-validation needs two sources; use --folds 0")
    folds = min(folds, len(sources))
    fold_of = {source: i % folds for i, source in enumerate(sources)}
    folds_of_looks = np.array([fold_of.get(source, -1) for source in features.sources])
    logits = np.zeros(len(features.labels))
    for fold in range(folds):
        left_out = features.train & (folds_of_looks == fold)
        model = build()
        weights = weigh(features, features.train & ~left_out, settings.copy_weight)
        fit(model, features, weights, settings)
        logits[left_out] = score(model, features)[left_out]
    whole = features.train & (features.copy == 0)
    threshold = float(np.quantile(logits[whole & ~features.labels], 0.95))
    results = []
    for source in sources:
        own = whole & (features.sources == source)
        labels = features.labels[own]
        both = bool(labels.any() and not labels.all())
        results.append(
            SourceResult(
                source,
                int(own.sum()),
                float(labels.mean()),
                float(roc_auc_score(labels, logits[own])) if both else None,
                float((logits[own] > threshold).mean()),
            )
        )
    return float(roc_auc_score(features.labels[whole], logits[whole])), results


def describe(auc: float, results: Sequence[SourceResult]) -> Iterator[str]:
    """Return the results as text: a line in total and one per source."""
    yield f"cross-validation by source: AUC {auc:.3f}"
    for found in results:
        what = f"{found.n:5} pictures, {found.ai_share:4.0%} AI"
        own = "" if found.auc is None else f", AUC {found.auc:.3f}"
        yield f"  {found.source}: {what}, {found.called:.0%} above 5 % false positives{own}"
