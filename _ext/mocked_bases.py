"""Sphinx extension: the parameters of classes whose base, such as torch.nn.Module, is mocked.

The base hides what its subclass takes; without an ``__init__`` of its own it takes nothing.
"""

from __future__ import annotations

import inspect

from sphinx.application import Sphinx


def own_signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    return_annotation: str | None,
) -> tuple[str, None] | None:
    if what != "class" or not hasattr(obj, "__sphinx_mock__"):
        return None
    init = vars(obj).get("__init__")
    _self, *parameters = inspect.signature(init).parameters.values() if init else (None,)
    bare = [parameter.replace(annotation=parameter.empty) for parameter in parameters]
    return str(inspect.Signature(bare)), None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-signature", own_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
