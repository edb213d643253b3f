"""The command that takes encoders and networks out of the store."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from raysweep.cli._app import StoreOption, app


class ExportFormat(StrEnum):
    """For which library to export."""

    timm = "timm"
    torchvision = "torchvision"
    smp = "segmentation-models-pytorch"
    huggingface = "huggingface"


@app.command(epilog="Example: raysweep export heart/small/random/n4/s0 --to unet --format segmentation-models-pytorch")
def export(
    what: Annotated[
        str, typer.Argument(metavar="CELL|STAGE", help="Name of a cell, or id of a stage.", show_default=False)
    ],
    to: Annotated[
        Path, typer.Option("--to", help="File (.safetensors, .pth), or folder for whole networks.", show_default=False)
    ],
    format_: Annotated[ExportFormat, typer.Option("--format", help="Library to export for.")] = ExportFormat.timm,
    epoch: Annotated[
        int | None, typer.Option(help="Snapshot of a pretrain stage. Default: its last.", show_default=False)
    ] = None,
    store: StoreOption = None,
) -> None:
    """Write the encoder of a pretrain stage, or the tested network of a cell, for use without raysweep."""
    from raysweep.export import export as write
    from raysweep.export import find_trained
    from raysweep.sweep import open_store
    from raysweep.terminal import show

    done = write(find_trained(open_store(store), what, epoch), to, format_.value)
    show(f"wrote {done.path}; without raysweep:\n")
    show(done.usage)
    if done.untrained:
        keys = ", ".join(done.untrained)
        show(f"\n{len(done.untrained)} keys behind the last feature map were never trained: {keys}")
