"""Text written by generators: prompt, model and settings, in the formats of various programs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pictures.provenance import editors
from pictures.provenance.statement import (
    MAX_PROMPT,
    Says,
    Source,
    Statement,
    clean,
    present,
)

Texts = Mapping[str, str]
"""By keyword, lower case."""

_STEPS = re.compile(r"^Steps: \d+,.*$", re.MULTILINE)
_NEGATIVE = "Negative prompt:"
_VERSION = re.compile(r"\bVersion: (?P<version>[^,\n]{1,80})")
_MODEL = re.compile(r"\bModel: (?P<model>[^,\n]{1,120})")
_FORGE = re.compile(r"^f\d")
_JOB = re.compile(r"\bJob ID: ?[0-9a-f]{8}-[0-9a-f-]{27}\b")
_MIDJOURNEY_VERSION = re.compile(r"--(?:v|niji)\s+(\d[\d.]*)")
_GROK = re.compile(r"^Signature: ?[A-Za-z0-9+/=]{40,}$")
_UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_NODES = 2000  # of a ComfyUI graph that are read
_LINKS = 8  # maximum from a sampler back to the text of its prompt
_WHO = ("software", "make", "model", "artist", "author", "generator", "source", "title", "comment")
"""Keywords of programs and authors."""


def read(texts: Sequence[tuple[str, str]], source: Source = Source.TEXT) -> list[Statement]:
    """Recognise a generator by the texts of a file.

    Args:
        texts: Keyword and text, in the order of the file.
        source: Source of the texts.
    """
    by_keyword: dict[str, str] = {}
    for keyword, text in texts:
        by_keyword.setdefault(keyword.lower(), text)
    for find in _FORMS:
        try:
            found = find(by_keyword)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            continue  # not in this format
        if found is not None:
            by = found.get("generator")
            return [Statement(source, Says.GENERATED, by, details=found)]
    return []


def _parameters(texts: Texts) -> dict[str, Any] | None:
    """The format of the Stable Diffusion web UI, which many other programs write too."""
    for keyword in ("parameters", "usercomment", "comment", "description"):
        text = texts.get(keyword, "")
        steps = _STEPS.search(text)
        if steps is None:
            continue
        prompt, _, negative = text[: steps.start()].partition(_NEGATIVE)
        version = _VERSION.search(steps[0])
        named = version["version"] if version else ""
        forge = "Forge" if _FORGE.match(named) else None
        generator = editors.generator(named) or forge or "Stable Diffusion web UI"
        model = _MODEL.search(steps[0])
        return _details(
            generator,
            model and model["model"],
            prompt,
            negative=negative,
            settings=steps[0],
            keyword=keyword,
        )
    return None


def _swarm(texts: Texts) -> dict[str, Any] | None:
    for keyword in ("parameters", "usercomment"):
        if "sui_image_params" in texts.get(keyword, ""):
            known = json.loads(texts[keyword])["sui_image_params"]
            return _details(
                "SwarmUI",
                known.get("model"),
                known.get("prompt"),
                negative=known.get("negativeprompt"),
                keyword=keyword,
            )
    return None


def _comfy(texts: Texts) -> dict[str, Any] | None:
    """A graph of nodes: as a PNG text, or after its keyword in EXIF's make or model in WebP."""
    candidates = {keyword: texts.get(keyword, "") for keyword in ("prompt", "workflow")}
    for keyword in ("make", "model", "description", "usercomment"):
        name, _, graph = texts.get(keyword, "").partition(":")
        if name.lower() in candidates and graph.startswith("{"):
            candidates[name.lower()] = graph
    for keyword, text in candidates.items():
        if not text.startswith("{"):
            continue
        graph = json.loads(text)
        if keyword == "workflow" and isinstance(graph.get("nodes"), list):
            return _details("ComfyUI", None, None, keyword=keyword)
        nodes = {
            name: node
            for name, node in list(graph.items())[:_NODES]
            if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
        }
        if any("class_type" in node for node in nodes.values()):
            prompt, negative = _graph_prompts(nodes)
            model = _graph_model(nodes)
            return _details("ComfyUI", model, prompt, negative=negative, keyword=keyword)
    return None


