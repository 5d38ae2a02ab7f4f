"""A miniature of every benchmark on digits; the goals; the files; what the chapter shows of them.

The miniature has a smaller network in place of 6CNN and takes seconds.
"""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from ijrlib import (
    benchmark_suite,
    benchmarks,
    figures,
    networks,
    peers,
    regularizer_benchmark,
    regularizers,
    report,
    static_benchmarks,
    tracking_benchmarks,
    training_benchmark,
    workloads,
)
from ijrlib.benchmarks import OURS, row
from ijrlib.cli import app
from ijrlib.operators import cross_entropy, loss_and_gradient
from ijrlib.training import train

MINIATURE = workloads.Sizes(
    examples=48,
    lr=0.5,
    check_every=5,
    most_steps=40,
    settle=2,
    window=3,
    tight=2,
    every=2,
    cold=2,
    peers=2,
    tight_peers=1,
    jacobian={10: 24, 100: 8},
    per_example=4,
    theorem_2=4,
    impurity={10: 200, 100: 20, 1000: 4},
    impurity_peer={10: 200, 100: 10, 1000: 2},
    impurity_alone=(2000, 2),
    accuracy={10: 8, 100: 2, 1000: 1},
    loop=(64, 16, 2),
    full_batch=(32, 2),
    loop_rounds=2,
    growth_examples=(8, 16),
    growth_widths=(8, 16),
    growth_classes=(10, 20),
    growth_images=16,
    memory=64,
    update=8,
)


def small_network(classes: int = 10) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 4, 4, stride=4, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 16),
        nn.ReLU(),
        nn.Linear(16, classes),
    )


@pytest.fixture(scope="module", autouse=True)
def miniature(tmp_path_factory):
    """No data set, a small network, small sizes."""
    environment = pytest.MonkeyPatch()
    environment.setenv("IJR_DATA", str(tmp_path_factory.mktemp("none")))
    environment.setattr(networks, "six_layer_cnn", small_network)
    environment.setitem(networks.NETWORKS, "6cnn", small_network)
    environment.setattr(benchmark_suite, "FULL", MINIATURE)
    environment.setattr(regularizer_benchmark, "NETWORKS", {"SimpleCNN": "simple_cnn"})
    yield
    environment.undo()


def workload(sizes: workloads.Sizes = MINIATURE) -> workloads.Workload:
    return workloads.Workload(sizes, torch.device("cpu"), 2, lambda text: None)


@pytest.fixture(scope="module")
def document():
    """Every benchmark in miniature."""
    threads = torch.get_num_threads()
    result = benchmark_suite.run(repeats=2, threads=1, say=lambda text: None)
    torch.set_num_threads(threads)
    return result


# -- the benchmarks --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", benchmark_suite.BENCHMARKS)
def test_a_benchmark_has_rows_with_costs_above_zero(name, document):
    rows = benchmarks.rows_of(document, name)
    assert OURS in {r["contender"] for r in rows} or name in ("growth", "regularizers")
    for r in rows:
        if r["note"] == tracking_benchmarks.NO_WARM_START:
            assert r["samples"] == 0 and r["seconds"] is None
        else:
            assert r["samples"] > 0 and min(r["seconds"]) > 0
            assert r["gradients"] is None or min(r["gradients"]) > 0


def test_every_contender_is_there_in_every_case_of_the_sharpness(document):
    rows = benchmarks.rows_of(document, "sharpness")
    tools = {OURS, "PyHessian", "curvlinops + eigsh", "curvlinops + LOBPCG"}
    for case in ("cold, 0.5%", "warm, 0.5%", "cold, 0.01%", "warm, 0.01%"):
        assert {r["contender"] for r in rows if r["case"] == case} >= tools
    default = benchmarks.find_row(document, "sharpness", "cold, 0.5%", "PyHessian, default")
    assert default and default["error"]


@pytest.mark.parametrize(("case", "steps"), [("warm, 0.5%", 3), ("cold, 0.5%", 2)])
def test_ours_is_measured_on_every_step_warm_and_on_some_cold(case, steps, document):
    found = benchmarks.find_row(document, "sharpness", case, OURS)
    assert found and found["samples"] == steps


def test_a_tool_that_is_stopped_by_the_reference_is_as_accurate_as_asked_for(document):
    for case, accuracy in (("cold, 0.5%", 5e-3), ("cold, 0.01%", 1e-4)):
        found = benchmarks.find_row(document, "sharpness", case, "curvlinops + LOBPCG")
        assert found and found["error"][1] <= accuracy


