from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from raysweep.engine.admission import Admission, Resources

AMOUNTS = st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 1.0, 2.0])
NODES = st.lists(
    st.fixed_dictionaries({"CPU": st.sampled_from([1.0, 2.0, 4.0])}, optional={"GPU": st.sampled_from([1.0, 2.0])}),
    min_size=1,
    max_size=3,
)
REQUESTS = st.fixed_dictionaries({"CPU": AMOUNTS}, optional={"GPU": AMOUNTS})


def fits(requests: list[dict[str, float]], nodes: list[dict[str, float]]) -> bool:
    """Whether some placement holds all requests, tried one by one."""
    if not requests:
        return True
    first, *rest = requests
    for position, node in enumerate(nodes):
        if all(node.get(name, 0.0) + 1e-6 >= amount for name, amount in first.items()):
            left = {name: free - first.get(name, 0.0) for name, free in node.items()}
            if fits(rest, [*nodes[:position], left, *nodes[position + 1 :]]):
                return True
    return False


@given(NODES, st.lists(st.tuples(st.booleans(), st.integers(0, 5), REQUESTS), max_size=25))
def test_what_is_admitted_always_fits_and_everything_comes_back(nodes, actions):
    admission = Admission(nodes)
    held: dict[str, dict[str, float]] = {}
    for is_admission, number, request in actions:
        stage = f"s{number}"
        admission.begin_round()
        if is_admission and stage not in held:
            if admission.admit(stage, request):
                held[stage] = request
                assert fits(sorted(held.values(), key=lambda r: -sum(r.values())), nodes)
            else:
                assert held or not admission.can_ever_hold(request)
        elif not is_admission:
            admission.release(stage)
            held.pop(stage, None)
    for stage in list(held):
        admission.release(stage)
    for node in nodes:
        admission.begin_round()
        assert admission.admit("as large as a node", node)
        admission.release("as large as a node")


class PlainNode:
    """A node whose GPUs are told apart: a share lies on the fullest one that has it, whole ones on untouched ones."""

    def __init__(self, total: Resources):
        self.total = dict(total)
        self.used: list[Resources] = []
        gpu = total.get("GPU", 0.0)
        self.gpus = [1.0] * int(gpu) + [gpu % 1] * (gpu % 1 > 0)

    def free(self, name: str) -> float:
        return self.total.get(name, 0.0) - sum(request.get(name, 0.0) for request in self.used)

    def places(self, request: Resources) -> list[int] | None:
        gpu = request.get("GPU", 0.0)
        if gpu < 1:
            enough = [place for place, free in enumerate(self.gpus) if free >= gpu]
            return [] if not gpu else [min(enough, key=lambda place: self.gpus[place])] if enough else None
        untouched = [place for place, free in enumerate(self.gpus) if free == 1.0]
        return untouched[: int(gpu)] if len(untouched) >= gpu else None

    def has_room(self, request: Resources) -> bool:
        return all(self.free(name) >= request[name] for name in request) and self.places(request) is not None

    def take(self, request: Resources) -> list[int]:
        places = self.places(request)
        for place in places:
            self.gpus[place] -= min(1.0, request["GPU"])
        self.used.append(request)
        return places

    def give_back(self, request: Resources, places: list[int]) -> None:
        for place in places:
            self.gpus[place] += min(1.0, request["GPU"])
        self.used.remove(request)


class PlainAdmission:
    """What an admission decides, node by node: the slow and plain way to say it."""

    def __init__(self, nodes: dict[str, Resources]):
        self.nodes = {name: PlainNode(node) for name, node in nodes.items()}
        self.held: dict[str, tuple[str, Resources, list[int]]] = {}
        self.reserved: set[str] = set()

    def admit(self, stage: str, request: Resources) -> str | None:
        def room_left(name):
            order = [r for r in ("GPU", "CPU", "licence") if r in request]
            return tuple(self.nodes[name].free(r) - request[r] for r in order)

        open_nodes = [name for name in self.nodes if name not in self.reserved]
        fitting = [name for name in open_nodes if self.nodes[name].has_room(request)]
        if fitting:
            chosen = min(fitting, key=room_left)
            self.held[stage] = (chosen, request, self.nodes[chosen].take(request))
            return chosen
        empty = {name: PlainNode(self.nodes[name].total) for name in open_nodes}
        if candidates := [name for name, node in empty.items() if node.has_room(request)]:
            self.reserved.add(max(candidates, key=room_left))
        return None

    def release(self, stage: str) -> None:
        node, request, places = self.held.pop(stage, ("", {}, []))
        if node in self.nodes:
            self.nodes[node].give_back(request, places)

    def replace(self, gone: str, new: str) -> None:
        del self.nodes[gone]
        self.nodes[new] = PlainNode({"CPU": 4.0, "GPU": 2.0})
        self.reserved.discard(gone)


EXACT = st.sampled_from([0.125, 0.25, 0.5, 1.0, 2.0])
GPUS = st.sampled_from([0.5, 1.0, 2.0, 3.0])
EXACT_REQUESTS = st.fixed_dictionaries({"CPU": EXACT}, optional={"GPU": EXACT, "licence": EXACT})
MANY_NODES = st.lists(
    st.fixed_dictionaries({"CPU": st.sampled_from([2.0, 4.0])}, optional={"GPU": GPUS, "licence": EXACT}),
    min_size=1,
    max_size=6,
)
ACTIONS = st.sampled_from(["admit", "admit", "admit", "release", "round", "replace"])


@settings(max_examples=200, deadline=None)
@given(MANY_NODES, st.lists(st.tuples(ACTIONS, st.integers(0, 7), EXACT_REQUESTS), max_size=40))
def test_looking_at_groups_of_nodes_decides_as_looking_at_each_node_does(nodes, actions):
    there = {f"n{number}": node for number, node in enumerate(nodes)}
    admission, plain = Admission(there), PlainAdmission(there)
    for number, (action, stage, request) in enumerate(actions):
        if action == "admit" and f"s{stage}" not in plain.held:
            assert admission.admit(f"s{stage}", request) == plain.admit(f"s{stage}", request)
        elif action == "release":
            admission.release(f"s{stage}")
            plain.release(f"s{stage}")
        elif action == "round":
            admission.begin_round()
            plain.reserved = set()
        elif action == "replace":
            gone = sorted(there)[stage % len(there)]
            there = {name: node for name, node in there.items() if name != gone}
            there[f"n{100 + number}"] = {"CPU": 4.0, "GPU": 2.0}
            admission.update(there)
            plain.replace(gone, f"n{100 + number}")
        assert admission.use("GPU")[1] == sum(node.get("GPU", 0.0) for node in there.values())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.5, 0.5, 0.75, 1.0, 2.0])), min_size=6, max_size=30))
def test_shares_and_whole_gpus_of_one_node_find_the_gpus_that_are_free(actions):
    node = {"CPU": 64.0, "GPU": 3.0}
    admission, plain = Admission([node]), PlainAdmission({"0": node})
    for stage, gpu in actions:  # an even turn of a stage gives back what it holds
        if f"s{stage}" in plain.held:
            admission.release(f"s{stage}")
            plain.release(f"s{stage}")
        else:
            admission.begin_round()
            plain.reserved = set()
            request = {"CPU": 1.0, "GPU": gpu}
            assert admission.admit(f"s{stage}", request) == plain.admit(f"s{stage}", request)
