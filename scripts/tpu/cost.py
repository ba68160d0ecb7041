"""What a program compiled for a TPU costs: memory, HBM traffic, FLOPs, collectives, per chip.

XLA's own `cost_analysis` cannot answer: it counts the body of a loop once, and adds what moves
inside the chip's fast memory to what moves to and from HBM. So the compiled text is read here:

- Every instruction counts as often as the loops around it turn.
- An instruction moves its operands and its result, but not those whose layout says `S(1)`: they
  lie in fast memory. A fusion counts once, from outside.
- Slices, gathers and updates in place move what they touch, inside fusions too.
- FLOPs are those of matrix products (which a TPU compiles to convolutions).

A loop that may end early counts in full; of a conditional, the branch with the most traffic.

    python scripts/tpu/cost.py FILE    # of a text from `compiled.as_text()`: where bytes go
"""

import collections
import dataclasses
import functools
import math
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# One TPU v5e chip (https://cloud.google.com/tpu/docs/v5e): four links of 50 GB/s each way, of which
# a chip in the corner of a slice has two, so that nothing reaches all chips faster than this.
PEAK_FLOPS = 197e12
HBM_BYTES_PER_SECOND = 819e9
LINK_BYTES_PER_SECOND = 100e9
HBM_GIB = 15.75  # what a program can use; the compiler refuses more

SMALL = 4096  # bytes: a collective up to this size is latency, not traffic
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16}
# These name or rearrange nothing but references; the second half of an asynchronous pair has
# been counted with the first.
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all",
    "opt-barrier", "partition-id", "replica-id", "add-dependency",
}  # fmt: skip
FREE_CALLS = ("ConcatBitcast", "AssumeGatherIndicesInBound", "AllocateBuffer", "Sharding")
SAME_ELEMENTS = {"bitcast", "reshape", "transpose", "convert", "copy"}


# --- The compiled text --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Array:
    """The shape of a buffer, and how it lies in memory."""

    dtype: str
    dims: tuple[int, ...]
    layout: str  # for example 1,0:T(8,128)(2,1)S(1)

    @property
    def in_hbm(self) -> bool:
        """Not in fast memory, nor among scalars or semaphores."""
        return re.search(r"S\([1-9]", self.layout) is None

    @property
    def bits(self) -> int:
        """Of one element."""
        return BITS.get(self.dtype) or int(re.sub(r"\D*(\d+).*", r"\1", self.dtype) or 0)

    @property
    def size(self) -> int:
        """Bytes of its elements alone."""
        return math.prod(self.dims) * self.bits // 8

    @property
    def bytes(self) -> int:
        """Bytes in memory: whole tiles."""
        order, _, tiling = self.layout.partition(":")
        physical = [self.dims[int(i)] for i in reversed(order.split(",")) if i]
        if tile := re.match(r"T\(([\d,]+)\)", tiling):
            for i, length in enumerate(reversed(tile[1].split(",")), 1):
                if i <= len(physical):
                    physical[-i] += -physical[-i] % int(length)
        return math.prod(physical) * self.bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of the text."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]  # of the result; a tuple's, flat
    operands: tuple[str, ...]
    literal: str  # what stands in the brackets
    attributes: str
    computation: str

    def attribute(self, pattern: str) -> str:
        """The first group of a pattern in the attributes, or nothing."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Program:
    """Computations by name, each its instructions by name; the root of each."""

    computations: dict[str, dict[str, Instruction]]
    roots: dict[str, Instruction]
    entry: str

    @functools.cached_property
    def users(self) -> dict[tuple[str, str], list[Instruction]]:
        """Who reads an instruction's result."""
        users = collections.defaultdict(list)
        for name, instructions in self.computations.items():
            for instruction in instructions.values():
                for operand in dict.fromkeys(instruction.operands):
                    users[name, operand].append(instruction)
        return users

    @functools.cached_property
    def begun(self) -> dict[str, str]:
        """Collectives that run beside other work: channel, and the fusion that begins them.

        Each of the fusions that they run beside names them again, and passes their buffers on.
        """
        begun = {}
        for name, root in self.roots.items():
            if "AsyncCollectiveStart" in root.attributes:
                for instruction in self.computations[name].values():
                    if instruction.opcode in COLLECTIVES:
                        begun[instruction.attribute(r"channel_id=(\d+)")] = name
        return begun

    def goes_on(self, instruction: Instruction) -> bool:
        """Is this a collective that another fusion has begun?"""
        first = self.begun.get(instruction.attribute(r"channel_id=(\d+)"))
        return first is not None and first != instruction.computation

    def operand(self, instruction: Instruction, index: int) -> Instruction:
        """The instruction that makes an operand."""
        return self.computations[instruction.computation][instruction.operands[index]]

    def called(self, instruction: Instruction, kind: str = "calls") -> str:
        """The name of the computation that an instruction runs."""
        return instruction.attribute(rf"\b{kind}=%?([\w.\-]+)")


