"""An SVG file as a part of a page: its names apart from those of others, its black and white those of the page."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}"
XML = "{http://www.w3.org/XML/1998/namespace}"
# What runs or holds foreign markup has no place in a drawing; a `<style>` would hold for the whole page.
_DROPPED = {SVG + name for name in ("metadata", "style", "script", "foreignObject")}
_TEXTS = {"text", "tspan", "title", "desc"}
_COORDINATES = {"d", "x", "y"}
_PAINTS = {"style", "fill", "stroke"}
# A name within the drawing, or what is outside it and matches no group.
_URL = re.compile(r"""url\(\s*["']?(?:#([^)"']+)|[^)]*)["']?\s*\)""")
_TRANSLATED = re.compile(r"translate\(\S+[ ,]+([-\d.e]+)\)")
_PLACES = re.compile(r"[ML] \S+ ([-\d.e]+)")
_DESCENT = 5.0  # points: room for what is below the line in the last text
_DIGITS = re.compile(r"(?<=\.\d\d)\d+")  # a hundredth of a point is enough
_FAMILIES = re.compile(r"'DejaVu Sans'.*")
_BLACK = re.compile(r"#000000\b|#000\b|\bblack\b")
_WHITE = re.compile(r"#ffffff\b|#fff\b|\bwhite\b")


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """An `<svg>` element.

    Attributes:
        text: of the element.
        width: of its `viewBox`, in points.
    """

    text: str
    width: float


def embedded(svg: bytes, *, prefix: str, label: str, without: Collection[str] = ()) -> Drawing:
    """The `<svg>` element of a file that matplotlib wrote, to be put into HTML.

    Black becomes the colour of the text around it, and what is white but no text becomes `var(--paper)`, so that a dark
    page shows it, too. Width and height go: the page gives them. Scripts, styles, event handlers and all that is
    referred to outside the drawing go as well.

    Args:
        svg: the file.
        prefix: stands before each id in it, and wherever one is referred to: ids are unique within a page.
        label: what those hear who do not see it.
        without: ids of elements that are left out; where they were at the bottom, the drawing ends above them.

    Raises:
        xml.etree.ElementTree.ParseError: it is not XML.
    """
    root = ElementTree.fromstring(svg)
    left, top, width, height = (float(part) for part in root.attrib["viewBox"].split())
    gone = [element for element in root.iter() if element.get("id") in without]
    _drop(root, frozenset(without))
    heights = [y for element in gone for y in _heights(element)]
    last = max(_heights(root), default=height) + _DESCENT
    if heights and top + height / 2.0 < last < min(heights):
        root.set("viewBox", f"{left:g} {top:g} {width:g} {last - top:g}")
    for element in root.iter():
        _convert(element, prefix)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib.update({"role": "img", "aria-label": label})
    return Drawing(text=ElementTree.tostring(root, encoding="unicode"), width=width)


def _heights(element: ElementTree.Element) -> Iterator[float]:
    """How far down its lines and texts are, those aside that are cut at the edge of axes."""
    if element.tag in (SVG + "defs", SVG + "image") or "clip-path" in element.attrib:
        return
    moved = _TRANSLATED.match(element.get("transform", ""))
    if moved:
        yield float(moved[1])
        return
    for found in _PLACES.finditer(element.get("d", "")):
        yield float(found[1])
    if element.get("y"):
        yield float(element.attrib["y"])
    for child in element:
        yield from _heights(child)


def _drop(parent: ElementTree.Element, without: Collection[str]) -> None:
    is_frame = parent.get("id", "").startswith(("figure_", "axes_"))
    for place, child in enumerate(list(parent)):
        is_unwanted = child.tag in _DROPPED or not child.tag.startswith(SVG) or child.get("id") in without
        if is_unwanted or (is_frame and place == 0 and _is_background(child)):
            parent.remove(child)
        else:
            _drop(child, without)


def _is_background(element: ElementTree.Element) -> bool:
    """Whether it is the white sheet that matplotlib lays under a figure, and under its axes."""
    paths = list(element)
    return element.get("id", "").startswith("patch_") and len(paths) == 1 and "#ffffff" in paths[0].get("style", "")


def _convert(element: ElementTree.Element, prefix: str) -> None:
    element.tag = element.tag.removeprefix(SVG)
    is_text = element.tag in _TEXTS
    given = dict(element.attrib)
    element.attrib.clear()
    for given_name, value in given.items():
        name = given_name.removeprefix(XLINK).replace(XML, "xml:")
        if name.startswith("{") or name.lower().startswith("on"):
            continue
        if name == "id":
            value = prefix + value
        elif name == "href":
            if not value.startswith(("#", "data:image/")):
                continue
            value = f"#{prefix}{value[1:]}" if value.startswith("#") else value
        elif name in _COORDINATES:
            value = " ".join(_DIGITS.sub("", value).split())
        elif name in _PAINTS:
            value = _painted(value, is_text=is_text)
        element.set(name, _URL.sub(lambda found: f"url(#{prefix}{found[1]})" if found[1] else "none", value))
    if not is_text and element.text and not element.text.strip():
        element.text = None
    for child in element:
        if child.tail and not child.tail.strip() and (not is_text or "\n" in child.tail):
            child.tail = None


def _painted(value: str, *, is_text: bool) -> str:
    """A style in the page's black and white, and in its font."""
    value = _BLACK.sub("currentColor", value)
    if not is_text:  # white text is on a coloured ground, where it has to stay white
        value = _WHITE.sub("var(--paper)", value)
    parts = [part for part in value.split("; ") if not part.startswith("font-family:")]
    return "; ".join(_FAMILIES.sub("sans-serif", part) if part.startswith("font:") else part for part in parts)
