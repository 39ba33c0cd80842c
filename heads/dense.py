"""`dense`: anchor-free points over a temporal pyramid that keeps the grid; boxes from the grid.

See `heads/parts/points.py` for the method and its sources.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from heads.parts.contract import Batch, Candidates, Targets, TokenSpec
from heads.parts.points import PointPrediction, PointStage
from heads.parts.trunk import GridTrunk
from vjepa_loc.errors import ConfigError

task = "events"


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    level: str = Field("tokens", description="pyramid level to read")
    stem_width: int = Field(48, ge=8, description="channels per token before the grid is folded")
    width: int = Field(64, ge=8, description="channels of the trunk")
    key_width: int = Field(32, ge=4, description="channels in which an event finds its cells")
    similarity_width: int = Field(32, ge=1, description="channels in which cells are compared over time")
    cells: int = Field(8, ge=1, description="cells a side that the grid is folded to, about")
    num_blocks: int = Field(3, ge=0)
    num_levels: int = Field(4, ge=1, le=8, description="step rates, each half of the one before")
    dropout: float = Field(0.2, ge=0, lt=1)
    drop_path: float = Field(0.1, ge=0, lt=1)
    num_candidates: int = Field(100, ge=1, description="answers kept per window")


class Head(nn.Module):
    def __init__(self, config: Config, specs: list[TokenSpec], labels: list[str]):
        super().__init__()
        if len(specs) != 1:
            raise ConfigError(f"this head reads one store, got {len(specs)}: give --store once")
        if config.level not in specs[0].levels:
            raise ConfigError(
                f"head.level: the store has the levels {', '.join(specs[0].levels)}, got {config.level!r}; read another level "
                f"(--set level={specs[0].levels[0]}), or a store that has this one"
            )
        self.config = config
        self.level = config.level
        self.trunk = GridTrunk(specs[0].channels, config.stem_width, config.width, config.cells, config.num_blocks,
                               config.num_levels, config.similarity_width, config.dropout, config.drop_path)
        self.points = PointStage(config.width, config.key_width, len(labels), config.num_levels,
                                 specs[0].step_frames)

    def prepare(self, targets: Iterable[Targets]) -> None:
        """Nothing to see beforehand."""

    def forward(self, batch: Batch) -> PointPrediction:
        return self.points(self.trunk(batch.streams[0], batch.window_frames))

    def loss(self, prediction: PointPrediction, targets: list[Targets]) -> dict[str, Tensor]:
        return self.points.loss(prediction, targets)

    def decode(self, prediction: PointPrediction) -> list[Candidates]:
        return self.points.candidates(prediction, self.config.num_candidates)