def test_the_papers_tools_cost_the_sum_of_their_parts(document):
    sharpness = benchmarks.find_row(document, "sharpness", "cold, 0.5%", "PyHessian, default")
    both = benchmarks.find_row(document, "measurement", "warm", benchmarks.PAPERS_TOOLS)
    second = benchmarks.find_row(document, "measurement", "‖⟨J⟩‖", benchmarks.ALGORITHM_2)
    assert sharpness and both and second
    # quartiles of two sums: the sum of the medians is exact, as a median of two is their mean
    assert both["seconds"][1] == pytest.approx(sharpness["seconds"][1] + second["seconds"][1])


def test_digits_are_said_to_stand_in_for_a_data_set_that_is_not_there(document):
    settings = {found["name"]: found["setting"] for found in document["benchmarks"]}
    assert "digits, as CIFAR-10 was not found" in settings["measurement"]
    assert document["provenance"]["data"]["name"] == "digits"


def test_what_is_scaled_up_says_so(document):
    for classes, part in ((100, 10), (1000, 2)):
        peer = benchmarks.find_row(document, "impurity", f"C = {classes}", "eigvalsh")
        assert peer and f"timed on {part} of them and scaled up" in peer["note"]
    whole = benchmarks.find_row(document, "impurity", "C = 10", "eigvalsh")
    assert whole and whole["note"] == ""


def test_a_peer_that_is_scaled_up_counts_all_vectors(monkeypatch):
    """A peer that takes a second for its 10 vectors of 20 needs two."""
    taken = {OURS: [1.0], benchmarks.DENSE_IMPURITY: [1.0]}
    monkeypatch.setattr(static_benchmarks, "interleaved", lambda *_: taken)
    sizes = dataclasses.replace(MINIATURE, impurity={100: 20}, impurity_peer={100: 10})
    rows = static_benchmarks.impurity(workload(sizes))["rows"]
    assert [r["seconds"][1] for r in rows[:2]] == [1.0, 2.0]


def test_the_impurity_is_compared_near_one_hot_too():
    sample = static_benchmarks.sample_to_the_edge(20, 10)
    others = 1 - sample.max(1)
    assert sample.shape == (20, 10) and sample.sum(1) == pytest.approx(1)
    assert (others < 1e-16).sum() >= 5 and (others > 0.1).sum() >= 5


@pytest.mark.parametrize("package", ["pyhessian", "curvlinops"])
def test_a_missing_peer_is_named_and_not_left_out(package, monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda name: name != package)
    sizes = dataclasses.replace(MINIATURE, window=1, tight=1, peers=1, cold=1)
    load = workload(sizes)
    rows = tracking_benchmarks.sharpness(load)["rows"]
    missing = {r["contender"] for r in rows if r["note"] == "not installed"}
    if package == "pyhessian":
        assert missing == {"PyHessian", "PyHessian, default"}
        both = [r for r in tracking_benchmarks.measurement(load)["rows"] if "PyHessian" in str(r)]
        assert both and all("PyHessian not installed" in r["note"] for r in both)
    else:
        assert missing == {"curvlinops + eigsh", "curvlinops + LOBPCG"}
    assert all(r["seconds"] is None for r in rows if r["contender"] in missing)


# -- the workload ----------------------------------------------------------------------------------


def test_the_window_holds_consecutive_steps_of_gradient_descent_beyond_the_edge():
    load = workload()
    window = load.window
    assert window.reached and window.sharpness > 2 / MINIATURE.lr
    assert len(window.thetas) == MINIATURE.window + 1
    model = load.network()
    for before, after in zip(window.thetas, window.thetas[1:], strict=False):
        workloads.at(model, before)
        gradient = loss_and_gradient(model, cross_entropy, load.tracked)[1]
        torch.testing.assert_close(after, before - MINIATURE.lr * gradient)


def test_a_window_that_never_reaches_the_edge_says_so():
    sizes = dataclasses.replace(MINIATURE, lr=1e-3, most_steps=5, window=1)
    load = workload(sizes)
    assert not load.window.reached
    assert "had only reached" in tracking_benchmarks.setting(load)


@pytest.mark.parametrize(
    ("count", "of", "expected"),
    [(1, 5, [0]), (2, 5, [0, 4]), (3, 5, [0, 2, 4]), (7, 3, [0, 1, 2])],
)
def test_spread_takes_the_ends_and_what_lies_evenly_between(count, of, expected):
    assert workloads.spread(count, of) == expected