def arrays_in(text: str) -> tuple[Array, ...]:
    """All array shapes in a piece of text."""
    found = re.findall(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?", text)
    return tuple(
        Array(dtype, tuple(int(n.strip("<=")) for n in dims.split(",") if n), layout)
        for dtype, dims, layout in found
    )


def closing(text: str, start: int) -> int:
    """The position of the bracket that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise ValueError(f"No closing bracket in: {text[:200]}")


def parse(text: str) -> Program:
    """Reads the text that `compiled.as_text()` gives."""
    computations: dict[str, dict[str, Instruction]] = {}
    roots: dict[str, Instruction] = {}
    entry = inside = ""
    for line in text.splitlines():
        if header := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            inside = header[2]
            computations[inside] = {}
            entry = inside if header[1] else entry
        elif found := re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line):
            rest = line[found.end() :]
            end = closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
            bracket = rest.index("(", end)
            close = closing(rest, bracket)
            literal = rest[bracket + 1 : close]
            instruction = Instruction(
                name=found[2],
                opcode=rest[end:bracket].strip(),
                arrays=arrays_in(rest[:end]),
                operands=tuple(re.findall(r"%([\w.\-]+)", literal)),
                literal=literal,
                attributes=rest[close + 1 :],
                computation=inside,
            )
            computations[inside][instruction.name] = instruction
            if found[1]:
                roots[inside] = instruction
    return Program(computations, roots, entry)


# --- What is executed, and how often ------------------------------------------------------------


def constant(program: Program, instruction: Instruction, loop: Instruction | None) -> int | None:
    """The integer that an instruction is known to give; `loop`: its tuple's first values."""
    if instruction.opcode == "constant":
        return int(instruction.literal) if re.fullmatch(r"-?\d+", instruction.literal) else None
    if instruction.opcode in SAME_ELEMENTS:
        return constant(program, program.operand(instruction, 0), loop)
    if instruction.opcode == "get-tuple-element" and loop is not None:
        start = program.operand(loop, 0)
        index = int(instruction.attribute(r"index=(\d+)"))
        if start.opcode == "tuple":
            return constant(program, program.operand(start, index), None)
    return None


def trip_count(program: Program, loop: Instruction) -> int | None:
    """How often a loop turns at most: from a comparison of its counter with a constant."""
    if known := loop.attribute(r'known_trip_count[^}]*?"n":"?(\d+)'):
        return int(known)
    limits = []
    waiting = [(program.roots[program.called(loop, "condition")], None)]
    while waiting:
        instruction, fusion = waiting.pop()

        def operand(i: int, of: Instruction = instruction, within: Any = fusion) -> Instruction:
            made = program.operand(of, i)
            if made.opcode == "parameter" and within is not None:
                return program.operand(within, int(made.literal))
            return made

        if instruction.opcode == "and":
            waiting += [(operand(0), fusion), (operand(1), fusion)]
        elif instruction.opcode == "fusion":
            waiting.append((program.roots[program.called(instruction)], instruction))
        elif "direction=LT" in instruction.attributes:
            counter, limit = operand(0), constant(program, operand(1), loop)
            if limit is not None and counter.opcode == "get-tuple-element":
                limits.append(limit - (constant(program, counter, loop) or 0))
    return min(limits, default=None)


def executed(
    program: Program, name: str = "", times: int = 1, unknown: int = 1
) -> Iterator[tuple[Instruction, int]]:
    """Instructions, each with how often it runs; not those inside fusions.

    A loop whose turns are not known is handed out itself, and taken to turn `unknown` times.
    """
    for instruction in program.computations[name or program.entry].values():
        if instruction.opcode == "while":
            turns = trip_count(program, instruction)
            if turns is None:
                yield instruction, times
            for part in ("condition", "body"):
                part_name = program.called(instruction, part)
                yield from executed(program, part_name, times * (turns or unknown), unknown)
        elif instruction.opcode == "conditional":
            listed = instruction.attribute(r"branch_computations=\{([^}]*)\}")
            branches = re.findall(r"[\w.\-]+", listed) or [
                program.called(instruction, f"{way}_computation") for way in ("true", "false")
            ]
            ways = [list(executed(program, branch, times, unknown)) for branch in branches]
            yield from max(ways, key=lambda way: sum(hbm_bytes(program, i) * n for i, n in way))
        elif instruction.opcode in ("call", "async-start"):
            kind = "calls" if "calls=" in instruction.attributes else "to_apply"
            yield from executed(program, program.called(instruction, kind), times, unknown)
        else:
            yield instruction, times


# --- One instruction ----------------------------------------------------------------------------


def parameters(program: Program, fusion: Instruction) -> dict[int, Instruction]:
    """What a fusion's operands are called inside it."""
    inner = program.computations[program.called(fusion)].values()
    return {int(i.literal): i for i in inner if i.opcode == "parameter"}


def share_read(
    program: Program, instruction: Instruction, after: Callable[[], float] = lambda: 1.0
) -> float:
    """The share of a result's elements that a fusion reads; `after`: what its caller reads."""
    here, share = instruction.computation, 0.0
    if program.roots.get(here) is instruction:
        share += after()
    elements = max(1, math.prod(instruction.arrays[0].dims)) if instruction.arrays else 1
    for user in program.users[here, instruction.name]:
        first = user.operands[0] == instruction.name
        if user.opcode in SAME_ELEMENTS:
            share += share_read(program, user, after)
        elif user.opcode in ("slice", "dynamic-slice", "gather") and first:
            share += math.prod(user.arrays[0].dims) / elements
        elif user.opcode == "dynamic-update-slice" and first:
            share += 0.0  # in place: the rest stays where it is
        elif user.opcode == "tuple" or program.goes_on(user):
            share += 0.0  # passed on
        elif user.opcode == "fusion":
            inner = parameters(program, user)
            for index in (i for i, name in enumerate(user.operands) if name == instruction.name):
                share += share_read(
                    program, inner[index], lambda u=user: share_read(program, u, after)
                )
        else:
            share += 1.0
        if share >= 1:
            return 1.0
    return share


def share_written(program: Program, instruction: Instruction) -> float:
    """The share of a result that is written: of an update in place, the update."""
    if instruction.opcode in SAME_ELEMENTS and instruction.operands:
        return share_written(program, program.operand(instruction, 0))
    if instruction.opcode == "fusion" and len(instruction.arrays) == 1:
        return share_written(program, program.roots[program.called(instruction)])
    if instruction.opcode == "dynamic-update-slice":
        update = program.operand(instruction, 1)
        return math.prod(update.arrays[0].dims) / max(1, math.prod(instruction.arrays[0].dims))
    return 1.0


def hbm_bytes(program: Program, instruction: Instruction) -> float:
    """What one instruction reads from HBM and writes to it."""
    opcode = instruction.opcode
    free_call = opcode == "custom-call" and any(c in instruction.attributes for c in FREE_CALLS)
    if opcode in FREE or opcode.endswith("-done") or opcode == "while" or free_call:
        return 0.0

    def moved(*arrays: Array) -> float:
        return sum(array.bytes for array in arrays if array.in_hbm)

    if opcode == "copy-start":
        return moved(*instruction.arrays[:2])
    if opcode == "slice-start":
        source, piece = instruction.arrays[:2]
        return piece.bytes * (source.in_hbm + piece.in_hbm)

    operands = [program.operand(instruction, i) for i in range(len(instruction.operands))]
    results = instruction.arrays
    if opcode.endswith("-start"):  # a collective: its result lists its operands too
        results = results[len(operands) : 2 * len(operands)] or results
    if opcode in ("slice", "dynamic-slice", "gather"):
        return instruction.arrays[0].bytes * operands[0].arrays[0].in_hbm + moved(*results)
    if opcode == "dynamic-update-slice":
        return moved(*operands[1].arrays) + operands[1].arrays[0].bytes * results[0].in_hbm
    if opcode == "scatter":
        return moved(*operands[-1].arrays) * 3
    if opcode != "fusion":
        return moved(*results, *(array for made in operands for array in made.arrays))

    inner = parameters(program, instruction)
    root = program.roots[program.called(instruction)]
    if "AsyncCollectiveStart" in root.attributes:
        return hbm_bytes(program, program.operand(root, 0))
    if "AsyncCollectiveDone" in root.attributes:
        return 0.0
    parts = [root] if root.opcode != "tuple" else [
        program.operand(root, i) for i in range(len(root.operands))
    ]  # fmt: skip
    total = 0.0
    for i, made in enumerate(operands):
        share = share_read(program, inner[i]) if moved(*made.arrays) else 0.0
        total += share * moved(*made.arrays)
    for array, part in zip(results, parts, strict=len(parts) == len(results)):
        if part.opcode != "parameter" and not program.goes_on(part):  # those are passed on
            total += share_written(program, part) * moved(array)
    return total


@functools.lru_cache(maxsize=4096)
def taps(inputs: int, outputs: int, window: tuple[int, int, int, int, int]) -> int:
    """Along one dimension: pairs of an output and a kernel element that meet an input."""
    size, stride, pad, dilation, kernel_dilation = window
    positions = np.arange(outputs)[:, None] * stride - pad + np.arange(size) * kernel_dilation
    inside = (positions >= 0) & (positions <= (inputs - 1) * dilation)
    return int((inside & (positions % dilation == 0)).sum())


def product_flops(program: Program, instruction: Instruction) -> float:
    """2 × multiplications of one dot or convolution."""
    left = program.operand(instruction, 0).arrays[0].dims
    right = program.operand(instruction, 1).arrays[0].dims
    result = instruction.arrays[0].dims
    if instruction.opcode == "dot":
        contracted = instruction.attribute(r"lhs_contracting_dims=\{([\d,]*)\}")
        depth = math.prod(left[int(i)] for i in contracted.split(",") if i)
        return 2.0 * math.prod(result) * depth
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    on_left, on_right, on_result = labels.groups()
    window = instruction.attribute(r"window=\{([^}]*)\}")
    groups = int(instruction.attribute(r"batch_group_count=(\d+)") or 1)

    def along(field: str, dimension: int, default: int) -> int:
        values = re.search(rf"\b{field}=(\S+)", window)
        return int(values[1].split("x")[dimension].split("_")[0]) if values else default

    total = 2.0 * left[on_left.index("b")] / groups
    total *= right[on_right.index("i")] * result[on_result.index("f")]
    for d in range(len(on_left) - 2):
        axis = (
            along("size", d, 1), along("stride", d, 1), along("pad", d, 0),
            along("lhs_dilate", d, 1), along("rhs_dilate", d, 1),
        )  # fmt: skip
        total *= taps(left[on_left.index(str(d))], result[on_result.index(str(d))], axis)
    return total


def inside(program: Program, instruction: Instruction) -> Iterator[Instruction]:
    """The instruction, and if it is a fusion all that it holds."""
    yield instruction
    if instruction.opcode == "fusion":
        for part in program.computations[program.called(instruction)].values():
            yield from inside(program, part)


def flops(program: Program, instruction: Instruction) -> float:
    """FLOPs of the matrix products in an instruction."""
    parts = inside(program, instruction)
    products = (part for part in parts if part.opcode in ("dot", "convolution"))
    return sum(product_flops(program, part) for part in products)


def group_length(instruction: Instruction) -> int:
    """How many chips take part in a collective together."""
    text = instruction.attributes
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", mesh[2]))
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", text):
        return int(counted[1])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", text)
    return len(listed[1].split(",")) if listed else 2


def sent_bytes(program: Program, instruction: Instruction, kind: str) -> float:
    """What each chip sends in a collective, along a ring."""
    made = (program.operand(instruction, i) for i in range(len(instruction.operands)))
    own = sum(array.size for one in made for array in one.arrays)
    n = group_length(instruction)
    factors = {"all-gather": n - 1, "all-reduce": 2 * (n - 1) / n, "collective-permute": 1}
    return own * factors.get(kind, (n - 1) / n)


# --- The whole program --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one run of a program costs each chip."""

    hbm_gib: float  # arguments + temporaries + outputs - outputs in the place of arguments
    flops: float  # of matrix products
    bytes: float  # from and to HBM
    collectives: dict[str, dict[str, float]]  # by kind: count, scalars (of them), bytes (sent)
    unknown_loops: int = 0  # loops whose length is not in the program

    @property
    def seconds(self) -> dict[str, float]:
        """The least time that each resource needs."""
        sent = sum(kind["bytes"] for kind in self.collectives.values())
        return {
            "flops": self.flops / PEAK_FLOPS,
            "hbm": self.bytes / HBM_BYTES_PER_SECOND,
            "links": sent / LINK_BYTES_PER_SECOND,
        }

    @property
    def roofline_seconds(self) -> float:
        """No chip can be faster."""
        return max(self.seconds.values())

    @property
    def bound(self) -> str:
        """The resource that takes longest: flops, hbm or links."""
        return max(self.seconds, key=self.seconds.__getitem__)

    def share(self, part: float) -> "Cost":
        """A part of the work, in the same memory."""
        kinds = {
            kind: {name: value * part for name, value in one.items()}
            for kind, one in self.collectives.items()
        }
        return dataclasses.replace(
            self, flops=self.flops * part, bytes=self.bytes * part, collectives=kinds
        )


def cost_of_text(text: str, hbm_gib: float = 0.0, turns: int = 1) -> Cost:
    """Reads the cost from `compiled.as_text()`; the memory is not in it."""
    program = parse(text)
    total_flops, total_bytes, unknown_loops = 0.0, 0.0, 0
    collectives: dict[str, dict[str, float]] = {}
    for instruction, times in executed(program, unknown=turns):
        unknown_loops += instruction.opcode == "while"
        total_bytes += times * hbm_bytes(program, instruction)
        total_flops += times * flops(program, instruction)
        for part in inside(program, instruction):
            kind = part.opcode.removesuffix("-start")
            if kind in COLLECTIVES and not program.goes_on(part):
                sent = sent_bytes(program, part, kind)
                one = collectives.setdefault(kind, {"count": 0, "scalars": 0, "bytes": 0.0})
                one["count"] += times
                one["scalars"] += times * (sent <= SMALL)
                one["bytes"] += times * sent
    return Cost(hbm_gib, total_flops, total_bytes, collectives, unknown_loops)


def cost_of(compiled: Any, turns: int = 1) -> Cost:
    """The cost of a program that was compiled for a TPU.

    Args:
      compiled: from `jax.jit(…).lower(…).compile()`.
      turns: of loops whose length is not in the program but in its arguments.
    """
    memory = compiled.memory_analysis()
    used = (
        memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )
    return cost_of_text(compiled.as_text(), used / 2**30, turns)


def largest(text: str, count: int = 25) -> list[str]:
    """The instructions that move most, for whoever looks for waste: GB, times, name, origin."""
    program = parse(text)
    moved = [(hbm_bytes(program, i) * n, n, i) for i, n in executed(program)]
    moved.sort(key=lambda row: -row[0])
    return [
        f"{size / 1e9:9.4f} GB  ×{n:<6} {i.opcode:22} {i.name[:44]:44} "
        + i.attribute(r'op_name="([^"]*)"')[-70:]
        for size, n, i in moved[:count]
    ]


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        content = file.read()
    print(cost_of_text(content))
    print("\n".join(largest(content)))
