"""Importers of known data sets, by their command line names."""

from __future__ import annotations

from training.data.importers.coco import BFREE, COCO, COCOGLIDE
from training.data.importers.folders import FOLDERS, IMAGENET
from training.data.importers.generated import (
    GENIMAGE,
    GPT_IMGEVAL,
    OPENAI_PREFERENCE,
    SHAREGPT,
    SYNTHWILDX,
)
from training.data.importers.layout import Layout
from training.data.importers.localisation import CASIA, COLUMBIA, COVERAGE, DSO1, IMD2020, NIST16
from training.data.importers.pairs import IMDL_JSON, MVSS_LIST, PAIRS
from training.data.importers.parquet import OPENSDI
from training.data.importers.reviews import REVIEWS
from training.data.importers.table import COCO_INPAINT
from training.data.importers.tampcoco import TAMPCOCO

LAYOUTS: dict[str, Layout] = {
    "folders": FOLDERS,
    "imagenet": IMAGENET,
    "coco": COCO,
    "coco-inpaint": COCO_INPAINT,
    "b-free": BFREE,
    "tampcoco": TAMPCOCO,
    "genimage": GENIMAGE,
    "synthwildx": SYNTHWILDX,
    "openai-4o-preference": OPENAI_PREFERENCE,
    "sharegpt-4o-image": SHAREGPT,
    "gpt-imgeval": GPT_IMGEVAL,
    "opensdi": OPENSDI,
    "casia-v1+": CASIA,
    "columbia": COLUMBIA,
    "coverage": COVERAGE,
    "nist16": NIST16,
    "imd2020": IMD2020,
    "cocoglide": COCOGLIDE,
    "dso-1": DSO1,
    "imdl-json": IMDL_JSON,
    "pairs": PAIRS,
    "mvss-list": MVSS_LIST,
    "reviews": REVIEWS,
}
