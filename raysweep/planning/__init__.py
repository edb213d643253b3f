"""Study -> Plan: the cells of the grid and the stages that answer them, each stage once."""

from raysweep.planning.build import build_plan
from raysweep.planning.model import Cell, PackFacts, Parent, Plan, Stage
from raysweep.planning.summary import PlanSummary, summarise

__all__ = ["Cell", "PackFacts", "Parent", "Plan", "PlanSummary", "Stage", "build_plan", "summarise"]
