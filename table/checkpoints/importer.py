"""From a published checkpoint to a store, in bounded memory.

Rows stream through small buffers: the planes that a checkpoint keeps apart (codes here, scales there) are read piece by piece
and laid side by side as records. What else the files with tables hold is kept too, with the tables cut out, so that an export
gives back the same bytes. Interrupted, it goes on where it stopped.
"""

from dataclasses import dataclass
from pathlib import Path

from hashing.base.atomic import refuse_overlap
from hashing.base.errors import EngramError
from table.checkpoints.published import Checkpoint
from table.encodings.encoding import Encoding
from table.recoding import Recoding
from table.store.manifest import Manifest, cut_layers
from table.store.origin import Origin
from table.store.store import TableStore
from table.store.writer import Progress, StoreWriter, quiet, require_space


@dataclass(frozen=True, slots=True)
class Import:
    """What is to be written: `engram table import --dry-run` prints it."""

    checkpoint: Checkpoint
    encoding: Encoding

    @property
    def written_bytes(self) -> int:
        """How many bytes the rows, and what is kept of the files besides, will take."""
        kept_bytes = sum(file.kept_bytes for file in self.checkpoint.kept_files())
        return self.checkpoint.spec.total_rows * self.encoding.row_bytes(self.checkpoint.head_dim) + kept_bytes

    def run(self, out: Path, progress: Progress = quiet, shard_bytes: int | None = None) -> TableStore:
        """Raises EngramError, before anything is written, for a checkpoint with faults or a drive without room."""
        checkpoint = self.checkpoint.check()
        refuse_overlap(out, checkpoint.path)
        require_space(out, self.written_bytes)
        kept = checkpoint.kept_files()
        recodings = {layer: Recoding.of(checkpoint.rows(layer), self.encoding) for layer in checkpoint.spec.layers}
        scales = {layer: recoding.scale for layer, recoding in recodings.items()}
        manifest = Manifest(
            encoding=self.encoding,
            head_dim=checkpoint.head_dim,
            spec=checkpoint.spec,
            layers=cut_layers(checkpoint.spec, self.encoding, checkpoint.head_dim, scales, shard_bytes),
            origin=Origin(checkpoint.kind, checkpoint.path.name, tuple(file.described() for file in kept)),
        )
        with StoreWriter(out, manifest, checkpoint.mapping, checkpoint.stamp) as writer:
            for position, file in enumerate(kept):
                writer.write_origin(position, file.pieces())
            for layer in checkpoint.spec.layers:
                writer.write_layer(layer, recodings[layer].fill, progress)
            if checkpoint.stamp != writer.stamp:
                raise EngramError(f"{checkpoint.path} changed while it was imported", hint="import it again when it is at rest")
            writer.finish()
        return TableStore.open(out)
