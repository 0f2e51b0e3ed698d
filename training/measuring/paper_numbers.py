"""Tables 2 and 3 of the paper: accuracies in percent.

The paper's sets have equally many authentic and generated pictures, so these numbers compare with
balanced accuracies.
"""

from __future__ import annotations

import re

TABLE_2_COLUMNS = (
    *("BigGAN", "VQDM", "ADM", "GLIDE", "SD 1.4", "SD 1.5", "Midjourney", "Wukong"),
    "Avg.",
)
"""Generators of GenImage (JPEG-96)."""
TABLE_2: dict[str, tuple[float, ...]] = {
    "CNNDetect": (58.4, 51.2, 49.9, 50.7, 50.1, 49.9, 50.1, 50.2, 51.3),
    "DMID": (52.3, 75.1, 51.3, 56.6, 99.9, 99.8, 97.4, 99.6, 79.0),
    "LGrad": (28.9, 30.8, 30.5, 30.0, 49.8, 49.1, 50.6, 46.9, 39.6),
    "UnivFD": (86.1, 79.7, 64.4, 63.9, 55.5, 56.6, 54.2, 63.7, 65.5),
    "DeFake": (64.4, 64.4, 48.5, 80.4, 85.1, 85.4, 79.2, 81.8, 73.7),
    "DIRE": (46.9, 47.7, 46.7, 47.0, 47.3, 47.3, 47.5, 47.7, 47.3),
    "AntifakePrompt": (81.7, 81.1, 81.6, 81.8, 77.1, 76.6, 70.4, 77.6, 78.5),
    "NPR": (56.3, 53.9, 50.5, 48.3, 49.4, 49.7, 47.4, 50.2, 50.7),
    "FatFormer": (80.1, 71.5, 60.4, 65.1, 52.0, 53.3, 51.6, 58.1, 61.5),
    "FasterThanLies": (54.1, 76.6, 77.2, 66.1, 92.2, 92.3, 69.7, 88.1, 77.0),
    "RINE": (88.5, 81.4, 63.9, 74.7, 60.5, 61.1, 52.4, 70.0, 69.1),
    "AIDE": (50.7, 51.0, 50.1, 52.3, 74.5, 75.9, 57.4, 69.3, 60.2),
    "LaDeDa": (80.3, 34.8, 34.6, 34.5, 54.8, 53.0, 52.1, 57.7, 50.2),
    "C2P-CLIP": (87.5, 74.1, 71.3, 74.8, 80.5, 79.1, 55.9, 81.0, 75.5),
    "CoDE": (50.0, 56.0, 51.9, 58.0, 96.6, 96.5, 69.6, 95.0, 71.7),
    "B-Free": (68.7, 88.7, 79.8, 85.3, 98.8, 98.8, 95.7, 99.0, 89.3),
    "GAMMA (paper)": (96.4, 91.8, 92.5, 92.2, 97.5, 97.0, 96.5, 97.1, 95.1),
}

TABLE_3_COLUMNS = (
    "SynthWildX",
    "OpenAI-4o T2I Human Preference",
    "GPT-ImgEval",
    "ShareGPT-4o-Image",
)
TABLE_3: dict[str, tuple[float, ...]] = {
    "DMID": (48.3, 49.8, 50.5, 50.2),
    "C2P-CLIP": (58.2, 49.8, 49.6, 49.1),
    "B-Free": (95.6, 53.5, 57.5, 55.5),
    "GAMMA (paper)": (99.1, 79.4, 84.1, 70.2),
}

# Names of the columns in manifests and suites, letters and digits only.
_COLUMNS = {
    **{re.sub(r"\W", "", name).lower(): name for name in (*TABLE_2_COLUMNS[:-1], *TABLE_3_COLUMNS)},
    **dict.fromkeys(("sdv4", "sdv14", "stablediffusionv14", "stablediffusion14"), "SD 1.4"),
    **dict.fromkeys(("sdv5", "sdv15", "stablediffusionv15", "stablediffusion15"), "SD 1.5"),
    **dict.fromkeys(("openai4o", "openai4ot2i"), "OpenAI-4o T2I Human Preference"),
    "sharegpt4o": "ShareGPT-4o-Image",
}


def column(name: str) -> str | None:
    """Return the paper's column for the name of a generator or set, if any."""
    return _COLUMNS.get(re.sub(r"[\W_]", "", name).lower())
