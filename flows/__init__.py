"""Which pictures, and how many at once: the Prefect flow. Thin on purpose."""

from flows.quiet import settle

settle()  # Prefect reads its settings when it is imported
