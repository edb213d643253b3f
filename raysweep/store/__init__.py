"""The store: every path below one root, atomic publishing, locks, and the ledger of what is done.

The root is a folder, or a URI of an object store (``s3://bucket/prefix``, ``gs://``, ``az://``). No other package
builds paths::

    store.json                          format version
    packs/<name>-<recipe>.h5            packs built from a study's recipe
    weights/<name>.safetensors          initial weights that stages read; beside it <name>.json, what is known of them
    models/<stage>.safetensors          tested networks of finetune stages, where the study keeps them
    ledger/<stage>.json                 how the stage ended: the one authority on what is done
    failures/<stage>/<number>.json      every attempt that failed, also of stages that were done later
    logs/<stage>/<begin>-<attempt>.jsonl  what each attempt said, up to a few hundred kilobytes
    resume/<stage>.pt                   training state of a stage that has not ended
    snapshots/<stage>/<epoch>.safetensors
    examples/<stage>.npz                a few test slices with their predictions
    probes/<key>.json                   probes of an encoder before training, for all that start from it
    profiles/<stage>/                   trace and breakdown of a stage that `run --profile` named
    results/<table>/<part>.parquet      one part per stage (per study for cells)
    results/<table>/merged/*.parquet    parts merged by compaction
    results/manifest.json               which merged files count, and the parts they stand for
    driver.lock                         held by the driver that is running; on an object store a folder of leases
    reports/<study>/                    the page
"""

from raysweep.ledger import FailureRecord, LedgerRecord
from raysweep.store.files import FileStamp
from raysweep.store.store import FORMAT_VERSION, Store

__all__ = ["FORMAT_VERSION", "FailureRecord", "FileStamp", "LedgerRecord", "Store"]
