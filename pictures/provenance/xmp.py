"""Provenance in XMP: digital source type, credit, program and history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder

from defusedxml.ElementTree import XMLParser

from pictures.origin import Confidence, Says, Source, Statement
from pictures.provenance import editors, source_type
from pictures.provenance.statement import MAX_PROMPT, clean, present

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_EXTENSION = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_BASIC = "http://ns.adobe.com/xap/1.0/"
_EVENT = "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
_NAMES = {
    f"{{{_EXTENSION}}}DigitalSourceType": "source_type",
    f"{{{_EXTENSION}}}DigitalSourcefileType": "source_type",  # misspelt by some
    f"{{{_EXTENSION}}}AISystemUsed": "ai_system",
    f"{{{_EXTENSION}}}AISystemVersionUsed": "ai_system_version",
    f"{{{_EXTENSION}}}AIPromptInformation": "prompt",
    f"{{{_PHOTOSHOP}}}Credit": "credit",
    f"{{{_BASIC}}}CreatorTool": "creator_tool",
    "{http://purl.org/dc/terms/}provenance": "remote_manifest",
    "{http://purl.org/dc/elements/1.1/}description": "description",
    "{http://ns.adobe.com/exif/1.0/}UserComment": "comment",
}
_LABEL = "AIGC"  # of China's TC260: local name; the namespace varies
_HISTORY = "{http://ns.adobe.com/xap/1.0/mm/}History"
_MAX_EVENTS = 20
_MAX_NODES = 50_000  # elements and attributes
_MAX_NAMES = 8 * 2**20  # characters of their names, each with its namespace
_MAX_NAMESPACE = 200  # characters; repeated in each name, real ones have less than 100
_STEP = 2**14  # bytes; the parser stops after the step in which a limit is exceeded
_EDITS = frozenset(("edited", "manipulated", "cropped", "filtered", "color_adjustments"))


@dataclass
class Xmp:
    """The relevant content of an XMP packet."""

    statement: Statement | None
    texts: list[tuple[str, str]] = field(default_factory=list)
    """Keyword and text, possibly of generators."""


def read(packet: bytes) -> Xmp:
    """Read an XMP packet.

    Raises:
        Exception: Of any kind, if the packet is not well-formed, has a DTD or is too complex.
    """
    found, history = _properties(_parse(packet.strip(b"\0 \t\r\n")))
    details = present(
        source_type=source_type.name(found.get("source_type", "")),
        ai_system=" ".join(filter(None, (found.get("ai_system"), found.get("ai_system_version")))),
        credit=found.get("credit"),
        creator_tool=found.get("creator_tool"),
        prompt=found.get("prompt"),
        history=history,
        remote_manifest=found["remote_manifest"] if _is_remote(found) else None,
    )
    texts = [
        (keyword, found[name])
        for name, keyword in (
            ("description", "Description"),
            ("comment", "UserComment"),
            ("label", _LABEL),
        )
        if name in found
    ]
    return Xmp(_statement(details) if details else None, texts)


class _Builder(TreeBuilder):
    """Builds the tree of a packet; raises ValueError if it exceeds a limit."""

    def __init__(self) -> None:
        super().__init__()
        self._nodes = self._names = 0

    def start_ns(self, _prefix: str, namespace: str) -> None:
        """Check a declaration of a namespace."""
        if len(namespace) > _MAX_NAMESPACE:
            raise ValueError("the name of an XML namespace is too long")

    def start(self, tag: Any, attrs: dict[Any, Any], /) -> Any:
        """Count an element and its attributes, and add them."""
        self._nodes += 1 + len(attrs)
        self._names += len(tag) + sum(map(len, attrs))
        if self._nodes > _MAX_NODES or self._names > _MAX_NAMES:
            raise ValueError("the XMP packet has too many elements")
        return super().start(tag, attrs)


def _parse(packet: bytes) -> Element:
    parser = XMLParser(target=_Builder(), forbid_dtd=True)
    for start in range(0, len(packet), _STEP):
        parser.feed(packet[start : start + _STEP])
    root: Element = parser.close()
    return root


def _is_remote(found: dict[str, str]) -> bool:
    """Whether XMP refers to a manifest outside the file."""
    return found.get("remote_manifest", "").startswith(("https://", "http://"))


def _statement(details: dict[str, Any]) -> Statement:
    named = [str(details.get(name, "")) for name in ("ai_system", "credit", "creator_tool")]
    naming = next(filter(editors.generator, named), "")
    generator = editors.generator(naming)
    says = source_type.SAYS.get(str(details.get("source_type")))
    if says is None and (generator is not None or "ai_system" in details):
        says = Says.COMPOSITE if editors.edited_by_generator(naming) else Says.GENERATED
    history = details.get("history")
    events = history if isinstance(history, list) else []
    edited = any(event.get("action") in _EDITS for event in events) or any(
        editors.is_editor(program)
        for program in (named[-1], *(event.get("program", "") for event in events))
    )
    if says is None and edited:
        says = Says.EDITED
    by = generator or next(filter(None, named), None)
    return Statement(Source.XMP, says, by, Confidence.UNSIGNED, details)


def _properties(root: Element) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The values of known properties, and the events of the history."""
    found: dict[str, str] = {}
    events: list[dict[str, str]] = []
    looked_at: set[str] = set()  # each only once, since nested ones would take quadratic time
    for element in root.iter():
        if element.tag == _HISTORY and not events:
            events = list(_events(element))
        for name in (*element.attrib, element.tag):
            short = "label" if name.endswith(f"}}{_LABEL}") else _NAMES.get(name)
            if short is None or (short in looked_at and name == element.tag) or short in found:
                continue
            looked_at.add(short)
            value = element.attrib.get(name) or _value(element)
            if value:
                found[short] = (
                    clean(value, MAX_PROMPT, lines=True) if short in _LONG else clean(value)
                )
    return found, events


_LONG = ("prompt", "description", "comment", "label")


def _value(element: Element) -> str:
    """The value of a property: its resource, the first item of its list, or its text."""
    resource = element.get(f"{{{_RDF}}}resource")
    if resource:
        return resource
    if len(element):
        item = element.find(f".//{{{_RDF}}}li")
        return (item.text if item is not None else None) or ""
    return element.text or ""


def _events(history: Element) -> Iterator[dict[str, str]]:
    for item in history.findall(f"*/{{{_RDF}}}li")[:_MAX_EVENTS]:
        fields: dict[str, str] = defaultdict(str, item.attrib)
        for holder in (item, *item.findall(f"{{{_RDF}}}Description")):
            fields.update(holder.attrib)
            fields.update({one.tag: one.text or "" for one in holder if not len(one)})
        event = present(
            action=clean(fields[f"{{{_EVENT}}}action"]),
            program=clean(fields[f"{{{_EVENT}}}softwareAgent"]),
            when=clean(fields[f"{{{_EVENT}}}when"]),
        )
        if event:
            yield event
