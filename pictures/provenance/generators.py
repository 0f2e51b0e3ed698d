"""Text written by generators: prompt, model and settings, in the formats of various programs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pictures.origin import Says, Source, Statement
from pictures.provenance import editors
from pictures.provenance.statement import MAX_PROMPT, clean, present

Texts = Mapping[str, Sequence[str]]
"""By keyword, lower case; a keyword may occur more than once."""
Details = dict[str, Any]

_STEPS = re.compile(r"^Steps: \d+,.*\b(?:Sampler|Seed|CFG scale):.*$", re.MULTILINE | re.IGNORECASE)
_NEGATIVE = "Negative prompt:"
_VERSION = re.compile(r"\bVersion: (?P<version>[^,\n]{1,80})")
_MODEL = re.compile(r"\bModel: (?P<model>[^,\n]{1,120})")
_FORGE = re.compile(r"^f\d")
_DREAM = re.compile(r"(?<!\S)-(?:([sSWH]) ?\d+|(C) ?\d[\d.]*|(A) ?[a-z]\w+)(?!\S)")
_JOB = re.compile(r"\bJob ID: ?[0-9a-f]{8}-[0-9a-f-]{27}\b")
_MIDJOURNEY_VERSION = re.compile(r"--(?:v|niji)\s+(\d[\d.]*)")
_GROK = re.compile(r"^Signature: ?[A-Za-z0-9+/=]{40,}$")
_UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_NODES = 2000  # of a ComfyUI graph that are read
_LINKS = 8  # maximum from a sampler back to the text of its prompt


def read(texts: Sequence[tuple[str, str]], source: Source = Source.TEXT) -> list[Statement]:
    """Recognise a generator by the texts of a file.

    Args:
        texts: Keyword and text, in the order of the file.
        source: Source of the texts.
    """
    by_keyword: dict[str, list[str]] = {}
    for keyword, text in texts:
        by_keyword.setdefault(keyword.lower(), []).append(text)
    for keywords, find in _FORMS:
        for keyword in keywords:
            for text in by_keyword.get(keyword, ()):
                try:
                    found = find(keyword, text, by_keyword)
                except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
                    continue  # not in this format
                if found is not None:
                    by = found.get("generator")
                    edited = find is _named and editors.edited_by_generator(text)
                    says = Says.COMPOSITE if edited else Says.GENERATED
                    return [Statement(source, says, by, details=found)]
    return []


def _parameters(keyword: str, text: str, _: Texts) -> Details | None:
    """The format of the Stable Diffusion web UI, which many other programs write too."""
    steps = _STEPS.search(text)
    if steps is None:
        return None
    prompt, _sep, negative = text[: steps.start()].partition(_NEGATIVE)
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


def _swarm(keyword: str, text: str, _: Texts) -> Details | None:
    if "sui_image_params" not in text:
        return None
    known = json.loads(text)["sui_image_params"]
    return _details(
        "SwarmUI",
        known.get("model"),
        known.get("prompt"),
        negative=known.get("negativeprompt"),
        keyword=keyword,
    )


def _comfy_prompt(keyword: str, text: str, _: Texts) -> Details | None:
    """A graph of nodes: as a PNG text, or after its keyword in EXIF's make or model in WebP."""
    graph = _graph("prompt", keyword, text)
    nodes = {
        name: node
        for name, node in list(graph.items())[:_NODES]
        if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
    }
    if not any("class_type" in node for node in nodes.values()):
        return None
    prompt, negative = _graph_prompts(nodes)
    return _details("ComfyUI", _graph_model(nodes), prompt, negative=negative, keyword="prompt")


def _comfy_workflow(keyword: str, text: str, _: Texts) -> Details | None:
    """The editor's form of the graph, in the same places."""
    graph = _graph("workflow", keyword, text)
    if isinstance(graph.get("nodes"), list):
        return _details("ComfyUI", None, None, keyword="workflow")
    return None


def _graph(name: str, keyword: str, text: str) -> dict[str, Any]:
    if keyword != name:
        before, _, text = text.partition(":")
        if before.lower() != name:
            return {}
    return dict(json.loads(text)) if text.startswith("{") else {}


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


def _invoke(keyword: str, text: str, _: Texts) -> Details | None:
    known = json.loads(text)
    model = known.get("model") or {}
    name = model.get("name") or model.get("model_name") if isinstance(model, dict) else model
    return _details(
        "InvokeAI",
        name,
        known.get("positive_prompt"),
        negative=known.get("negative_prompt"),
        keyword=keyword,
    )


