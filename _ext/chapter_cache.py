"""Sphinx extension: run the chapters two at a time, and again when what they depend on changes.

jupyter-cache recognises a notebook by its code cells. A chapter depends on the library and on the
stored runs as well, so the folder of the cache is named by a hash over these: change one of them
and every chapter runs again. Chapters without a cached result are executed in a thread pool before
Sphinx reads them, so that myst-nb finds their results in the cache. A chapter that fails is not
cached: myst-nb runs it once more and reports the error.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

DEPENDENCIES = ("ijrlib", "data/runs", "data/benchmarks", "data/own_network", "pyproject.toml")
WORKERS = 2

logger = logging.getLogger(__name__)


def dependency_files(root: Path) -> Iterator[Path]:
    """The files that every chapter depends on, sorted; nothing hidden, compiled or in progress."""
    for name in DEPENDENCIES:
        top = root / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            parts = path.relative_to(root).parts
            hidden = any(part.startswith((".", "__pycache__", "checkpoint")) for part in parts)
            if path.is_file() and not hidden:
                yield path


def fingerprint(root: Path) -> str:
    """Twelve hex digits of a SHA-256 over the names and contents of the dependency files."""
    digest = hashlib.sha256()
    for path in dependency_files(root):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:12]


def name_cache(app: Sphinx, config: Config) -> None:
    """Put the cache into a folder named by the fingerprint; Sphinx re-reads when it changes."""
    cache = Path(app.outdir).parent / ".jupyter_cache" / fingerprint(Path(app.srcdir))
    config.nb_execution_cache_path = str(cache)


def execute_missing(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Execute the notebooks among `docnames` that the cache does not know."""
    if app.config.nb_execution_mode != "cache":
        return
    cache = get_cache(app.config.nb_execution_cache_path)
    missing = {}
    for path in (Path(env.doc2path(name)) for name in docnames):
        if path.suffix == ".ipynb":
            notebook = nbformat.read(path, as_version=4)
            try:
                cache.match_cache_notebook(notebook)
            except KeyError:
                missing[path] = notebook

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two kernels on two cores, a thread each

    def execute(path: Path) -> ExecutionResult:
        return single_nb_execution(
            missing[path],
            cwd=str(path.parent),
            timeout=app.config.nb_execution_timeout,
            allow_errors=False,
            extra_arguments=["--log-level=ERROR"],
        )

    with ThreadPoolExecutor(WORKERS) as pool:
        futures = {pool.submit(execute, path): path for path in missing}
        for future in as_completed(futures):
            path, result = futures[future], future.result()
            if result.err is not None:
                continue
            bundle = CacheBundleIn(result.nb, str(path), data={"execution_seconds": result.time})
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
            logger.info("executed %s in %.1f s", path.relative_to(app.srcdir), result.time)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", name_cache)
    app.connect("env-before-read-docs", execute_missing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
