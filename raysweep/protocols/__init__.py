"""One file per published study: what its code did that raysweep does otherwise, as settings of a study file.

``protocol: paper-exact`` with ``paper: kalapos2022`` sets all of them, except where the study file itself says
otherwise.
"""

from raysweep.protocols._protocol import Paper, SameAs, Switch, as_published, names, paper_of

__all__ = ["Paper", "SameAs", "Switch", "as_published", "names", "paper_of"]
