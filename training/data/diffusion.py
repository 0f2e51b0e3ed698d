"""Inpainting with pipelines of `diffusers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import JsonValue

from training.data.engines import EngineError, Task, pad
from training.data.journal import SkippedError
from training.data.labels import Kind


class DiffusionEngine:
    """Any pipeline of `AutoPipelineForInpainting`: Stable Diffusion, FLUX Fill and others."""

    kind = Kind.INPAINT
    fill = None
    wants_donor = False

    def __init__(self, model: str, *, steps: int, device: str) -> None:
        """Load a pipeline.

        Args:
            model: Hub id or directory; its weights must be safetensors.
            steps: Denoising steps per picture.
            device: A torch device; on CUDA the precision is bfloat16.

        Raises:
            EngineError: It cannot be loaded or is not an inpainting pipeline.
        """
        import torch
        from diffusers import AutoPipelineForInpainting

        dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
        try:
            loaded: Any = AutoPipelineForInpainting.from_pretrained(  # type: ignore[no-untyped-call]
                model, dtype=dtype, use_safetensors=True
            )
            self._pipeline = loaded.to(device)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise EngineError(f"{model}: not a usable inpainting pipeline: {error}") from error
        self._pipeline.set_progress_bar_config(disable=True)
        self._steps = steps
        self.generator = Path(model).resolve().name if Path(model).exists() else model
        self.settings: dict[str, JsonValue] = {
            "engine": "diffusers",
            "model": model,
            "steps": steps,
        }

    def repaint(self, task: Task) -> NDArray[np.uint8]:
        """Return the picture inpainted by the pipeline, at its original size.

        Raises:
            SkippedError: The pipeline's safety checker blanked the picture.
        """
        import torch

        # Transformers use patches of 2 x 2 latents.
        multiple = 2 * self._pipeline.vae_scale_factor
        picture = pad(task.picture, multiple)
        region = np.zeros(picture.shape[:2], np.uint8)
        height, width = task.region.shape
        region[:height, :width] = task.region * np.uint8(255)  # white = inpaint
        answer = self._pipeline(
            prompt=task.prompt,
            image=Image.fromarray(picture),
            mask_image=Image.fromarray(region),
            height=picture.shape[0],
            width=picture.shape[1],
            num_inference_steps=self._steps,
            generator=torch.Generator().manual_seed(task.seed),
        )
        if any(getattr(answer, "nsfw_content_detected", None) or []):
            raise SkippedError("the pipeline's safety checker blanked the picture")
        repainted = np.asarray(answer.images[0].convert("RGB"))
        return repainted[:height, :width].copy()
