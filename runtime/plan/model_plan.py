"""What a model will cost: parameters, FLOPs, bytes and bandwidth, all from its shape."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from runtime.plan.flops import Flops, flops
from runtime.plan.parameters import Parameters, parameters
from runtime.plan.row_bytes import NUMBER_BYTES, ROW_RULES, Flow, decoding, row_state_bytes, training
from runtime.plan.shape import ModelShape
from table.encodings.encoding import Encoding, encoding


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """None stands for what is not known because the backbone is not published."""

    shape: ModelShape
    encoding: Encoding  # of the tables, where they are not trained
    context: int  # positions that a token attends to
    tokens_per_sec: float

    @classmethod
    def of(cls, shape: ModelShape, tokens_per_sec: float, encoding_name: str = "", context: int | None = None) -> "ModelPlan":
        """Without an encoding or a context, the shape's own. Raises UsageError for an encoding that there is not."""
        return cls(shape, encoding(encoding_name or shape.encoding), context or shape.context, tokens_per_sec)

    @property
    def parameters(self) -> Parameters:
        return parameters(self.shape)

    @property
    def flops(self) -> Flops:
        return flops(self.shape, self.parameters, self.context)

    @property
    def row_bytes(self) -> int:
        """Of a row as it is stored."""
        return self.encoding.row_bytes(self.shape.memory.head_dim)

    @property
    def table_bytes(self) -> int:
        return self.row_bytes * self.shape.memory.total_rows

    @property
    def model_bytes(self) -> int | None:
        """Of all but the tables, in float32."""
        dense = self.parameters.trained_densely
        return None if dense is None else NUMBER_BYTES * dense

    @property
    def backbone_moment_bytes(self) -> dict[str, int | None]:
        """Of all but the tables, by optimiser: AdamW keeps two numbers for each; Muon keeps one, of the maps that it takes."""
        dense, maps = self.parameters.trained_densely, self.parameters.maps
        if dense is None or maps is None:
            return {"adamw": None, "muon": None}
        return {"adamw": NUMBER_BYTES * 2 * dense, "muon": NUMBER_BYTES * (2 * dense - maps)}

    @property
    def row_moment_bytes(self) -> dict[str, int]:
        """By the rule of rows."""
        memory = self.shape.memory
        return {rule: memory.total_rows * row_state_bytes(rule, memory.head_dim) for rule in ROW_RULES}

    @property
    def checkpoint_bytes(self) -> dict[str, int | None]:
        """Of a whole checkpoint, by the rule of rows: model and tables in float32, and what AdamW and the rule keep."""
        model, moments = self.model_bytes, self.backbone_moment_bytes["adamw"]
        if model is None or moments is None:
            return dict.fromkeys(ROW_RULES)
        tables = NUMBER_BYTES * self.parameters.tables
        return {rule: model + moments + tables + kept for rule, kept in self.row_moment_bytes.items()}

    @property
    def decoding(self) -> Mapping[str, Flow]:
        """By placement."""
        return decoding(self.shape.memory, self.row_bytes, self.tokens_per_sec)

    @property
    def training(self) -> dict[str, Mapping[str, Flow]]:
        """By the rule of rows, and by placement."""
        return {rule: training(self.shape.memory, rule, self.tokens_per_sec) for rule in ROW_RULES}

    def to_json(self) -> dict[str, Any]:
        counted, memory, work = self.parameters, self.shape.memory, self.flops
        own = counted.backbone
        return {
            "name": self.shape.name,
            "total_parameters": counted.total,
            "active_parameters": counted.active,
            "table_parameters": counted.tables,
            "expert_parameters": counted.experts,
            "active_expert_parameters": own and own.active_experts,
            "memory_parameters": counted.memory,
            "vocabulary_parameters": own and own.vocabulary,
            "matrices_only": self.shape.matrices_only,
            "rho_percent": counted.rho_percent,
            "context": self.context,
            "flops_per_token": work.total,
            "flops_per_token_by_part": asdict(work),
            "encoding": self.encoding.name,
            "head_dim": memory.head_dim,
            "row_bytes": self.row_bytes,
            "row_reads_per_token": memory.rows_per_token,
            "layers": {str(layer): {"rows": n, "bytes": n * self.row_bytes} for layer, n in memory.rows.items()},
            "table_bytes": self.table_bytes,
            "model_bytes": self.model_bytes,
            "moment_bytes": {"backbone": self.backbone_moment_bytes, "rows": self.row_moment_bytes},
            "checkpoint_bytes": self.checkpoint_bytes,
            "tokens_per_sec": self.tokens_per_sec,
            "bandwidth": {
                "decoding": _by_place(self.decoding),
                "training": {rule: _by_place(flows) for rule, flows in self.training.items()},
            },
        }


def _by_place(flows: Mapping[str, Flow]) -> dict[str, dict[str, float]]:
    return {place: asdict(flow) for place, flow in flows.items()}
