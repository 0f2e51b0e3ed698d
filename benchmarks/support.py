"""Pictures and ports for the benchmarks."""

import io
import socket

import numpy as np
from PIL import Image


def photo(width: int = 512, height: int = 512, seed: int = 0) -> Image.Image:
    """Draw a smooth random scene with noise, which compresses like a photograph."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    scene = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise = rng.normal(0, 6, scene.shape)
    return Image.fromarray(np.clip(scene + noise, 0, 255).astype(np.uint8))


def encode(picture: Image.Image) -> bytes:
    """Encode a picture as a JPEG of quality 75."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG")
    return stream.getvalue()


def free_port() -> int:
    """Return a TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
