"""What is written and drawn with besides the colours of a palette, on white, on dark and on cells of a colour."""

GREY = "#808080"  # reads on white and on dark
# No pure black or white in cells: pages turn those into the colours of text and of paper.
DARK, LIGHT = "#161616", "#fdfdfd"
_MIDDLE = 0.45


def ink_on(colour: tuple[float, float, float, float]) -> str:
    """Of dark and light what reads on a colour, by its luminance (ITU-R BT.709).

    Args:
        colour: red, green, blue and opacity, in [0, 1].
    """
    red, green, blue, _ = colour
    return DARK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > _MIDDLE else LIGHT