@pytest.mark.parametrize("batch_size", [None, 16])
def test_the_bare_loop_takes_the_steps_of_gradient_descent(batch_size):
    """With the full batch the very steps of ``training.train``; with mini-batches as many."""
    load = workload()
    x, y = load.data(32)
    ours, bare = load.network(), load.network()
    loop = training_benchmark.bare_loop(bare, x, y, batch_size)
    options = {"lr": training_benchmark.LR, "steps": 5, "batch_size": batch_size}
    steps = train(ours, cross_entropy, x, y, **options)  # type: ignore[arg-type]
    losses = [(next(loop), step.loss) for _, step in zip(range(4), steps, strict=False)]
    assert losses[0][0] > 0
    if batch_size is None:
        theirs, own = zip(*losses, strict=True)
        assert theirs == pytest.approx(own, rel=1e-5)
        next(steps)  # ours yields before its update, the bare loop after it
        for a, b in zip(ours.parameters(), bare.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_the_memory_of_a_measurement_is_that_of_its_graphs_at_least(document):
    """6CNN keeps what comes out of each ReLU."""
    found = benchmarks.find_row(document, "memory", "full measurement", OURS)
    image = 4 * (32 * 32**2 + (32 + 64) * 16**2 + 64 * 8**2 + 100)
    assert found and MINIATURE.memory * image / 2**30 < found["gibibytes"] < 1


# -- rows ------------------------------------------------------------------------------------------


def test_a_row_summarizes_its_samples():
    found = row("c", "t", [4.0, 2.0, 6.0, 8.0], [2.0, 2.0, 2.0, 2.0], errors=[0.1, 0.3, 0.2])
    assert found["samples"] == 4
    assert found["seconds"] == [3.5, 5.0, 6.5]
    assert found["gradients"] == [1.75, 2.5, 3.25]
    assert found["error"] == [0.2, 0.3]


def test_costs_are_divided_by_the_unit_beside_them_before_they_are_summarized():
    found = row("c", "t", [1.0, 10.0, 100.0], [1.0, 5.0, 100.0])
    assert found["gradients"] == [1.0, 1.0, 1.5]


def test_one_unit_is_needed_for_each_sample():
    with pytest.raises(ValueError, match="units: expected 2, one for each sample; got 1"):
        row("c", "t", [1.0, 2.0], [1.0])


def test_the_exponent_of_a_power_law_is_its_power():
    rows = [row("n", "cubic", [2e-6 * n**3], size=n) for n in (10, 20, 50)]
    rows += [row("n", "constant", [0.5], size=n) for n in (10, 20)] + [
        row("n", "one", [1.0], size=1)
    ]
    found = benchmarks.growth_exponents(rows)
    assert [(case, name) for case, name, _ in found] == [("n", "cubic"), ("n", "constant")]
    assert [exponent for *_, exponent in found] == pytest.approx([3, 0], abs=1e-9)


# -- goals -----------------------------------------------------------------------------------------


def made_up(name: str, *rows: benchmarks.Row) -> benchmarks.Document:
    return {
        "schema": benchmarks.SCHEMA,
        "provenance": {"machine": "Abacus 3", "created": "2026-01-02T03:04:05+00:00"},
        "benchmarks": [benchmarks.entry(name, "title", "setting", rows)],
    }


def goal(statement: str) -> benchmarks.Goal:
    (found,) = (g for g in benchmarks.GOALS if g.statement == statement)
    return found


@pytest.mark.parametrize(("cost", "verdict"), [(7.9, "met"), (8.0, "met"), (8.1, "missed")])
def test_the_goal_for_a_cost_is_judged_by_the_median(cost, verdict):
    rows = [row("warm", OURS, [cost * 2, 2.0, 1000.0], [2.0, 2.0, 2.0])]
    judged = goal("full measurement, warm: cost").judge(made_up("measurement", *rows))
    assert judged == (pytest.approx(cost), verdict)


@pytest.mark.parametrize(("theirs", "verdict"), [(2.1, "met"), (1.9, "missed")])
def test_the_goal_for_a_ratio_divides_the_peers_median_by_ours(theirs, verdict):
    rows = [row("C = 10", OURS, [0.1]), row("C = 10", "eigvalsh", [theirs])]
    judged = goal("impurity, C = 10, against eigvalsh").judge(made_up("impurity", *rows))
    assert judged == (pytest.approx(10 * theirs), verdict)


@pytest.mark.parametrize(("worst", "verdict"), [(3.9, "met"), (4.1, "missed")])
def test_the_goal_for_an_error_takes_the_worst(worst, verdict):
    rows = [row("C = 100", OURS, [1.0], errors=[0.5, worst, 0.5])]
    judged = goal("impurity, C = 100: worst error").judge(made_up("impurity", *rows))
    assert judged == (worst, verdict)


def test_the_goal_for_the_loop_is_in_per_cent_above_the_bare_one():
    rows = [row("full batch", OURS, [1.02, 1.02], [1.0, 1.0])]
    judged = goal("overhead of the training loop, full batch").judge(
        made_up("training-loop", *rows)
    )
    assert judged == (pytest.approx(2), "met")


def test_a_goal_without_rows_or_with_a_missing_peer_is_not_measured():
    ratio = goal("impurity, C = 10, against eigvalsh")
    alone = made_up("impurity", row("C = 10", OURS, [1.0]), row("C = 10", "eigvalsh"))
    assert ratio.judge(alone) == (None, "not measured")
    for each in benchmarks.GOALS:
        assert each.judge(made_up("other")) == (None, "not measured")
    assert benchmarks.goals_table(made_up("other"))[1] == []
    assert [cells[-1] for cells in benchmarks.goals_table(alone)[1]] == ["not measured"] * 6


def test_every_goal_finds_its_number_in_the_rows_of_the_benchmarks(document):
    for each in benchmarks.GOALS:
        value, verdict = each.judge(document)
        assert value is not None and verdict in ("met", "missed"), each.statement


# -- files -----------------------------------------------------------------------------------------


def test_a_result_is_stored_under_machine_and_date_and_loaded_as_it_was(document, tmp_path):
    named = copy.deepcopy(document)
    named["provenance"] |= {"machine": "Abacus (R) No. 3", "created": "2026-01-02T03:04:05+00:00"}
    path = benchmarks.save(named, tmp_path / "new")
    assert path.name == "abacus-r-no-3-2026-01-02-0304.json"
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert benchmarks.load(path.parent) == [named]
    assert path.stat().st_size < 200_000


def test_results_are_loaded_in_the_order_of_their_names_and_none_where_there_are_none(tmp_path):
    assert benchmarks.load(tmp_path / "nothing") == []
    for machine in ("b", "a"):
        benchmarks.save(
            made_up("x") | {"provenance": {"machine": machine, "created": "2026"}}, tmp_path
        )
    assert [d["provenance"]["machine"] for d in benchmarks.load(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "expected a benchmark result of schema 1, got 2"),
        ({"provenance": {"machine": "m"}}, "provenance: created absent"),
        (
            {"benchmarks": [{"name": "x"}]},
            "benchmark 'x': error_of, rows, setting, title, unit absent",
        ),
        ({"benchmarks": [benchmarks.entry("x", "", "", [{"case": "c"}])]}, "expected rows with"),
    ],
)
def test_a_file_that_is_no_result_is_refused_with_the_reason(change, message, tmp_path):
    wrong = made_up("x") | change
    with pytest.raises(ValueError, match=message):
        benchmarks.save(wrong, tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match=f"wrong.json: .*{message}"):
        benchmarks.load(tmp_path)


