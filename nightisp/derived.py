"""What follows from the stage table: dvc.yaml, evaluation/dvc.yaml, docs/stages.md, and a params.yaml to begin with.

`python -m nightisp.derived` writes them (params.yaml only where there is none); `--check` fails if one is out of date.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

from nightisp import code, manifest, measured
from nightisp.params import canonical, read_yaml
from nightisp.pipeline import PIPELINE
from nightisp.stage import Stage

INPUT, OUTPUT, WEIGHTS = "data", "output", "weights"
_RAWS, _REFERENCES, _METRICS, _QUALITY = "raws", "references", "metrics.json", "quality.csv"  # in evaluation/
_MEASURES = {"PSNR": "more", "SSIM": "more", "CIEDE2000": "less"}


def dvc_yaml() -> str:
    """Return dvc.yaml: for each stage its command, the manifest before it, its code, its weights, its parameters.

    After them comes `measure`, which computes no picture: it writes what `dvc metrics` and `dvc plots` show.
    """
    stages: dict[str, Any] = {}
    for place, stage in enumerate(PIPELINE):
        before = [f"{manifest.FOLDER}/{PIPELINE[place - 1].name}.jsonl"] if place else [INPUT]
        weights = [WEIGHTS] if stage.device == "gpu" else []
        outs: list[Any] = [f"{manifest.FOLDER}/{stage.name}.jsonl"]
        if place == len(PIPELINE) - 1:
            outs.append({OUTPUT: {"persist": True}})
        stages[stage.name] = {
            "desc": stage.summary,
            "cmd": f"nightisp stage run {stage.name}",
            "deps": before + weights + [f"{name.replace('.', '/')}.py" for name in _code_behind(stage)],
            "params": [stage.name],
            "outs": outs,
        }
    stages["measure"] = {
        "desc": "Write down seconds, counts and the tone curve.",
        "cmd": "nightisp stage measure",
        "deps": [f"{manifest.FOLDER}/{stage.name}.jsonl" for stage in PIPELINE],
        "params": ["tone"],
        "outs": [measured.SECONDS, measured.TONE_CURVE],
        "metrics": [measured.METRICS],
    }
    curve, seconds = {measured.TONE_CURVE: "display"}, {measured.SECONDS: "stage"}
    plots = [
        _plot("tone_curve", "simple", ("stops", "light in stops, 0 is white"), (curve, "display value")),
        _plot("seconds", "bar_horizontal_sorted", ("seconds", "seconds, mean of the pictures"), (seconds, "stage")),
    ]
    return _HEAD.format(what="the pipeline for `dvc repro`") + _yaml({"stages": stages, "plots": plots})


def evaluation_yaml() -> str:
    """Return evaluation/dvc.yaml: the whole pipeline against references, for experiments with its parameters."""
    modules = {name for stage in PIPELINE for name in _code_behind(stage)} | {"nightisp.evaluate", "nightisp.metrics"}
    stage = {
        "desc": "Render raws and measure them against what they should become.",
        "cmd": f"nightisp evaluate --input {_RAWS} --references {_REFERENCES} --metrics {_METRICS} --table {_QUALITY}",
        "deps": [_RAWS, _REFERENCES, f"../{WEIGHTS}", *(f"../{name.replace('.', '/')}.py" for name in sorted(modules))],
        "params": [{"../params.yaml": [stage.name for stage in PIPELINE]}],
        "outs": [_QUALITY],
        "metrics": [_METRICS],
    }
    plots = [
        _plot(
            f"{name.lower()}_against_gamma",
            "scatter",
            ("tone_gamma", "gamma"),
            ({_QUALITY: name.lower()}, f"{name}, {better} is better"),
        )
        for name, better in _MEASURES.items()
    ]
    what = "measuring against references, for `dvc exp run`"
    return _HEAD.format(what=what) + _yaml({"stages": {"evaluate": stage}, "plots": plots})


def params_yaml() -> str:
    """Return params.yaml with every default and its description."""
    from ruamel.yaml.comments import CommentedMap

    tree = CommentedMap()
    for stage in PIPELINE:
        section = CommentedMap(canonical(stage.params()))
        for name, about in stage.params.model_fields.items():
            if name in section and about.description:
                section.yaml_set_comment_before_after_key(name, before=about.description, indent=2)
            section[name] = _written(section[name])
        tree[stage.name] = section
        tree.yaml_set_comment_before_after_key(stage.name, before=f"\n{stage.summary}")
    return "# What each stage does. A change here reruns that stage and those after it: see docs/stages.md.\n" + _yaml(
        tree
    )


def stages_md() -> str:
    """Return docs/stages.md: every stage with its types, parameters, bounds and sources."""
    lines = [_COMMENT, "", "# The stages", "", "| stage | takes | gives | does |", "|---|---|---|---|"]
    lines += [f"| [{s.name}](#{s.name}) | {s.takes.__name__} | {s.gives.__name__} | {s.summary} |" for s in PIPELINE]
    for stage in PIPELINE:
        lines += ["", f"## {stage.name}", "", stage.summary, "", f"Code: `{stage.module.replace('.', '/')}.py`."]
        if stage.cite:
            lines.append(f"Sources: {', '.join(stage.cite)} (BIBLIOGRAPHY.bib).")
        lines += ["", "| parameter | default | allowed | meaning |", "|---|---|---|---|"]
        defaults, schema = canonical(stage.params()), stage.params.model_json_schema()["properties"]
        for name, about in stage.params.model_fields.items():
            default = _shortened(defaults[name])
            lines.append(f"| `{name}` | `{default}` | {_allowed(schema[name])} | {about.description} |")
    return "\n".join(lines) + "\n"


FILES = {"dvc.yaml": dvc_yaml, "evaluation/dvc.yaml": evaluation_yaml, "docs/stages.md": stages_md}

_COMMENT = "<!-- Derived from the stage table by `python -m nightisp.derived`: edit nightisp/stages instead. -->"
_HEAD = "# Derived from the stage table by `python -m nightisp.derived`: {what}. Edit nightisp/stages instead.\n"


def _plot(title: str, template: str, x: tuple[str, str], y: tuple[dict[str, str], str]) -> dict[str, Any]:
    """Return a plot of DVC: columns and labels of its axes, that of y below the name of the file."""
    return {title: {"template": template, "x": x[0], "x_label": x[1], "y": y[0], "y_label": y[1]}}


def _code_behind(stage: Stage) -> list[str]:
    return [
        f"{name}/__init__".replace("/", ".") if code.file_of(name).name == "__init__.py" else name
        for name in code.modules_behind(stage.module)
    ]


def _allowed(schema: dict[str, Any]) -> str:
    options = [s for s in schema.get("anyOf", [schema]) if s.get("type") != "null"]
    (about,) = options[:1]
    if "enum" in about or "const" in about:
        text = ", ".join(f"`{value}`" for value in about.get("enum", [about.get("const")]))
    elif about.get("type") in ("number", "integer"):
        low = about.get("minimum", about.get("exclusiveMinimum", ""))
        high = about.get("maximum", about.get("exclusiveMaximum", ""))
        text = f"{low} to {high}" if low != "" and high != "" else f"from {low}" if low != "" else str(about["type"])
    else:
        text = {"string": "name", "array": "list", "boolean": "true, false"}.get(about.get("type", ""), "")
    return f"{text}, or null" if len(schema.get("anyOf", [])) > len(options) else text


def _shortened(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) < 40 else f"{len(value)} values"


def _written(value: Any) -> Any:
    """Put numbers on one line, and quotes where YAML 1.1 would read `4:4:4` as a number in base 60."""
    from ruamel.yaml.comments import CommentedSeq
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, list):
        sequence = CommentedSeq(_written(v) for v in value)
        if not any(isinstance(v, list) for v in value):
            sequence.fa.set_flow_style()
        return sequence
    return DoubleQuotedScalarString(value) if isinstance(value, str) and ":" in value else value


def _yaml(tree: Any) -> str:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 110
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    text = io.StringIO()
    yaml.dump(tree, text)
    return text.getvalue()


def main(arguments: list[str] | None = None) -> int:
    """Write the derived files below this folder, or check them."""
    parser = argparse.ArgumentParser(prog="python -m nightisp.derived", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    check = parser.parse_args(arguments).check
    stale = []
    for name, content in FILES.items():
        path, text = Path(name), content()
        if not path.is_file() or path.read_text("utf-8") != text:
            stale.append(name)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
    params = Path("params.yaml")
    if not params.exists():
        stale.append(params.name)
        if not check:
            params.write_text(params_yaml(), "utf-8")
    if check and stale:
        print(f"out of date: {', '.join(stale)}; run `python -m nightisp.derived`", file=sys.stderr)  # noqa: T201
        return 1
    sections = read_yaml(params)
    missing = [stage.name for stage in PIPELINE if stage.name not in sections]
    if missing:
        print(f"params.yaml: has no section {', '.join(missing)}; DVC needs one for every stage", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
