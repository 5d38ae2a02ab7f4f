"""Figures to look around in: numbers of a stored run, drawn in the browser with sliders.

Each function returns a :class:`ijrlib.report.Block`, whose HTML holds the numbers as JSON, the
script that draws them (``interactive.js``) and a style that follows light and dark mode.  It loads
nothing, so that it works from a file without a network, in the book as in Jupyter.  In text, and
where scripts do not run, it says so: the static figure beside it shows the same.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import numpy as np

from ijrlib import embedding, phases
from ijrlib.figures import array, positive_probabilities, typical_example
from ijrlib.report import Block

SCRIPT = Path(__file__).with_name("interactive.js")
STYLE = Path(__file__).with_name("interactive.css")


def secular_function(p: Any) -> Block:
    """Figure 1 with a slider for each weight: v(λ), its poles p_(i), the eigenvalues λ^(i) (roots,
    which the browser finds by bisection, or poles at a tie) and the bounds of Theorem 1 as a band.

    Args:
        p: positive probabilities, shape (C,): what it begins with.

    Raises:
        ValueError: where p is no vector of positive probabilities.
    """
    p = positive_probabilities(p)
    return _block("secular", "Secular function with a slider for each weight", {"p": p.tolist()})


def impurity_path(run: Any) -> Block:
    """Figure 2 left for each tracked example: λ^(1) against p_(1) between the bounds of Theorem 1,
    with a slider for the example and one for the step.  Rounded to thousandths."""
    p1, values = array(run, "tracked_p1"), array(run, "tracked_impurity")
    numbers = {
        "steps": run.arrays["tracked_impurity.steps"].tolist(),
        "p1": np.rint(1000 * p1.T).astype(int).tolist(),
        "impurity": np.rint(1000 * values.T).astype(int).tolist(),
        "typical": typical_example(run),
    }
    return _block("impurity", "Path of an example, with sliders for example and step", numbers)


def path(run: Any) -> Block:
    """Figure 4 left: UMAP of the recorded path; a slider, or the pointer, chooses the step whose
    ‖H‖ and cosine (:func:`ijrlib.embedding.step_cosines`) are shown."""
    points = array(run, "trajectory_umap")
    steps = np.asarray(run.arrays["trajectory_umap.steps"])
    sharpness = run.series.set_index("step")["sharpness"].reindex(steps)
    cosines = [None, *embedding.step_cosines(array(run, "trajectory_gram")).tolist(), None]
    numbers = {
        "steps": steps.tolist(),
        "points": np.round(points, 3).tolist(),
        "sharpness": [_finite(value, 5) for value in sharpness],
        "threshold": 2 / run.config.lr,
        "onset": phases.onset(run) if phases.reaches_threshold(run) else None,
        "cosines": [_finite(value, 3) for value in cosines],
    }
    return _block("trajectory", "Path of the parameters, with a slider for the step", numbers)


def _finite(value: Any, digits: int) -> float | None:
    """Rounded to significant digits; None where there is no number, as JSON has no NaN."""
    return float(f"{value:.{digits}g}") if value is not None and np.isfinite(value) else None


def _block(kind: str, description: str, numbers: dict[str, Any]) -> Block:
    data = json.dumps(numbers, separators=(",", ":"), allow_nan=False)
    page = (
        f"<style>{STYLE.read_text(encoding='utf-8')}</style>"
        f'<figure class="ijr-look" data-ijr-look="{kind}" aria-label="{html.escape(description)}">'
        f'<script type="application/json">{data}</script>'
        "<noscript>This figure needs scripts; the one above shows the same.</noscript></figure>"
        f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>"
    )
    return Block(page, f"{description}: to be used in a browser")
