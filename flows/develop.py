"""The flow that is deployed: a form of single parameters, which Prefect's UI shows and its API checks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from flows.render import rendered
from nightisp import looks
from nightisp.naming import FRAME
from nightisp.params import DRAFT
from nightisp.project import looks_folders
from nightisp.run import Options, memory_budget

NO_LOOK = "(none)"
"""No name of a look begins with a bracket."""


def _shown(title: str, description: str, **extra: Any) -> Any:
    """Return how the form shows a parameter; Prefect replaces a field's own title by the parameter's name."""
    return Field(json_schema_extra={"title": title, "description": description, **extra})


_LOOKS = (NO_LOOK, *looks.paths(looks_folders()))
_Setting = Annotated[str, Field(pattern=r"^\s*[a-z_]+\.[a-z_]+\s*=.*$")]


@flow(name="nightisp-develop", flow_run_name="develop {frames} with look {look}")
def develop(
    inputs: Annotated[
        list[str],
        _shown("Input", "Raw files, folders of them, as the worker sees them, and URLs as s3://bucket/nights."),
    ] = ["data"],  # noqa: B006
    output: Annotated[
        Path, _shown("Output", "Folder of the finished pictures. Drafts go into its folder draft.")
    ] = Path("output"),
    look: Annotated[
        str, _shown("Look", "Parameters under a name, laid over those of the params file.", enum=list(_LOOKS))
    ] = NO_LOOK,
    draft: Annotated[
        bool, _shown("Draft", "A quarter of width and height in about a tenth of the time: to try something.")
    ] = False,
    settings: Annotated[
        list[_Setting],
        _shown("Overrides", "Each STAGE.NAME=VALUE, for example tone.gamma=2.8. They hold over all else."),
    ] = [],  # noqa: B006
    name: Annotated[
        str,
        _shown(
            "Name of each picture",
            "A template of {frame}, {look}, {camera}, {lens}, {date}, {time} and {iso}.",
            minLength=1,
        ),
    ] = FRAME,
    frames: Annotated[str, _shown("Frames", "Only frames whose name matches this pattern, for example IMG_82*.")] = "*",
    recursive: Annotated[bool, _shown("Sub-folders", "Look into sub-folders of the input.")] = False,
    store: Annotated[
        str,
        _shown(
            "Store",
            "Artifacts: a folder, or a URL as s3://bucket/x. Empty: NIGHTISP_STORE, or the project's.",
        ),
    ] = "",
    params: Annotated[
        str, _shown("Params file", "Parameters of all pictures. Empty: params.yaml of the project, or the defaults.")
    ] = "",
    device: Annotated[
        str,
        _shown("Device", "Where networks run: auto, cpu, cuda or cuda:N.", pattern=r"^(auto|cpu|cuda(:\d+)?)$"),
    ] = "auto",
    runner: Annotated[
        Literal["threads", "dask", "ray"],
        _shown("Runner", "Where stages run: in threads of the worker, or on a cluster."),
    ] = "threads",
    address: Annotated[
        str, _shown("Address", "Scheduler of the cluster, as tcp://host:8786. Empty: one started beside the worker.")
    ] = "",
    batch: Annotated[int, _shown("Batch", "Pictures a task run: 1 shows every stage, 50 costs less.", minimum=1)] = 1,
) -> Any:
    """Turn raw photographs taken at night into finished pictures.

    What the store holds already is not computed again: such stages show as Cached.
    """
    return rendered(
        Options(
            inputs=tuple(inputs),
            output=output / "draft" if draft else output,
            store=store or None,
            params=Path(params) if params else None,
            look=None if look == NO_LOOK else look,
            settings=(*(DRAFT if draft else ()), *settings),
            name=name,
            frames=frames,
            recursive=recursive,
            runner=runner,
            address=address or None,
            batch=batch,
            device=device,
            memory=memory_budget(),
        )
    )