def test_a_number_that_is_not_finite_is_not_stored(tmp_path):
    with pytest.raises(ValueError):
        benchmarks.save(made_up("x", row("c", "t", [float("nan")])), tmp_path)
    assert not list(tmp_path.glob("*.json"))


# -- tables and figures ----------------------------------------------------------------------------


def test_a_table_leaves_out_empty_columns_and_shows_quartiles_and_the_worst_error():
    rows = [
        row("c", "t", [1.0, 2.0, 3.0], errors=[4e-3, 2e-2]),
        row("c", "u", note="not installed"),
    ]
    header, lines = benchmarks.table(benchmarks.entry("x", "", "", rows, error_of="error"))
    assert header == ["case", "", "samples", "seconds", "error", "remark"]
    assert lines[0] == ["c", "t", "3", "2 (1.5–2.5)", "1.2e-02, worst 2.0e-02", ""]
    assert lines[1] == ["c", "u", "–", "–", "–", "not installed"]


def test_a_growth_curve_is_shown_by_its_ends_and_its_exponent():
    rows = [row("classes", "t", [n / 100], size=n) for n in (10, 100, 1000)]
    header, lines = benchmarks.table(benchmarks.entry("growth", "", "", rows))
    assert header[-1] == "exponent"
    assert lines == [["classes", "t", "10 in 0.1 s", "1,000 in 10 s", "1.00"]]


