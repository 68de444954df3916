"""The one training loop of all torch methods: any number of players with their own losses and optimisers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from dicomnode.detectors.methods.contract import Run
from dicomnode.detectors.methods.drawing import Draw, Drawn
from dicomnode.errors import ConfigError

Loss = Callable[[Drawn], Tensor]
CHECK_EVERY = 50
"""Steps between two reports of progress."""


@dataclass(frozen=True, slots=True)
class Player:
    """One optimiser. ``every``: it moves in each so-manieth step (a critic 1, a generator n_critic).

    ``cycle``: learning rate by one cycle to ``learning_rate`` and down (OneCycleLR), otherwise constant.
    ``clip``: largest gradient norm, None for none. ``until``, ``since``: steps between which it moves, as shares.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Loss
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    every: int = 1
    cycle: bool = True
    clip: float | None = 1.0
    since: float = 0.0
    until: float = 1.0


@dataclass(frozen=True, slots=True)
class Selection:
    """Which state to keep: that with the greatest ``figure``, looked at every so many steps (AUCp, -loss)."""

    figure: Callable[[], float]
    every: int = 100


@dataclass(frozen=True, slots=True)
class Fit:
    """What one run of the loop needs. ``network``: holds all parameters and buffers that are kept."""

    network: nn.Module
    players: Sequence[Player]
    draw: Draw
    steps: int
    selection: Selection | None = None


def parameters(*modules: nn.Module) -> list[nn.Parameter]:
    """The parameters of some modules that may be changed."""
    return [one for module in modules for one in module.parameters() if one.requires_grad]


def run_fit(fit: Fit, run: Run) -> list[tuple[int, float]]:
    """Train in place; answers (step, figure) for every look of the selection. bf16 autocast on an accelerator.

    The best state by ``fit.selection`` is put back at the end. Raises ConfigError when a checkpoint does not fit.
    """
    return _Loop(fit, run).run()


class _Loop:
    def __init__(self, fit: Fit, run: Run) -> None:
        self._fit, self._run = fit, run
        self._steps = run.steps or fit.steps
        self._accelerator = torch.device(run.accelerator)
        self._noise = torch.Generator().manual_seed(run.seed)
        fit.network.to(self._accelerator).train()
        self._optimisers = [torch.optim.Adam(p.parameters, lr=p.learning_rate, betas=p.betas) for p in fit.players]
        self._schedules = [
            _schedule(optimiser, player, self._steps)
            for optimiser, player in zip(self._optimisers, fit.players, strict=True)
        ]
        self._history: list[tuple[int, float]] = []
        self._best: dict[str, Tensor] | None = None

    def run(self) -> list[tuple[int, float]]:
        for step in range(self._resumed(), self._steps):
            drawn = self._moved(self._fit.draw(self._noise))
            for index, player in enumerate(self._fit.players):
                if step % player.every == 0 and player.since <= step / self._steps < player.until:
                    self._step(player, drawn, self._optimisers[index], self._schedules[index])
            if self._looked(step + 1):
                break
            if step % CHECK_EVERY == 0:
                self._report(step)
        if self._best is not None:
            self._fit.network.load_state_dict(self._best)
        self._fit.network.eval()
        return self._history

    def _moved(self, drawn: Drawn) -> Drawn:
        mixed = None if drawn.mixed is None else drawn.mixed.to(self._accelerator)
        truth = None if drawn.truth is None else drawn.truth.to(self._accelerator)
        return Drawn(drawn.healthy.to(self._accelerator), drawn.noise, mixed, truth)

    def _step(self, player: Player, drawn: Drawn, optimiser: torch.optim.Optimizer, schedule: Any) -> None:
        for other in _others(self._fit.players, player):
            other.requires_grad_(False)  # noqa: FBT003 - torch names it mode
        kind = self._accelerator.type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=kind != "cpu"):
            loss = player.loss(drawn)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for other in _others(self._fit.players, player):
            other.requires_grad_(True)  # noqa: FBT003 - torch names it mode
        if player.clip is not None:
            nn.utils.clip_grad_norm_(player.parameters, player.clip)
        optimiser.step()
        if schedule is not None:
            schedule.step()

    def _looked(self, step: int) -> bool:
        """Ask the selection where it is due; whether to stop early."""
        selection = self._fit.selection
        if selection is None or (step % selection.every and step != self._steps):
            return False
        self._fit.network.eval()
        figure = float(selection.figure())
        self._fit.network.train()
        if not self._history or figure > max(value for _, value in self._history):
            self._best = {key: value.detach().clone() for key, value in self._fit.network.state_dict().items()}
        self._history.append((step, figure))
        values = [value for _, value in self._history]
        since_best = len(values) - 1 - values.index(max(values))
        return self._run.patience is not None and since_best >= self._run.patience

    def _report(self, step: int) -> None:
        if self._run.progress is not None:
            self._run.progress("fit", step / self._steps)
        if self._run.checkpoint is not None and step % (10 * CHECK_EVERY) == 0 and step:
            self._save(step + 1)

    def _save(self, step: int) -> None:
        path = self._run.checkpoint
        if path is None:
            return
        state = {
            "step": step,
            "network": self._fit.network.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "schedules": [None if one is None else one.state_dict() for one in self._schedules],
            "noise": self._noise.get_state(),
            "random": torch.get_rng_state(),
            "history": self._history,
            "best": self._best,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)

    def _resumed(self) -> int:
        """The step to go on with: 0, or what the checkpoint says."""
        path = self._run.checkpoint
        if path is None or not path.is_file():
            return 0
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self._fit.network.load_state_dict(state["network"])
            for optimiser, own in zip(self._optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(own)
            for schedule, own in zip(self._schedules, state["schedules"], strict=True):
                if schedule is not None:
                    schedule.load_state_dict(own)
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, UnpicklingError) as error:
            raise ConfigError(f"checkpoint {path.name} does not fit; delete it to train again") from error
        self._noise.set_state(state["noise"])
        torch.set_rng_state(state["random"])
        self._history, self._best = [tuple(item) for item in state["history"]], state["best"]
        return int(state["step"])


def _others(players: Iterable[Player], player: Player) -> list[nn.Parameter]:
    """Parameters of the other players that ``player`` does not share: their gradients are not needed."""
    own = {id(one) for one in player.parameters}
    return [one for other in players if other is not player for one in other.parameters if id(one) not in own]


def _schedule(optimiser: torch.optim.Optimizer, player: Player, steps: int) -> Any:
    if not player.cycle:
        return None
    moves = max(1, int(steps * (player.until - player.since)) // player.every)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=player.learning_rate, total_steps=moves + 2, pct_start=0.1
    )
