"""Runs made up by formula: the columns of real ones, with known behavior, for tests without
training.

Not results: nothing here comes from a network.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ijrlib import logits
from ijrlib.config import RunConfig
from ijrlib.store import Run

PROVENANCE = {
    "created": "2026-11-22T10:00:00+00:00",
    "commit": "0123456789abcdef",
    "dirty": False,
    "python": "3.11.0",
    "packages": {"torch": "2.7.0"},
    "device": "cpu",
    "threads": 1,
    "wall_seconds": 90.0,
    "data": {"name": "digits", "source": "made up", "note": "no data", "sha256": "00"},
    "resumed": False,
    "status": "complete",
    "diverged_at": None,
}


def gd_run(steps: int = 300, probe: int = 40, tracked: int = 16) -> Run:
    """Full-batch run: logits grow along fixed directions, so that λ^(1) rises from 1/C and falls;
    ‖H‖ grows to 2/η and stays near it; Theorem 2 holds by construction."""
    rng = np.random.default_rng(0)
    config = RunConfig(
        dataset="digits",
        examples=200,
        network="6cnn",
        lr=0.04,
        steps=steps,
        probe=probe,
        measures={  # type: ignore[arg-type]
            "impurity": [(0, steps + 1, 1)],
            "curvature": [(0, steps + 1, 3)],
            "theorem_2": [(0, steps + 1, 30)],
            "algorithm_2": [(0, steps + 1, 150)],
        },
    )
    step = np.arange(steps + 1)
    directions = rng.standard_normal((200, 10))
    scale = 0.05 + 8 * (step / steps) ** 2
    z = scale[:, None, None] * directions
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    impurity, p1 = logits.impurity(p), p.max(-1)
    series = pd.DataFrame({"step": step, "train_loss": np.exp(-step / steps)})
    series["impurity_mean"] = impurity.mean(1)
    series["impurity_q25"], series["impurity_q75"] = np.quantile(impurity, (0.25, 0.75), axis=1)
    series["p1_mean"] = p1.mean(1)

    threshold = 2 / config.lr
    growth = threshold * (1 - np.exp(-step / (steps / 6)))
    sharpness = (growth + 3) * (1 + 0.06 * np.sin(step / 2) * (growth > 0.9 * threshold))
    on_schedule = np.isin(step, config.measured_steps("curvature"))
    series["sharpness"] = np.where(on_schedule, sharpness, np.nan)
    jacobian = sharpness / np.maximum(impurity.mean(1), 0.02)
    series["jacobian_norm_sq"] = np.where(on_schedule, jacobian, np.nan)

    steps_2 = np.array(config.measured_steps("theorem_2"))
    jacobian_x = rng.uniform(0.5, 1.5, (len(steps_2), probe)) * jacobian[steps_2, None]
    share = rng.uniform(0.05, 0.8, (len(steps_2), probe))
    star = share * impurity[steps_2, :probe]
    norm, bound = (star * jacobian_x).mean(1), (impurity[steps_2, :probe] * jacobian_x).mean(1)
    for name, values in {
        "gauss_newton_norm": norm,
        "theorem_2_mean": norm,
        "theorem_2_bound": bound,
        "theorem_2_residual": np.full(len(steps_2), 5e-4),
        "theorem_2_identity": np.full(len(steps_2), 2e-7),
        "theorem_2_min_slack": (impurity[steps_2, :probe] - star).min(1),
        "theorem_2_min_star": star.min(1),
    }.items():
        series[name] = np.nan
        series.loc[steps_2, name] = values

    steps_a = np.array(config.measured_steps("algorithm_2"))
    series["jacobian_norm_exact"] = np.nan
    series.loc[steps_a, "jacobian_norm_exact"] = np.sqrt(jacobian[steps_a])
    error = 0.3 * 0.5 ** np.arange(30)
    arrays = {
        "tracked_p1": p1[:, :tracked],
        "tracked_p1.steps": step,
        "tracked_impurity": impurity[:, :tracked],
        "tracked_impurity.steps": step,
        "lambda_star": star,
        "lambda_star.steps": steps_2,
        "lambda_1": impurity[steps_2, :probe],
        "lambda_1.steps": steps_2,
        "jacobian_x_sq": jacobian_x,
        "jacobian_x_sq.steps": steps_2,
        "algorithm_2_values": np.sqrt(jacobian[steps_a])[:, None] * (1 - error),
        "algorithm_2_values.steps": steps_a,
    }
    return Run(config, series, arrays, dict(PROVENANCE))


def sgd_run(correlated: bool = True) -> Run:
    """Mini-batch run with the three windows of Figure 3: ‖⟨J⟩‖² oscillates, ‖H‖ follows it up to a
    slowly drifting factor (or, unless ``correlated``, oscillates on its own)."""
    rng = np.random.default_rng(1)
    windows = [(0, 201, 1), (1000, 1201, 1), (1500, 1701, 1)]
    config = RunConfig(
        dataset="digits",
        examples=1000,
        network="6cnn",
        lr=0.04,
        steps=1700,
        batch_size=128,
        probe=100,
        measures={"curvature": windows},  # type: ignore[arg-type]
    )
    step = np.array(config.measured_steps("curvature"))
    level = 40 * (1 - np.exp(-step / 60)) + 2
    common = 0.2 * np.sin(step / 3) + 0.05 * rng.standard_normal(len(step))
    own = common if correlated else 0.2 * rng.standard_normal(len(step))
    sharpness = level * np.exp(own + 0.02 * rng.standard_normal(len(step)))
    factor = 0.1 * np.exp(-step / 1500)
    series = pd.DataFrame(
        {
            "step": step,
            "train_loss": np.ones(len(step)),
            "sharpness": sharpness,
            "jacobian_norm_sq": level * np.exp(common) / factor,
        }
    )
    return Run(config, series, {}, dict(PROVENANCE))


PHASE_ONSET, PHASE_PEAK, PHASE_END = 100, 250, 400


def phase_run(
    lr: float = 0.04,
    seed: int = 0,
    batch_size: int | None = None,
    network: str = "6cnn",
    loss: str = "cross_entropy",
) -> Run:
    """A run with three phases that meets every claim on them: ‖H‖ grows to 2/η by step 100 and
    falls after step 300, ⟨λ^(1)⟩ is largest at step 250, ‖⟨J⟩1̂‖² = ‖H‖/⟨λ^(1)⟩; the path is
    straight up to step 100 and goes to and fro after it; class means and eigenvectors as the paper
    prints them."""
    rng = np.random.default_rng(seed)
    step = np.arange(PHASE_END + 1)
    config = RunConfig(
        dataset="digits",
        examples=1000,
        network=network,
        lr=lr,
        steps=PHASE_END,
        batch_size=batch_size,
        loss=loss,
        seed=seed,
        probe=500,
        measures={"curvature": [(0, PHASE_END + 1, 1)]},  # type: ignore[arg-type]
    )
    late = np.exp(-np.maximum(0, step - 300) / 40)
    level = np.where(step < PHASE_ONSET, np.exp((step - PHASE_ONSET) / 20), late)
    sharpness = 2 / lr * level * (1 + 0.02 * np.abs(np.sin(step)))
    impurity = 0.01 + 0.3 * np.exp(-(((step - PHASE_PEAK) / 70) ** 2))
    growth = np.interp(step, [0, PHASE_ONSET, PHASE_PEAK, PHASE_END], [0, 5, 5.3, 5.3])
    growth += 1e-4 * np.maximum(0, step - PHASE_PEAK) ** 2
    jacobian = np.exp(growth + 0.01 * rng.standard_normal(len(step))) * (0.04 / lr)
    series = pd.DataFrame({"step": step, "sharpness": sharpness, "impurity_mean": impurity})
    series["probe_impurity_mean"] = impurity
    series["jacobian_norm_sq"] = sharpness if loss == "squared" else jacobian
    series["jacobian_ones_sq"] = sharpness / impurity
    series["gauss_newton_norm"] = 0.9 * sharpness
    series["between_class_norm"] = 0.7 * sharpness
    series["theorem_2_bound"] = 2.0 * sharpness
    series["theorem_2_min_star"], series["theorem_2_min_slack"] = 0.1, 0.2
    series["test_accuracy"] = np.minimum(step, 200) / 400
    series["train_accuracy"] = step / PHASE_END
    series["train_loss"], series["test_loss"] = np.exp(-step / 100), np.exp(-step / 200)
    for slope, name in enumerate(("logit_norm", "logit_sum", "weight_norm", "distance"), 1):
        series[name] = 1.0 + slope * step
    series["gradient_alignment"] = 0.5
    for name, value in (("mean", 0.6), ("q25", 0.4), ("q75", 0.9), ("correct", 0.95)):
        series[f"descent_cosine_{name}"] = value
    series["subspace_alignment_gradient"] = series["subspace_alignment_top"] = 0.8
    series["classes_present"] = np.where(step < 50, 7.0, 10.0)
    series["cos_sq_median"] = 0.02

    few = step[::10]
    eigenvectors = np.zeros((10, 10))
    diagonal = (0.44, 0.25, 0.17, 0.13, 0.09, 0.07, 0.05, 0.04, 0.02)
    below = (0.27, 0.23, 0.18, 0.16, 0.13, 0.12, 0.09, 0.08, 0.06)
    eigenvectors[range(9), range(9)], eigenvectors[range(1, 10), range(9)] = diagonal, below
    eigenvectors[range(1, 10), range(9)] *= -1
    scaled = np.repeat(eigenvectors[None], len(few), axis=0)
    scaled[:, :, 0] *= np.exp((few - PHASE_PEAK) / 400)[:, None]
    cosines = np.full((10, 10), 0.05)
    np.fill_diagonal(cosines, 1)
    for i, j, value in ((1, 9, -0.5), (3, 5, -0.3), (3, 6, -0.2), (4, 7, -0.2), (8, 9, -0.2)):
        cosines[i, j] = cosines[j, i] = value
    products = np.full((10, 10), -0.02)
    np.fill_diagonal(products, 0.3)
    classes = np.arange(500) % 10
    plane = np.full((5, 500, 2), np.nan)
    for k, (i, j) in enumerate(((5, 1), (0, 8), (1, 9), (5, 3), (4, 2))):
        plane[k, classes == i] = [0.6, 0]
        plane[k, classes == j] = 0.6 * np.array([cosines[i, j], (1 - cosines[i, j] ** 2) ** 0.5])
    stretch = np.zeros((9, 100))
    stretch[:, 12:30] = 10
    arrays = {
        "q_sqrt_lambda": scaled,
        "class_counts": np.full((len(few), 10), 50),
        "resultant_products": np.repeat(products[None], len(few), axis=0),
        "class_mean_cosines": np.repeat(cosines[None], len(few), axis=0),
        "probable_class": np.repeat(classes[None], len(few), axis=0),
        "plane_coordinates": np.repeat(plane[None], len(few), axis=0),
        "stretch_counts": np.repeat(stretch[None], len(few), axis=0),
        "cos_sq_counts": np.repeat(10.0 * (np.arange(100) < 5)[None], len(few), axis=0),
        "layer_norms": np.linspace(1, 2, len(few))[:, None] * np.ones(6),
        "lambda_1": np.ones((len(few), 500)),
        "share_sharpness": np.outer(sharpness[few], (1.08, 1.05, 1.0)),
        "share_jacobian_sq": np.outer(jacobian[few], (1.05, 1.02, 1.0)),
    }
    arrays |= {f"{name}.steps": few for name in list(arrays)}
    path = np.zeros((301, 2))
    path[:, 0] = np.where(step[:301] <= PHASE_ONSET, step[:301], 90 + 0.1 * step[:301])
    path[PHASE_ONSET::2, 1] = 1
    arrays |= {"trajectory_gram": path @ path.T, "trajectory_gram.steps": step[:301]}
    arrays |= {"trajectory_umap": path, "trajectory_umap.steps": step[:301]}
    return Run(config, series, arrays, {**PROVENANCE, "parameters": 511_926})


def arm_run(
    network: str,
    accuracy: float,
    *,
    seed: int = 0,
    fitted: float = 1.0,
    loss: float = 1.0,
    fall: float = 0.0,
    **fields,
) -> Run:
    """A run of a comparison: test accuracy and loss are constant but for a fall of the accuracy and
    a rise of the loss by ``fall`` to the end of each interval between decays; ``fitted`` is the
    training accuracy."""
    config = RunConfig(
        dataset="digits",
        examples=1000,
        network=network,
        lr=fields.pop("lr", 0.1),
        steps=fields.pop("steps", 100),
        batch_size=fields.pop("batch_size", 128),
        seed=seed,
        probe=100,
        test_examples=5000,
        weight_decay=0.0 if network == "simple_cnn" else 5e-4,
        measures={"accuracy": [(0, 101, 5)]},  # type: ignore[arg-type]
        **fields,
    )
    step = np.linspace(0, config.steps, 21).astype(int)
    ends = np.isin(np.arange(21), (12, 16, 20))
    series = pd.DataFrame({"step": step, "train_accuracy": fitted})
    series["test_loss"] = loss + fall * ends
    series["test_accuracy"] = accuracy - fall * ends
    return Run(config, series, {}, dict(PROVENANCE))


def break_even_run(
    lr: float = 0.1,
    seed: int = 0,
    batch_size: int = 128,
    onset: int = 40,
    network: str = "simple_cnn_be",
) -> Run:
    """A run of the companion papers: ‖H‖ grows to 2/η at step ``onset`` of 100 and stays there,
    λ_K grows with it and falls; the step width falls to 2; the impurity is largest at step 80."""
    rng = np.random.default_rng(seed)
    step = np.arange(0, 101, 2)
    config = RunConfig(
        dataset="digits",
        examples=1000,
        network=network,
        lr=lr,
        steps=100,
        batch_size=batch_size,
        seed=seed,
        probe=250,
        measures={"curvature": [(0, 101, 2)]},  # type: ignore[arg-type]
    )
    level = np.exp((np.minimum(step, onset) - onset) / 10)
    noise = np.exp(0.02 * rng.standard_normal((3, len(step))))
    series = pd.DataFrame({"step": step, "sharpness": 2 / lr * level})
    late = np.exp(-np.maximum(0, step - onset) / 100)
    series["covariance_norm"] = 3 / lr * level * late * noise[0]
    series["covariance_norm_single"] = 2 / lr * level * late * noise[1]
    series["covariance_trace"] = 12 / lr * level**0.9 * noise[2]
    series["curvature_variance"] = 150 / lr**2 * level**2
    series["hessian_trace"] = 5 * series["sharpness"]
    series["hessian_trace_error"] = 0.01 * series["hessian_trace"]
    series["step_width"] = 2 / level
    series["jacobian_norm_sq"] = 100 * level
    series["impurity_mean"] = 0.1 + 0.2 * np.exp(-(((step - 80) / 40) ** 2))
    series["train_accuracy"] = 0.2 + 0.7 * step / 100
    if network.endswith("_bn"):
        series["last_scale_norm"] = 10 + np.where(lr > 0.5, -1, 1) * step / 100
    series["gradient_over_top"] = 1.5
    return Run(config, series, {}, dict(PROVENANCE))


def path_run(lr: float, seed: int = 0, away: float = 0.5, power: float = 1.0) -> Run:
    """A break-even run with predictions that go along one direction with time, and with a small η
    along another as a power of λ_K, by ``away`` at most."""
    run = break_even_run(lr, seed, network="mlp_300_100")
    step = run.series["step"].to_numpy()
    norm = run.series["covariance_norm"].to_numpy() ** power
    side = away * norm / norm.max() if lr < 0.05 else 0 * norm
    forth = np.stack([1 - step / 200, step / 200, 0 * step], axis=1)
    aside = np.array([-0.5, -0.5, 1.0])
    values = forth[:, None, :] + side[:, None, None] * aside
    arrays = {"predictions": np.repeat(values, 4, axis=1), "predictions.steps": step}
    return Run(run.config, run.series, arrays, run.provenance)


def sharpest_run(
    lr: float = 0.05,
    batch_size: int = 128,
    seed: int = 0,
    *,
    height: float = 1.0,
    level: float = 1.0,
    peak: int = 20,
    network: str = "mlp_300_100",
    **fields,
) -> Run:
    """A run that follows its sharpest directions: ten eigenvalues grow by a factor of ten to a peak
    at step ``peak`` of 100 and settle at half of it, ``height`` times as high; the loss falls, to
    ``level`` at the end; twice the step along e_1 raises it."""
    measures = {"sharpest": [(0, 101, 2)], "accuracy": [(0, 101, 2)]}
    config = RunConfig(
        dataset="digits",
        examples=1000,
        network=network,
        lr=lr,
        steps=100,
        batch_size=batch_size,
        seed=seed,
        probe=250,
        measures=measures,  # type: ignore[arg-type]
        **fields,
    )
    step = np.arange(0, 101, 2)
    late = 0.5 + 0.5 * np.exp(np.minimum(0, peak - step) / 5)
    course = np.where(step < peak, 0.1 * 10 ** (step / peak), late)
    values = height * (1 + 0.01 * seed) / lr * course[:, None] / np.arange(1, 11)
    losses = level * (1 + 0.01 * seed) * np.exp((100 - step) / 25)
    points = np.linspace(-2, 2, 9)
    steep = np.array([0.1, 0.02, 0.01])[None, :, None]
    arrays = {
        "top_values": values,
        "top_residuals": np.full(values.shape, 0.01),
        "gradient_cosines": np.full(values.shape, 0.2),
        "step_lengths": np.full(values.shape, 0.1),
        "loss_changes": losses[:, None] * np.array([-0.001, 0.01, 0.1]),
        "surfaces": losses[:, None, None] * (1 + steep * points**2),
    }
    arrays |= {f"{name}.steps": step for name in list(arrays)}
    series = pd.DataFrame({"step": step, "train_loss": losses})
    series["train_accuracy"] = 0.1 + 0.8 * step / 100
    series["test_accuracy"] = 0.1 + 0.6 * step / 100
    series["hessian_frobenius_sq"] = 2 * (values**2).sum(1)
    series["hessian_frobenius_sq_error"] = 0.01 * series["hessian_frobenius_sq"]
    return Run(config, series, arrays, {**PROVENANCE, "parameters": 266_610})


AHEAD, SWING = [(1, 0)], [(0.1, 1), (0.1, -1)]  # straight on; to and fro across the way


def path_gram(*parts) -> np.ndarray:
    """The Gram matrix of a path made of steps (along, across), so many of each: (cycle, count)."""
    steps = np.concatenate(
        [np.resize(np.array(cycle, float), (count, 2)) for cycle, count in parts]
    )
    points = np.vstack([[0, 0], steps.cumsum(0)])[:301]
    return points @ points.T