def _graph_prompts(nodes: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Positive and negative prompt of a sampler, or the first text of any node."""
    for node in nodes.values():
        if "positive" in node["inputs"]:
            positive, negative = (
                _graph_text(nodes, node["inputs"].get(name)) for name in ("positive", "negative")
            )
            if positive:
                return positive, negative
    texts = (node["inputs"].get("text") for node in nodes.values())
    return next((text for text in texts if isinstance(text, str) and text), None), None


def _graph_text(nodes: Mapping[str, Any], link: object) -> str | None:
    for _ in range(_LINKS):
        if isinstance(link, str):
            return link
        if not isinstance(link, list) or not link:
            return None
        inputs = nodes.get(str(link[0]), {}).get("inputs", {})
        names = ("text", "text_g", "prompt", "string", "value", "conditioning", "positive")
        link = next((inputs[name] for name in names if name in inputs), None)
    return None


def _graph_model(nodes: Mapping[str, Any]) -> str | None:
    for node in nodes.values():
        for name in ("ckpt_name", "unet_name", "model_name"):
            if isinstance(node["inputs"].get(name), str):
                return str(node["inputs"][name])
    return None


def _invoke(texts: Texts) -> dict[str, Any] | None:
    if "invokeai_metadata" in texts:
        known = json.loads(texts["invokeai_metadata"])
        model = known.get("model") or {}
        name = model.get("name") or model.get("model_name") if isinstance(model, dict) else model
        return _details(
            "InvokeAI",
            name,
            known.get("positive_prompt"),
            negative=known.get("negative_prompt"),
            keyword="invokeai_metadata",
        )
    if "sd-metadata" in texts:
        known = json.loads(texts["sd-metadata"])
        prompt = known.get("image", {}).get("prompt")
        if isinstance(prompt, list):
            prompt = prompt[0].get("prompt") if prompt else None
        return _details("InvokeAI", known.get("model_weights"), prompt, keyword="sd-metadata")
    if "dream" in texts:
        return _details("InvokeAI", None, texts["dream"], keyword="dream")
    return None


def _novelai(texts: Texts) -> dict[str, Any] | None:
    if "novelai" not in texts.get("software", "").lower():
        return None
    known: dict[str, Any] = {}
    if texts.get("comment", "").startswith("{"):
        known = json.loads(texts["comment"])
    return _details(
        "NovelAI",
        texts.get("source"),
        texts.get("description") or known.get("prompt"),
        negative=known.get("uc"),
        keyword="Comment",
    )


def _fooocus(texts: Texts) -> dict[str, Any] | None:
    for keyword in ("parameters", "comment", "usercomment"):
        text = texts.get(keyword, "")
        if text.startswith("{") and ("fooocus_scheme" in texts or "Fooocus" in text):
            known = {name.lower(): value for name, value in json.loads(text).items()}
            return _details(
                "Fooocus",
                known.get("base_model"),
                known.get("prompt"),
                negative=known.get("negative_prompt"),
                keyword=keyword,
            )
    return None


def _midjourney(texts: Texts) -> dict[str, Any] | None:
    for keyword in ("description", "comment"):
        text = texts.get(keyword, "")
        if _JOB.search(text):
            version = _MIDJOURNEY_VERSION.search(text)
            prompt = _JOB.sub("", text)
            return _details("Midjourney", version and version[1], prompt, keyword=keyword)
    return None


def _labelled(texts: Texts) -> dict[str, Any] | None:
    """The label required in China (GB 45438): 1 generated, 2 likely, 3 suspected."""
    text = texts.get("aigc", "")
    if not text.startswith("{"):
        return None
    known = json.loads(text)
    known = known.get("AIGC", known)
    if str(known.get("Label")) != "1":
        return None
    producer = clean(known.get("ContentProducer", ""))
    return present(
        generator=editors.generator(producer),
        producer=producer,
        keyword="AIGC",
        label="1",
    )


def _grok(texts: Texts) -> dict[str, Any] | None:
    if _GROK.match(texts.get("description", "")) and _UUID.match(texts.get("artist", "")):
        return _details("Grok", None, None, keyword="Artist")
    return None


def _named(texts: Texts) -> dict[str, Any] | None:
    """A generator's name in a field for programs or authors."""
    for keyword in _WHO:
        generator = editors.generator(texts.get(keyword, "")[:1000])
        if generator is not None:
            return _details(
                generator, None, texts.get("prompt") or texts.get("description"), keyword=keyword
            )
    return None


_FORMS: tuple[Callable[[Texts], dict[str, Any] | None], ...] = (
    _swarm,
    _novelai,
    _invoke,
    _fooocus,
    _comfy,
    _parameters,
    _midjourney,
    _labelled,
    _grok,
    _named,
)


def _details(
    generator: str,
    model: object,
    prompt: object,
    *,
    keyword: str,
    negative: object = None,
    settings: object = None,
) -> dict[str, Any]:
    return present(
        generator=generator,
        model=clean(model) if model else None,
        prompt=clean(prompt, MAX_PROMPT) if isinstance(prompt, str) else None,
        negative_prompt=clean(negative, MAX_PROMPT // 2) if isinstance(negative, str) else None,
        settings=clean(settings, 1000) if settings else None,
        keyword=keyword,
    )
