"""Write small PyTorch models into a folder: `make_pytorch.py FOLDER`. Runs where PyTorch is installed."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found, unused-ignore]


class Classifier(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.norm(self.convolution(x))).mean((2, 3))
        return torch.softmax(self.head(features), -1)


class Restless(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """Answers something else each time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


class Trap:
    """Code in a pickle: touches a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def main(folder: Path) -> None:
    torch.manual_seed(0)
    model = Classifier().eval()
    example = (torch.rand(2, 3, 16, 16),)
    program = torch.export.export(model, example, dynamic_shapes={"x": {0: torch.export.Dim("batch")}})
    torch.export.save(program, folder / "classifier.pt2")
    torch.jit.save(torch.jit.script(model), folder / "classifier.pt")
    torch.jit.save(torch.jit.script(Restless()), folder / "restless.pt")
    torch.save(Trap(folder / "sprung"), folder / "trap.pt")
    (folder / "trap.pkl.pt2").write_bytes(pickle.dumps(Trap(folder / "sprung")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
