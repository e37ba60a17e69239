"""How Prefect treats a stage and a leg: name, retries, and how a reused artifact shows. Thin on purpose."""

from tasks.leg import leg_task
from tasks.stage import stage_task

__all__ = ["leg_task", "stage_task"]
