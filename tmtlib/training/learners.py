"""Models in training: one (`Alone`), or several seeds as one program (`Stacked`); `Several` are evaluated together.

One model of this size does not use a whole GPU. `Stacked` stacks the seeds' parameters along a leading axis and runs
the same model code by `torch.func.vmap`; each seed has its own generators, so its result is that of a stack of one. On
a CPU, where vmap has no fused attention, models are trained alone.

All are called with `function(model, batch, target, *rest) -> dict of tensors` and return its results with a leading
axis of seeds. Axes: S seeds (or models), B utterances.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int16, Int64
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from tmtlib.models.base import Batch, Model
from tmtlib.models.layers import Bits, Counter, bits_from, random_bits
from tmtlib.training.batches import OnDevice

Results = dict[str, Tensor]


class Alone:
    """One model, with batches from short to long; dropout uses PyTorch's generator."""

    count = 1

    def __init__(self, model: Model):
        self.model, self.config = model, model.config

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        return self.model.parameter_groups(learning_rate)

    def train(self, mode: bool) -> None:
        self.model.train(mode)

    def __call__(self, function: Callable, data: OnDevice, index: Int64[Tensor, "1 B"], *rest: Tensor) -> Results:
        order = index[0] if rest else data.by_length(index[0])  # mix-up partners are positions in the batch
        results = function(self.model, data.batch(order), data.target(order), *(x[0] for x in rest))
        return {name: x[None] for name, x in results.items()}

    def state(self, i: int) -> dict[str, Tensor]:
        """A copy of the parameters on the CPU."""
        return {k: v.to("cpu", copy=True) for k, v in self.model.state_dict().items()}


class Several:
    """Models that are only evaluated, on the same features and targets: each batch is made once for all of them."""

    def __init__(self, models: Sequence[Model]):
        self.models, self.count = models, len(models)

    def train(self, mode: bool) -> None:
        for model in self.models:
            model.train(mode)

    def __call__(self, function: Callable, data: OnDevice, index: Int64[Tensor, "S B"]) -> Results:
        order = data.by_length(index[0])
        batch, target = data.batch(order), data.target(order)
        results = [function(model, batch, target) for model in self.models]
        return {name: torch.stack([result[name] for result in results]) for name in ("values", "loss")}


class _Call(nn.Module):
    """A module whose forward is any function of a model, as `functional_call` only calls forward."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, function: Callable, *arguments):
        return function(self.model, *arguments)


class Stacked:
    """S models of one config, one for each seed; batches keep all padding, so that shapes are equal."""

    def __init__(self, models: Sequence[Model], seeds: Sequence[int], device: torch.device):
        self.count, self.config = len(models), models[0].config
        self.one = _Call(models[0])
        self.parameters, self.buffers = stack_module_state([_Call(m) for m in models])
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.device = device
        self.counts: dict[int, int] = {}

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """The model's groups, with each parameter replaced by its stack."""
        stacks = {id(p): self.parameters[name] for name, p in self.one.named_parameters()}
        groups = self.one.model.parameter_groups(learning_rate)
        return [{**g, "params": [stacks[id(p)] for p in g["params"]]} for g in groups]

    def train(self, mode: bool) -> None:
        self.one.train(mode)

    def __call__(self, function: Callable, data: OnDevice, index: Int64[Tensor, "S B"], *rest: Tensor) -> Results:
        features, lengths = data.gather(index, trim=False)
        each = (self.parameters, self.buffers, features, lengths, data.target(index))

        def seed(parameters, buffers, features, lengths, target, bits, *rest):
            with bits_from(Bits(bits)):
                arguments = function, Batch(features, lengths), target, *rest
                return functional_call(self.one, (parameters, buffers), arguments)

        return vmap(seed)(*each, self._bits(function, data, index, rest), *rest)

    def _bits(self, function: Callable, data: OnDevice, index: Tensor, rest: Sequence[Tensor]) -> Int16[Tensor, "S n"]:
        """Random bits for every dropout of one step, each seed's from its own generator."""
        if not self.one.training:  # nothing is dropped; drawing would change the training that follows
            return torch.zeros(len(self.generators), 1, dtype=torch.int16, device=self.device)
        size = index.shape[1]
        if size not in self.counts:  # the number of bits is that of one step with as many utterances
            with torch.no_grad(), bits_from(Counter(self.device)) as counter:
                batch = Batch(*data.gather(index[0], trim=False))
                function(self.one.model, batch, data.target(index[0]), *(x[0] for x in rest))
            self.counts[size] = counter.taken
        return torch.stack([random_bits(self.counts[size], self.device, g) for g in self.generators])

    def state(self, i: int) -> dict[str, Tensor]:
        """A copy of one seed's parameters on the CPU."""
        stacks = self.parameters | self.buffers
        names = self.one.model.state_dict()
        return {name: stacks[f"model.{name}"][i].detach().to("cpu", copy=True) for name in names}


Learner = Alone | Several | Stacked