def _old_invoke(keyword: str, text: str, _: Texts) -> Details | None:
    known = json.loads(text)
    prompt = known.get("image", {}).get("prompt")
    if isinstance(prompt, list):
        prompt = prompt[0].get("prompt") if prompt else None
    return _details("InvokeAI", known.get("model_weights"), prompt, keyword=keyword)


def _dream(keyword: str, text: str, _: Texts) -> Details | None:
    """InvokeAI's command: a prompt with at least two of its options, or these as JSON."""
    if text.startswith("{"):
        known = json.loads(text)
        if not isinstance(known.get("prompt"), str) or not {"seed", "steps"} & known.keys():
            return None
        return _details("InvokeAI", known.get("model"), known["prompt"], keyword=keyword)
    options = {"".join(found) for found in _DREAM.findall(text)}
    return _details("InvokeAI", None, text, keyword=keyword) if len(options) > 1 else None


def _novelai(_: str, text: str, texts: Texts) -> Details | None:
    if editors.generator(text) != "NovelAI":
        return None
    known: dict[str, Any] = {}
    for comment in texts.get("comment", ()):
        with suppress(ValueError, RecursionError):
            if comment.startswith("{"):
                known = json.loads(comment)
                break
    return _details(
        "NovelAI",
        _first(texts, "source"),
        _first(texts, "description") or known.get("prompt"),
        negative=known.get("uc"),
        keyword="Comment",
    )


def _fooocus(keyword: str, text: str, texts: Texts) -> Details | None:
    if not text.startswith("{") or not ("fooocus_scheme" in texts or "Fooocus" in text):
        return None
    known = {name.lower(): value for name, value in json.loads(text).items()}
    return _details(
        "Fooocus",
        known.get("base_model"),
        known.get("prompt"),
        negative=known.get("negative_prompt"),
        keyword=keyword,
    )


def _midjourney(keyword: str, text: str, _: Texts) -> Details | None:
    if not _JOB.search(text):
        return None
    version = _MIDJOURNEY_VERSION.search(text)
    prompt = _JOB.sub("", text)
    return _details("Midjourney", version and version[1], prompt, keyword=keyword)


def _labelled(keyword: str, text: str, _: Texts) -> Details | None:
    """The label required in China (GB 45438): 1 generated, 2 likely, 3 suspected."""
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
        keyword=keyword.upper(),
        label="1",
    )


def _grok(_: str, text: str, texts: Texts) -> Details | None:
    if _GROK.match(text) and any(map(_UUID.match, texts.get("artist", ()))):
        return _details("Grok", None, None, keyword="Artist")
    return None


def _named(keyword: str, text: str, texts: Texts) -> Details | None:
    """A generator's name in a field for programs."""
    generator = editors.generator(text[:1000])
    if generator is None:
        return None
    prompt = _first(texts, "prompt") or _first(texts, "description")
    return _details(generator, None, prompt, keyword=keyword)


_GRAPHS = ("make", "model", "description", "usercomment")
# Formats, and the keywords of texts in which they are looked for, in this order.
_FORMS: tuple[tuple[tuple[str, ...], Callable[[str, str, Texts], Details | None]], ...] = (
    (("parameters", "usercomment"), _swarm),
    (("software",), _novelai),
    (("invokeai_metadata",), _invoke),
    (("sd-metadata",), _old_invoke),
    (("dream",), _dream),
    (("parameters", "comment", "usercomment"), _fooocus),
    (("prompt", *_GRAPHS), _comfy_prompt),
    (("workflow", *_GRAPHS), _comfy_workflow),
    (("parameters", "usercomment", "comment", "description"), _parameters),
    (("description", "comment"), _midjourney),
    (("aigc",), _labelled),
    (("description",), _grok),
    # Not titles, comments and authors: people write them.
    (("software", "generator", "source"), _named),
)


def _first(texts: Texts, keyword: str) -> str | None:
    return next(iter(texts.get(keyword, ())), None)


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
        prompt=clean(prompt, MAX_PROMPT, lines=True) if isinstance(prompt, str) else None,
        negative_prompt=clean(negative, MAX_PROMPT // 2, lines=True)
        if isinstance(negative, str)
        else None,
        settings=clean(settings, 1000) if settings else None,
        keyword=keyword,
    )