def test_the_page_shows_goals_and_every_benchmark_of_every_machine(document):
    other = copy.deepcopy(document)
    other["provenance"]["machine"] = "Abacus <3>"
    page = report.benchmarks([document, other])
    assert "Abacus &lt;3&gt;" in page.html and "Abacus <3>" in page.text
    for found in document["benchmarks"]:
        assert page.text.count(found["title"]) == 2
    for each in benchmarks.GOALS:
        assert page.text.count(f"{each.statement} | ") == 2
    assert "missed" in page.text and "No result is stored" in report.benchmarks([]).html


def test_the_figure_of_cost_and_error_has_a_marker_for_each_row_that_has_both(document):
    (axes,) = figures.cost_against_error([document]).axes
    markers = [
        tuple(line.get_xydata()[0]) for line in axes.get_lines() if line.get_marker() != "None"
    ]
    rows = benchmarks.rows_of(document, "sharpness")
    expected = [(r["gradients"][1], max(r["error"][1], 1e-8)) for r in rows if r["gradients"]]
    assert np.array(markers) == pytest.approx(np.array(expected))


def test_the_figure_of_growth_has_a_curve_for_each_quantity_and_axis(document):
    drawn = figures.growth([document]).axes
    rows = benchmarks.rows_of(document, "growth")
    for axes, case in zip(drawn, ("examples", "parameters", "classes"), strict=True):
        for line in axes.get_lines():
            name = str(line.get_label()).replace("$", "")  # subscripts are typeset
            curve = [r for r in rows if (r["case"], r["contender"]) == (case, name)]
            expected = [(r["size"], r["seconds"][1]) for r in curve]
            assert line.get_xydata() == pytest.approx(np.array(expected))
        assert len(axes.get_lines()) == 5 and axes.get_xlabel() == case


@pytest.mark.parametrize("draw", [figures.cost_against_error, figures.growth])
def test_figures_without_results_and_with_several_have_labelled_axes(draw, document):
    for documents in ([], [document, document]):
        for axes in draw(documents).axes:
            assert axes.get_xlabel()


# -- command line ----------------------------------------------------------------------------------


def test_bench_runs_a_part_prints_it_and_stores_it(tmp_path):
    arguments = ["bench", "--only", "impurity", "--repeats", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    (stored,) = benchmarks.load(tmp_path)
    assert [found["name"] for found in stored["benchmarks"]] == ["impurity"]
    assert "eigvalsh" in done.stdout and "scaled up" in done.stdout
    assert "impurity, C = 100: worst error" in done.stdout
    assert "training loop" not in done.stdout  # a goal of a benchmark that was not run
    assert f"stored: {tmp_path}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "speed"), "benchmark: expected one of sharpness, measurement"),
        (("--repeats", "0"), "repeats: expected at least 1, got 0"),
        (("--threads", "0"), "threads: expected at least 1, got 0"),
        (("--device", "gpu"), "device: expected auto, cpu, cuda"),
    ],
)
def test_bench_refuses_what_it_does_not_know_in_one_line(arguments, message, tmp_path):
    done = CliRunner().invoke(app, ["bench", *arguments, "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert message in done.output and "Traceback" not in done.output
    assert not list(tmp_path.iterdir())


def test_updates_with_a_regularizer_stand_beside_the_bare_gradient(document):
    rows = {one["contender"]: one for one in benchmarks.rows_of(document, "regularizers")}
    bare = rows[regularizer_benchmark.GRADIENT]
    assert set(rows) == {bare["contender"], "none", "EJR", "EJR v1", "EJR v2", "SAM"}
    assert bare["gradients"] == pytest.approx([1, 1, 1])
    for name in ("EJR", "EJR v1", "EJR v2", "SAM"):  # each has a second backward pass at least
        assert rows[name]["gradients"][1] > rows["none"]["gradients"][1]
    activations = 4 * 8 * (2 * 32 * 32**2 + 2 * 64 * 14**2)
    assert all(2**30 * one["gibibytes"] > activations for one in rows.values())


def test_each_update_of_the_benchmark_is_the_one_that_training_makes():
    x, y = workload().data(8)
    x, model = x.double(), networks.build("simple_cnn", dtype=torch.float64)
    u = torch.ones(10, dtype=torch.float64) / 10**0.5
    found = regularizer_benchmark.updates(model, x, y, u)
    plain = found["none"]()
    exact = loss_and_gradient(model, cross_entropy, (x, y))[1]
    assert isinstance(plain, regularizers.Direction)
    torch.testing.assert_close(torch.cat([g.flatten() for g in plain.gradient]), exact)
    directions = [found[name]().gradient[0] for name in ("none", "EJR", "EJR v1", "EJR v2", "SAM")]
    for k, one in enumerate(directions):
        assert all(not torch.equal(one, other) for other in directions[:k])
