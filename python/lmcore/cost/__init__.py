"""What a transformer costs, from its sizes alone: parameters, operations, memory.

Nothing here imports torch or a model: a shape is read from a `config.json`, and all else is
arithmetic. Sizes may be those of a model that nobody has the memory for.
"""

from lmcore.cost.configs import read_shape
from lmcore.cost.memory import Step, StepMemory, count_cache_bytes, count_step_memory
from lmcore.cost.operations import Operations, count_operations
from lmcore.cost.parameters import Parameters, count_parameters
from lmcore.cost.report import CostReport, format_report, make_report
from lmcore.cost.shapes import Shape
from lmcore.cost.stages import StageCost, format_stage_costs, make_stage_costs

__all__ = [
    "CostReport",
    "Operations",
    "Parameters",
    "Shape",
    "StageCost",
    "Step",
    "StepMemory",
    "count_cache_bytes",
    "count_operations",
    "count_parameters",
    "count_step_memory",
    "format_report",
    "format_stage_costs",
    "make_report",
    "make_stage_costs",
    "read_shape",
]
