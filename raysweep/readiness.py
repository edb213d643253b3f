"""What must hold before a launch starts: encoders can be built, weights fit them, tunings suit them.

What is wrong here ends the launch with one message, where it would fail stage after stage.
"""

from __future__ import annotations

from raysweep.engine.launch import Launch
from raysweep.engine.queue import State
from raysweep.identity import canonical_json
from raysweep.planning import Plan
from raysweep.settings import Backbone


def check_starts(launch: Launch) -> None:
    """Build each encoder that a stage will start from, once: a wrong name or wrong weights end the launch, not stages.

    Raises:
        StudyError: if timm has no such encoder, or it does not take slices of the study's size.
        WeightsError: if weights do not fit their encoder.
    """
    stages = launch.plan.stages.values()
    pretraining = [stage.config for stage in stages if stage.kind == "pretrain"]
    sizes = {canonical_json([config["backbone"], config["image_size"]]): config for config in pretraining}
    if sizes:
        from raysweep.sources.encoder import build_weightless

        for config in sizes.values():
            build_weightless(Backbone.model_validate(config["backbone"]), config["image_size"])
    ready = [stage for stage in stages if not stage.parent and launch.queue.state(stage.id) is State.READY]
    starts = {canonical_json([stage.config["backbone"], stage.config["start"]]): stage for stage in ready}
    if starts:
        from raysweep.sources.snapshots import build_start

        for stage in starts.values():
            build_start(launch.store, stage.config, stage.inputs)


def check_tunings(planned: Plan) -> None:
    """Try each mode of fine-tuning on each encoder, without weights: one that does not suit it ends the launch.

    Raises:
        StudyError: if a mode cannot tune an encoder, such as low-rank updates without attention.
    """
    configs = [stage.config for stage in planned.stages.values() if stage.kind == "finetune"]
    pairs = {canonical_json([c["backbone"], c["tuning"]]): c for c in configs if not isinstance(c["tuning"], str)}
    if pairs:
        import torch

        from raysweep.sources.encoder import build_encoder
        from raysweep.tuning import build_tuning

        for config in pairs.values():
            backbone = Backbone.model_validate(config["backbone"])
            with torch.device("meta"):
                encoder = build_encoder(backbone)
                build_tuning(config["tuning"], encoder, encoder, backbone, 1)
