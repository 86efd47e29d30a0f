"""The look of all pictures of a report, and how they become files."""

import io
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from optbench.pictures.picture import Panel
from optbench.pictures.scales import Extent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 8.0  # inches, of every picture, so that text has one size on a page
DPI = 120
_LABEL_INCHES = 0.5  # from the axes to the label on their left
MOST_LETTERS = 28
_MOST_IN_LABEL = 40

# All of middling lightness: the contrast is 3:1 or more, with white and with nearly black.
_COLOURS = (
    *("#3478d6", "#e06c00", "#1f9e58", "#d6304a", "#8a5fd6", "#0e98b0"),
    *("#dd5fb0", "#97603a", "#7f9400", "#737b87", "#b8860b", "#a0408c"),
)
_DASHES: Sequence[Any] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
_MARKERS = ("o", "s", "^", "D", "v", "P")
_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "axes.titlesize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "lines.linewidth": 1.4,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.usetex": False,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.transparent": False,
}
_PATH = re.compile(rb'(<path (?:id="[^"]*" )?d=")([^"]*)')
_DIGITS = re.compile(rb"(\.\d\d)\d+")
_FONT = re.compile(rb"(<text style=\"font: [^\"']*)'DejaVu Sans'")


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one thing is drawn.

    Attributes:
        colour: as `#rrggbb`.
        dashes: of its lines, in matplotlib's terms.
        marker: of its points, in matplotlib's terms.
    """

    colour: str
    dashes: Any = "-"
    marker: str = "o"


class Palette:
    """The same style for the same optimizer in all pictures of a report.

    Args:
        names: of all optimizers of the report. The order decides on the colours; after twelve the colours come again
            with other dashes and markers.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._styles: dict[str, Style] = {}
        for name in names:
            if name not in self._styles:
                turn, place = divmod(len(self._styles), len(_COLOURS))
                self._styles[name] = Style(
                    colour=_COLOURS[place],
                    dashes=_DASHES[turn % len(_DASHES)],
                    marker=_MARKERS[turn % len(_MARKERS)],
                )

    def style(self, name: str) -> Style:
        """Of an optimizer.

        Raises:
            KeyError: the palette was made without it.
        """
        return self._styles[name]


@dataclass(frozen=True, kw_only=True)
class Key:
    """An entry of a drawn legend: a line, a point, a line with points, or an area."""

    label: str
    style: Style
    kind: Literal["line", "point", "both", "area"] = "line"


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a picture is drawn on.

    Attributes:
        name: of the picture.
        figure: matplotlib's.
        axes: by row and column.
    """

    name: str
    figure: "Figure"
    axes: Sequence[Sequence["Axes"]]


@dataclass(frozen=True, kw_only=True)
class Margins:
    """Room around and between axes, in inches.

    Attributes:
        left: for numbers and a label.
        right: of the last column.
        top: above the first row.
        bottom: for numbers and a label, above the legend.
        between: two columns.
        under: each row but the last.
        widths: of the columns, relative to each other; equal where there are none.
    """

    left: float = 0.72
    right: float = 0.15
    top: float = 0.12
    bottom: float = 0.46
    between: float = 0.2
    under: float = 0.2
    widths: Sequence[float] = ()


@contextmanager
def new_page(
    name: str,
    *,
    height: float,
    rows: int = 1,
    columns: int = 1,
    margins: Margins | None = None,
    keys: Sequence[Key] = (),
) -> Iterator[Page]:
    """A page with axes and a legend below them; all drawing is done within the context.

    The places of the axes are fixed beforehand: to fit them around their labels takes as long as to draw them.

    Args:
        name: of the picture; what is random in its SVG comes from it.
        height: of each axes, in inches.
        rows: of axes.
        columns: of axes.
        margins: around them.
        keys: the entries of the legend; none for no legend.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    room = margins or Margins()
    num_columns, legend_height = _legend_size(keys)
    total = room.top + rows * height + (rows - 1) * room.under + room.bottom + legend_height
    with mpl.rc_context():
        mpl.rcdefaults()  # what a person has set for other pictures does not matter here
        mpl.rcParams.update({**_STYLE, "svg.hashsalt": name})
        figure = Figure(figsize=(WIDTH, total))
        shares = room.widths or [1.0] * columns
        free = WIDTH - room.left - room.right - (columns - 1) * room.between
        grid: list[list[Axes]] = []
        for row in range(rows):
            bottom = total - room.top - (row + 1) * height - row * room.under
            left = room.left
            grid.append([])
            for share in shares:
                width = free * share / sum(shares)
                grid[-1].append(figure.add_axes((left / WIDTH, bottom / total, width / WIDTH, height / total)))
                left += width + room.between
        page = Page(name=name, figure=figure, axes=grid)
        if keys:
            _draw_legend(page, keys, num_columns=num_columns)
        yield page


