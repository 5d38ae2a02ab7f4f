"""Every run, every chapter and the book as jobs: `snakemake --profile profiles/local`.

    --config scale=smoke|laptop|paper     (default smoke)
    --config device=auto|cpu|cuda         (default auto)
    --config runs_dir=FOLDER              (default data/runs)
    --config out=FOLDER                   (default _build)

Targets: `book` (the default), `chapters`, `runs`; one file with its path. What each figure needs is
in ijrlib/figure_table.py. A job that was killed goes on from its checkpoint when it runs again.
"""

from pathlib import Path

from ijrlib import jobs

SETTINGS = jobs.settings(config)
SCALE, DEVICE = SETTINGS["scale"], SETTINGS["device"]
RUNS_DIR, BIN, OUT = (Path(SETTINGS[name]) for name in ("runs_dir", "bin", "out"))
BOOK = OUT / "books" / SCALE

RUNS = jobs.runs(SCALE)
CHAPTERS = jobs.chapters()
GPUS = 1 if SCALE == "paper" and DEVICE != "cpu" else 0


wildcard_constraints:
    page="|".join(CHAPTERS),


localrules:
    book,
    chapters,
    runs,


rule book:
    input:
        [BOOK / "chapters" / f"{page}.ipynb" for page in CHAPTERS],
    output:
        BOOK / "_build/html/index.html",
    shell:
        "{BIN}/python -c \"from ijrlib import jobs; jobs.assemble('{BOOK}')\" && "
        "{BIN}/jupyter-book build {BOOK} -W --keep-going"


rule chapters:
    input:
        [BOOK / "chapters" / f"{page}.ipynb" for page in CHAPTERS],


rule runs:
    input:
        [RUNS_DIR / run / "run.json" for run in RUNS],


rule chapter:
    input:
        notebook="chapters/{page}.ipynb",
        runs=lambda wildcards: [
            RUNS_DIR / run / "run.json" for run in jobs.runs_of(wildcards.page, SCALE)
        ],
    output:
        BOOK / "chapters/{page}.ipynb",
    params:
        parameters=lambda wildcards: (
            f"-p scale {SCALE} -p device {DEVICE} -p runs_dir {RUNS_DIR.resolve()}"
            if CHAPTERS[wildcards.page] or wildcards.page == "scoreboard"
            else ""
        ),
    threads: 1
    resources:
        runtime=20,
        mem_mb=4000,
    shell:
        "OMP_NUM_THREADS={threads} {BIN}/papermill {input.notebook} {output} -k python3 "
        "--no-progress-bar {params.parameters}"


# One rule for each configuration, its seeds being its jobs: they ask for the same resources, so
# that a batch system may take them as one array.
for family, names in jobs.families(SCALE).items():

    rule:
        name:
            f"run_{family}"
        output:
            RUNS_DIR / "{run}/run.json",
        wildcard_constraints:
            run="|".join(names),
        params:
            config=lambda wildcards: RUNS[wildcards.run].to_json(),
            notebook=lambda wildcards: OUT / "runs" / f"{wildcards.run}.ipynb",
            folder=lambda wildcards: RUNS_DIR / wildcards.run,
            runs_dir=RUNS_DIR.resolve(),
        threads: 1 if SCALE == "smoke" else 2
        retries: 3
        resources:
            runtime=lambda wildcards, attempt: jobs.minutes(
                RUNS[wildcards.run], GPUS, attempt
            ),
            mem_mb=lambda wildcards, attempt: jobs.megabytes(RUNS[wildcards.run], attempt),
            gres=f"gpu:{GPUS}" if GPUS else "",
        shell:
            "mkdir -p {OUT}/runs && OMP_NUM_THREADS={threads} {BIN}/papermill chapters/run.ipynb "
            "{params.notebook} -k python3 --no-progress-bar -p run {params.config:q} "
            "-p device {DEVICE} -p runs_dir {params.runs_dir} && "
            "mv {params.notebook} {params.folder}/run.ipynb"
