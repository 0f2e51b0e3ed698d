"""Data sets of wholly generated pictures: GenImage, SynthWildX, and three of GPT-4o."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from training.data.importers.folders import SIDES, side_of
from training.data.importers.layout import (
    Choices,
    Item,
    Layout,
    LayoutError,
    Note,
    Problem,
    cells,
    listed,
    pictures,
    read_table,
    read_text,
    slashed,
)
from training.data.importers.parquet import records
from training.data.labels import Kind
from training.data.manifest import Split

# Ends of GenImage's folder names, lower case, letters and digits only.
_GENIMAGE = {
    "adm": re.compile(r"adm$"),
    "biggan": re.compile(r"biggan$"),
    "glide": re.compile(r"glide$"),
    "midjourney": re.compile(r"(midjourney|mj)(v5)?$"),
    "sd-1.4": re.compile(r"(sd|stablediffusion)v?1?4$"),
    "sd-1.5": re.compile(r"(sd|stablediffusion)v?1?5$"),
    "vqdm": re.compile(r"vqdm$"),
    "wukong": re.compile(r"wukong$"),
}
_PARTS: dict[str, Split] = {"train": "train", "val": "test", "test": "test"}
_GPT = "gpt-4o"


def genimage_generator(folder: str) -> str | None:
    """Return the GenImage generator of a folder name, if any."""
    letters = re.sub(r"[^a-z0-9]", "", folder.lower())
    return next((name for name, end in _GENIMAGE.items() if end.search(letters)), None)


def _genimage(root: Path, _: Choices) -> Iterator[Item | Note]:
    """`…/<generator>/…/{train,val}/{ai,nature}/` or `<generator>/{0_real,1_fake}/`.

    The root may also be the folder of one generator. `val` is GenImage's only held-out part, so its
    split is `test`. Samples are drawn per generator, part and class (1,000 + 1,000 per generator in
    the paper). No masks.
    """
    for file in pictures(root, deep=True):
        path = file.relative_to(root.parent)  # the root may be the folder of a generator
        side = side_of(path.parts)
        if side is None:
            continue
        above = path.parts[:side][::-1]
        part = next((folder.lower() for folder in above if folder.lower() in _PARTS), "")
        generator = next(filter(None, map(genimage_generator, above)), None)
        if generator is None:
            yield Note(Problem.NAME, f"{file}: none of GenImage's generators", file)
            continue
        kind = SIDES[path.parts[side].lower()]
        authentic = kind is Kind.AUTHENTIC
        yield Item(
            file,
            kind,
            f"imagenet/{file.stem}" if authentic else f"genimage/{generator}/{file.stem}",
            generator=None if authentic else generator,
            split=_PARTS.get(part),
            group=f"{generator}/{part}/{kind}",
        )


def _synthwildx(root: Path, _: Choices) -> Iterator[Item | Note]:
    """`list.csv` (`url,filename,typ`) and `<typ>/<id>.jpg`; dead links leave many missing.

    `filename` may include the folder. No masks.
    """
    file = root / "list.csv"
    if not file.is_file():
        raise LayoutError(f"{root}: no list.csv")
    table = read_table(file)
    if not {"filename", "typ"} <= set(table.fieldnames or ()):
        raise LayoutError(f"{file}: no columns filename and typ")
    for record in table:
        values = cells(record, "filename", "typ")
        if values is None:
            yield Note(Problem.NAME, f"{file}: line {table.line_num}: no filename or no typ")
            continue
        name, maker = values
        kind = Kind.AUTHENTIC if maker == "real" else Kind.SYNTHETIC
        picture = root / maker / Path(slashed(name)).name
        yield Item(
            picture,
            kind,
            f"synthwildx/{maker}/{picture.stem}",
            generator=None if kind is Kind.AUTHENTIC else maker,
            split="test",
        )


def _openai_preference(root: Path, _: Choices) -> Iterator[Item | Note]:
    """Parquet files of pairs (`prompt,image1,image2,model1,model2,…`); the 4o picture of each.

    A picture is in several pairs, so duplicates in the report are expected; each picture is used
    once. No masks.
    """
    for record in records(root, ("model1", "model2"), ("image1", "image2")):
        for side in ("1", "2"):
            key, model = f"{record.key}-{side}", str(record.values[f"model{side}"])
            if "4o" not in model.lower():
                yield Note(Problem.UNUSED, f"{record.file}: {key}: by {model}")
            else:
                yield Item(
                    record.cell(f"image{side}"),
                    Kind.SYNTHETIC,
                    f"openai-4o-preference/{key}",
                    key=key,
                    generator=_GPT,
                    split="test",
                )


def _sharegpt(root: Path, _: Choices) -> Iterator[Item]:
    """`text_to_image.json` (list with `output_image`) beside the unpacked `text_to_image_*.tar`.

    The part with input images is not read. No masks.
    """
    file = root / "text_to_image.json"
    try:
        names = [str(record["output_image"]) for record in json.loads(read_text(file))]
    except (ValueError, KeyError, TypeError) as error:
        raise LayoutError(f"{file}: not the list of the text-to-image part: {error!r}") from error
    for name in names:
        source = f"sharegpt-4o/{Path(slashed(name)).with_suffix('').as_posix()}"
        yield Item(listed(root, name), Kind.SYNTHETIC, source, generator=_GPT, split="test")


def _gpt_imgeval(root: Path, _: Choices) -> Iterator[Item]:
    """Pictures of GPT-4o in any subfolders; no masks."""
    for file in pictures(root, deep=True):
        source = f"gpt-imgeval/{file.relative_to(root).with_suffix('').as_posix()}"
        yield Item(file, Kind.SYNTHETIC, source, generator=_GPT, split="test")


GENIMAGE = Layout(
    "GenImage: <generator>/{train,val}/{ai,nature} in any spelling; no masks",
    _genimage,
    published={
        "authentic": 1_331_167,
        **{name: 174_000 if name == "sd-1.5" else 168_000 for name in _GENIMAGE},
    },
)
SYNTHWILDX = Layout(
    "SynthWildX: list.csv and <typ>/<id>.jpg; no masks",
    _synthwildx,
    published={"authentic": 500, "dalle3": 500, "midjourney_v5": 500, "firefly": 500},
)
OPENAI_PREFERENCE = Layout(
    "OpenAI-4o_t2i_human_preference: Parquet pairs, the 4o side; no masks", _openai_preference
)
SHAREGPT = Layout(
    "ShareGPT-4o-Image: text_to_image.json and its pictures; no masks",
    _sharegpt,
    published={_GPT: 45_717},
)
GPT_IMGEVAL = Layout(
    "GPT-ImgEval: pictures at any depth; no masks", _gpt_imgeval, published={_GPT: 554}
)