def frame(page: Page, axes: "Axes", *, x: tuple[str, Extent], y: tuple[str, Extent], most: int = 6) -> Panel:
    """Set the axes up: limits, scales, round numbers, labels and a grid.

    Args:
        page: of the axes.
        axes: to set up.
        x: the label, and what is shown.
        y: the same upwards.
        most: about how many numbers go along x at most; upwards it is one less.
    """
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    for letter, (label, shown), count in (("x", x, most), ("y", y, most - 1)):
        axis = axes.xaxis if letter == "x" else axes.yaxis
        axes.set(**{f"{letter}scale": shown.scale, f"{letter}lim": (shown.low, shown.high)})
        ticks = shown.ticks(count)
        axis.set_major_locator(FixedLocator([value for value, _ in ticks]))
        axis.set_major_formatter(FixedFormatter([word for _, word in ticks]))
        axis.set_minor_locator(NullLocator())
        axes.set(**{f"{letter}label": shown_name(label, _MOST_IN_LABEL) if label else ""})
    axes.grid(visible=True, color="#a0a0a0", alpha=0.3, linewidth=0.5)
    axes.set_axisbelow(True)
    place = box(page, axes)
    axes.yaxis.set_label_coords(-_LABEL_INCHES * 72.0 / place[2], 0.5)  # labels of one column in one line
    return Panel(
        box=place,
        x_label=x[0],
        y_label=y[0],
        x_limits=(x[1].low, x[1].high),
        y_limits=(y[1].low, y[1].high),
        x_scale=x[1].scale,
        y_scale=y[1].scale,
    )


def box(page: Page, axes: "Axes") -> tuple[float, float, float, float]:
    """Left, top, width and height of the axes in the units of the SVG: points, y downwards."""
    width, height = (float(side) * 72.0 for side in page.figure.get_size_inches())
    place = axes.get_position()
    return place.x0 * width, (1.0 - place.y1) * height, place.width * width, place.height * height


def inner(axes: "Axes", *, x: bool = False, y: bool = False) -> None:
    """Leave the numbers and the label of x or y to neighbouring axes that share them."""
    axes.tick_params(labelbottom=not x, labelleft=not y)
    if x:
        axes.set_xlabel("")
    if y:
        axes.set_ylabel("")


def element(series: int, panel: int, number: int = 0) -> str:
    """The id of something that a page shows and hides."""
    return f"s{series}-p{panel}-{number}"


def shown_name(text: str, most: int = MOST_LETTERS) -> str:
    """A name as it is drawn: in one line of characters that can be seen, its middle left out if it is long."""
    words = "".join(letter if letter.isprintable() else " " for letter in text).split()
    seen = " ".join(words) or "-"
    if len(seen) <= most:
        return seen
    end = most // 3
    return f"{seen[: most - end - 1].rstrip()}…{seen[-end:].lstrip()}"


def text_size(text: str, size: float) -> tuple[float, float]:
    """Width and height in points of a text in a font of this size."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    with _silent():
        font = FontProperties(family=["DejaVu Sans"], size=size)
        width, height, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width), max(float(height), size)


@contextmanager
def _silent() -> Iterator[None]:
    """Names may have letters that the font lacks: they are drawn as boxes in the PNG, and as they are in the SVG."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support .* natively")
        yield


def render(page: Page) -> tuple[bytes, bytes]:
    """The page as SVG and as PNG. The same page gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(page.figure)
    files = []
    with _silent():
        # A little larger as PNG, and written in half the time.
        options: Sequence[tuple[str, dict[str, Any]]] = (
            ("svg", {"metadata": {"Date": None}}),
            ("png", {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 3}}),
        )
        for kind, others in options:
            buffer = io.BytesIO()
            page.figure.savefig(buffer, format=kind, dpi=DPI, **others)
            files.append(buffer.getvalue())
    svg, png = files
    # A hundredth of a point is enough; and where DejaVu Sans is not there, Verdana is as wide.
    svg = _PATH.sub(lambda found: found[1] + _DIGITS.sub(rb"\1", found[2]), svg)
    return _FONT.sub(rb"\1'DejaVu Sans', Verdana, sans-serif", svg), png


def _legend_size(keys: Sequence[Key]) -> tuple[int, float]:
    """How many columns fit, and the height in inches."""
    if not keys:
        return 0, 0.0
    widths = [0.48 + 0.075 * len(shown_name(key.label)) for key in keys]
    fits = int((WIDTH - 0.3) / max(widths))
    num_columns = len(keys) if sum(widths) < WIDTH - 0.3 else max(1, min(len(keys), fits))
    return num_columns, 0.12 + 0.19 * math.ceil(len(keys) / num_columns)


def _draw_legend(page: Page, keys: Sequence[Key], *, num_columns: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Line2D | Patch] = []
    for key in keys:
        colour, marker = key.style.colour, key.style.marker if key.kind in ("point", "both") else None
        if key.kind == "area":
            handles.append(Patch(facecolor=colour))
        else:
            dashes: Any = "none" if key.kind == "point" else key.style.dashes
            handles.append(Line2D([], [], color=colour, linestyle=dashes, marker=marker, markersize=4))
    legend = page.figure.legend(
        handles,
        ["?"] * len(keys),  # matplotlib leaves out names that begin with _, so that they are put in afterwards
        loc="lower center",
        ncols=num_columns,
        frameon=False,
        borderaxespad=0.3,
        borderpad=0.0,
        columnspacing=1.4,
        handletextpad=0.5,
        labelspacing=0.35,
    )
    for text, key in zip(legend.get_texts(), keys, strict=True):
        text.set_text(shown_name(key.label))
    legend.set_gid("legend")
