"""Few samples against many: the command, and the figures that it makes of its runs."""

import json

import pytest

from launch import experiment
from launch.experiment import BEGIN, END, Result, table_of
from tests.test_sft import BASE, run


def result(samples, seed, action, call, loss):
    return Result(
        samples,
        seed,
        loss,
        {"grounded": action, "not grounded": action / 2},
        {"grounded": call, "not grounded": call / 4},
    )


def test_a_row_of_the_table_is_the_mean_and_the_range_of_its_seeds():
    results = [
        result(5000, 0, 0.9, 0.8, 0.25),
        result(250, 0, 0.2, 0.1, 1.0),
        result(250, 1, 0.4, 0.2, 2.0),
    ]
    head, rule, few, many = table_of(results).splitlines()
    assert [cell.strip() for cell in few.split("|")[1:-1]] == [
        "250",
        "2",
        "30.0 % (20.0 to 40.0)",
        "15.0 % (10.0 to 20.0)",
        "15.0 % (10.0 to 20.0)",
        "3.8 % (2.5 to 5.0)",
        "1.500 (1.000 to 2.000)",
    ]
    assert many == "| 5,000 | 1 | 90.0 % | 45.0 % | 80.0 % | 20.0 % | 0.250 |"
    assert head.count("|") == rule.count("|") == few.count("|")


def test_the_same_results_draw_the_same_picture(tmp_path):
    results = [result(250, 0, 0.2, 0.1, 1.0), result(5000, 0, 0.9, 0.8, 0.3)]
    for name in ("a.svg", "b.svg"):
        experiment.draw(results, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "evaluation loss" in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize("marks", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{END}"])
def test_a_page_has_one_beginning_before_one_end(marks):
    assert experiment.has_marks(f"a\n{BEGIN}\nb\n{END}\nc")
    assert not experiment.has_marks(marks)


@pytest.mark.parametrize(
    "options,message",
    [
        (("--sizes", 250, 250), "--sizes 250 250: give different numbers"),
        (("--sizes", 1), "--sizes 1 must be 2 or more"),
        (("--seeds", -1), "--seeds -1"),
        (("--steps", 0), "--steps 0 must be 2 or more"),
        (("--held-out", 0), "--held-out 0 must be 1 or more"),
        (("--page", "README.md"), "--page README.md"),
    ],
)
def test_settings_that_make_no_experiment_are_refused(tmp_path, options, message):
    out = run("launch.experiment", "--workdir", tmp_path / "runs", *options, code=2)
    assert message in out and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "options,message",
    [
        (("--config", "hybriko_stf"), "Did you mean hybriko_sft?"),
        (("--base", "checkpoints/none", "--sizes", 2, "--held-out", 2), "launch.sft ended with"),
    ],
)
def test_what_cannot_be_run_is_one_line(tmp_path, options, message):
    out = run("launch.experiment", "--workdir", tmp_path, *options, code=1)
    assert message in out.splitlines()[-1] and "error: " in out.splitlines()[-1]


@pytest.mark.slow
def test_runs_are_made_once_and_compare_only_with_their_like(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    workdir = tmp_path / "runs"
    how = ("--base", BASE, "--steps", 20, "--held-out", 4, "--workdir", workdir, "--page", page)
    out = run("launch.experiment", *how, "--sizes", 8, 16, "--seeds", 0)
    table = (workdir / "experiment.md").read_text()
    assert table in out and [len(r.split("|")) for r in table.splitlines()] == [9] * 4
    image = "\n![Accuracy and evaluation loss over the number of samples](experiment.svg)\n"
    assert page.read_text() == f"before\n{BEGIN}\n{table}{image}{END}\nafter\n"
    few, many = ((workdir / f"{n}-0.jsonl").read_text() for n in (8, 16))
    assert many.startswith(few) and len(many.splitlines()) == 16
    again = run("launch.experiment", *how, "--sizes", 8, 16, "--seeds", 0)
    assert "written to" not in again and table in again
    assert json.loads((workdir / "experiment.json").read_text())[1]["samples"] == 16
    other = run("launch.experiment", *how, "--steps", 21, code=1)
    assert f"--steps 21: the runs in {workdir} have 20" in other
