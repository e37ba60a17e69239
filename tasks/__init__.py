"""How Prefect treats a stage: name, tags, retries, and how a reused artifact shows. Thin on purpose."""

from tasks.stage import stage_task

__all__ = ["stage_task"]
