"""What a study would take on a cluster that nobody has rented yet: the engine's decisions, played in simulated time.

Queue, requests and admission are those of a run (`raysweep.engine`); only the clock and the events are made up.
"""

from raysweep.simulation.cluster import Cluster, Clusters, NodeKind, Prices, Spot, uniform_cluster
from raysweep.simulation.forecast import Forecast, SizeForecast, forecast
from raysweep.simulation.overheads import Overheads
from raysweep.simulation.recommend import Advice, recommend

__all__ = [
    "Advice",
    "Cluster",
    "Clusters",
    "Forecast",
    "NodeKind",
    "Overheads",
    "Prices",
    "SizeForecast",
    "Spot",
    "forecast",
    "recommend",
    "uniform_cluster",
]
