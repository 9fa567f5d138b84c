"""The dense feed-forward network: SwiGLU."""

from torch import Tensor, nn
from torch.nn import functional

from runtime.model.row_product import Linear
from runtime.model.step_kernel import gated, is_decoded


class FeedForward(nn.Module):
    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_up = Linear(hidden, 2 * inner)
        self.down = Linear(inner, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Takes x (B, T, D) to the same shape."""
        gate_up = self.gate_up(x)
        if is_decoded(gate_up):
            *before, width = gate_up.shape
            inner = gate_up.new_empty(*before, width // 2)
            gated(gate_up.data_ptr(), inner.data_ptr(), gate_up.numel() // width, width // 2)
            return self.down(inner)  # type: ignore[no-any-return]
        gate, up = gate_up.chunk(2, dim=-1)
        return self.down(functional.silu(gate) * up)  # type: ignore[no-any-return]
