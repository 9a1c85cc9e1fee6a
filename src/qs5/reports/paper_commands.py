"""Which command fills a cell of the paper's tables that has no record."""

from collections.abc import Collection

from qs5.reports.paper_rows import PLAIN, TITLES, Section, Wanted, load_paper

SEEDS = "seed=0,1,2"
LAYER_NORM = "model.norm=layer model.norm_bias=false"
BATCH_NORM_IN_QAT = ("retrieval", "pathfinder")
"""Tasks whose QAT scripts keep batch norm, whatever the paper's appendix A.2 says."""


def how_to_run(wanted: Wanted, section: Section, recipes: Collection[str]) -> str:
    """The command that fills a cell, and all cells of its section that are like it."""
    if wanted.task not in recipes:
        return f"{TITLES[wanted.task]}: this version of qs5 has no recipe `{wanted.task}`."
    command = f"`{command_for(wanted, section)}`"
    small = f"{wanted.task}-small"
    more = " and without train.*" if "train." in command else ""
    smaller = (
        f" With `{small}` in place of `{wanted.task}`{more} it runs on two cores." if small in recipes else ""
    )
    return f"needs a GPU at the paper's scale, command: {command}.{smaller}"


def command_for(wanted: Wanted, section: Section) -> str:
    """A sweep over the configurations of a section that differ from `wanted` in their spec alone."""
    like = [w for row in section.rows for w in row.ways if w is not None and _same_but_spec(w, wanted)]
    words = [f"spec={','.join(dict.fromkeys(w.spec for w in like))}"] if wanted.method != "fp" else []
    words += _settings(wanted)
    settings = load_paper()["settings"].get(wanted.task, {})
    words += [*settings.get("all", ()), *settings.get(wanted.method, ())]
    out = f"runs/{wanted.task}-{wanted.method}-{wanted.way}"
    return f"qs5 sweep {wanted.task} --method {wanted.method} --grid {' '.join([*words, SEEDS])} -o {out}"


def _same_but_spec(a: Wanted, b: Wanted) -> bool:
    return all(
        getattr(a, name) == getattr(b, name)
        for name in ("task", "method", "way", "model", "length", "quantized_norm")
    )


def _settings(wanted: Wanted) -> list[str]:
    words: list[str] = []
    if wanted.way == "paper":
        words += ["schedule=parallel", "range_rule=aqt"]
        words += [] if wanted.method == "ptq" else ["quantized_backward=true"]
        words += [] if wanted.quantized_norm else ["quantized_norm=false"]
    if wanted.method != "fp":
        words += [f"{k}={v}" for k, v in wanted.model.items() if k != "norm" and PLAIN[k] != v]
    batch = wanted.model.get("norm") == "batch" or (
        wanted.method == "qat" and wanted.task in BATCH_NORM_IN_QAT and "norm" not in wanted.model
    )
    if wanted.model.get("norm") == "layer" or (wanted.way == "paper" and not batch):
        words.append(LAYER_NORM)
    if wanted.length == "one":
        words.append("qaft.epochs=1")
    return words
