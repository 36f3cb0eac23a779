"""Labels the questions with Ondine; runs with the Python of Ondine's own environment.

Reads what to do as JSON from stdin, writes what it took as JSON to stdout.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from decimal import Decimal
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
_STDOUT, sys.stdout = sys.stdout, sys.stderr  # it logs to stdout


def main() -> None:
    import pandas as pd
    import structlog
    from ondine import PipelineBuilder
    from ondine.orchestration.observers import ExecutionObserver

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    logging.disable(logging.WARNING)

    class Quiet(ExecutionObserver):  # any observer takes the place of the three default ones
        def _nothing(self, *_: Any) -> None: ...

        on_pipeline_start = on_stage_start = on_stage_complete = on_stage_error = _nothing
        on_pipeline_complete = on_pipeline_error = _nothing

    asked = json.load(sys.stdin)
    rows = pd.read_csv(asked["source"])
    builder = (
        PipelineBuilder.create()
        .from_dataframe(rows, input_columns=["text"], output_columns=["intent"])
        .with_prompt(asked["prompt"], system_message=asked["system"])
        .with_llm(
            provider="openai_compatible",
            model="gpt-4o-mini",
            api_key="none",
            base_url=asked["url"],
            input_cost_per_1k_tokens=Decimal("0.001"),
            output_cost_per_1k_tokens=Decimal("0.002"),
        )
    )
    if asked["size"] > 1:
        builder = builder.with_batch_size(asked["size"])
    builder._processing_spec.batch_size = 1000  # packs never cross this chunk
    with tempfile.TemporaryDirectory() as folder:
        builder = builder.with_concurrency(asked["concurrency"]).with_checkpoint_dir(folder)
        pipeline = builder.with_progress_mode("none").build().add_observer(Quiet())
        done = pipeline.execute()
    answered = int(done.to_pandas()["intent"].notna().sum())
    json.dump({"answered": answered, "tokens": done.costs.total_tokens}, _STDOUT)


if __name__ == "__main__":
    main()
