"""What tests of plots share: reading drawn lines, and what holds for every figure of the book."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D


def points(artist) -> tuple[np.ndarray, np.ndarray]:
    """x and y of a drawn line."""
    x, y = artist.get_data()
    return np.asarray(x, dtype=float), np.asarray(y, dtype=float)


def line(figure: Figure, label: str, axes: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The one line of a panel with this text in its label."""
    (found,) = (x for x in figure.axes[axes].get_lines() if label in str(x.get_label()))
    return points(found)


def draws(artist, x, y) -> None:
    """A drawn line goes through these points."""
    np.testing.assert_allclose(points(artist), (x, y))


def curves(axes: Axes) -> list[Line2D]:
    """The lines of a panel that have more than two points: what was measured, no marks."""
    return [x for x in axes.get_lines() if len(points(x)[0]) > 2]


def fills(band, x, low, high) -> None:
    """A shaded band has these edges."""
    vertices = {tuple(vertex) for vertex in band.get_paths()[0].vertices}
    assert vertices == {*zip(x, low, strict=True), *zip(x, high, strict=True)}


def scatters(cloud, x, y) -> None:
    """A drawn cloud has these points."""
    np.testing.assert_allclose(cloud.get_offsets(), np.transpose((x, y)))


def card(figure: Figure) -> None:
    """It renders on an opaque near-white card."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    buffer.seek(0)
    pixels = plt.imread(buffer)
    assert pixels.shape[2] == 3 or pixels[..., 3].min() == 1.0
    assert pixels[0, 0, :3].min() > 0.95


def labelled(figure: Figure) -> None:
    """The first and the last panel have labelled axes."""
    first, last = figure.axes[0], figure.axes[-1]
    assert first.get_ylabel() and (last.get_ylabel() or last.get_xlabel())
    assert any(axes.get_xlabel() for axes in figure.axes)
