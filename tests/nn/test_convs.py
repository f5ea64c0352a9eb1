"""Every convolution equals its slow form, also on awkward graphs; RGCN equals PyG's."""

import functools
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.nn import HGTConv as PyGHGTConv
from torch_geometric.nn import RGATConv as PyGRGATConv
from torch_geometric.nn import RGCNConv as PyGRGCNConv

from kgclip.nn import edge_kernels
from kgclip.nn.compgcn import CompGCNConv
from kgclip.nn.composition import COMPOSITIONS, PairPlan, compose
from kgclip.nn.convs import CONVS, GatedResidual
from kgclip.nn.hgt import HGTConv
from kgclip.nn.relation_gate import RelationGateConv
from kgclip.nn.rgat import RGATConv
from kgclip.nn.rgcn import RGCNConv

IN, OUT, RELATIONS = 4, 6, 6
GRAPHS = {  # number of nodes, edges as (source, target, relation)
    "empty": (0, []),
    "one node": (1, []),
    "self loop": (1, [(0, 0, 2)]),
    "isolated node": (3, [(0, 1, 0)]),
    "duplicate edges": (3, [(0, 1, 0), (0, 1, 0), (2, 1, 0), (0, 1, 5)]),
    "relation without edges": (4, [(0, 1, 5), (1, 2, 5), (3, 3, 1)]),
    "random": (9, [(i * 5 % 9, i * 7 % 9, i % 6) for i in range(40)]),
}


def slow_rgcn(conv, x, edges):
    theta = conv._matrices()
    out = x @ conv.root + conv.bias
    for i in range(len(x)):
        for r in range(RELATIONS):
            near = [s for s, t, k in edges if t == i and k == r]
            if near:
                out[i] = out[i] + torch.stack([x[j] for j in near]).mean(dim=0) @ theta[r]
    return out


def slow_compgcn(conv, x, edges):
    out = []
    for i in range(len(x)):
        total = compose(x[i], conv.loop_relation, conv.composition) @ conv.weight[2]
        entering = [e for e in edges if e[1] == i]
        for source, _, relation in entering:
            message = compose(x[source], conv.relations[relation], conv.composition)
            direction = int(relation >= RELATIONS // 2)
            same = [e for e in edges if (e[2] >= RELATIONS // 2) == direction]
            degrees = (sum(e[0] == source for e in same), sum(e[1] == i for e in same))
            c = 1 / len(entering) if conv.norm == "mean" else (degrees[0] * degrees[1]) ** -0.5
            total = total + c * message @ conv.weight[direction]
        if conv.combine == "mean3":
            total = total / 3
        out.append(total + conv.bias)
    return torch.stack(out) if out else x.new_zeros(0, OUT)


def slow_rgat(conv, x, edges):
    theta = torch.einsum("rb,bio->rio", conv.comp, conv.basis)
    out = []
    for i in range(len(x)):
        entering = [e for e in edges if e[1] == i]
        total = conv.root(x[i])
        for head in range(conv.heads):
            part = slice(head * conv.out_channels, (head + 1) * conv.out_channels)
            views = [(x[i] @ theta[r][:, part], x[j] @ theta[r][:, part]) for j, _, r in entering]
            if views:
                logits = torch.stack(
                    [conv.query[head] @ mine + conv.key[head] @ theirs for mine, theirs in views]
                )
                alpha = F.leaky_relu(logits, conv.negative_slope).softmax(dim=0)
                heard = sum(a * theirs for a, (_, theirs) in zip(alpha, views, strict=True))
                total = total + F.pad(heard, (part.start, len(total) - part.stop))
        out.append(total)
    return torch.stack(out) if out else x.new_zeros(0, conv.heads * conv.out_channels)


def slow_hgt(conv, x, edges, node_type=None):
    kinds = [0] * len(x) if node_type is None else node_type.tolist()
    width = conv.output_weight.shape[1] // conv.heads
    views = [
        (row @ conv.input_weight[k] + conv.input_bias[k]).view(3, conv.heads, width)
        for row, k in zip(x, kinds, strict=True)
    ]
    out = []
    for i, kind in enumerate(kinds):
        entering, heads = [e for e in edges if e[1] == i], []
        for h in range(conv.heads):
            if not entering:
                heads.append(x.new_zeros(width))
                continue
            logits = [
                conv.prior[r, h] * (views[j][0, h] @ conv.key_weight[r, h]) @ views[i][1, h]
                for j, _, r in entering
            ]
            alpha = (torch.stack(logits) / width**0.5).softmax(dim=0)
            values = [views[j][2, h] @ conv.value_weight[r, h] for j, _, r in entering]
            heads.append(sum(a * v for a, v in zip(alpha, values, strict=True)))
        heard = F.gelu(torch.cat(heads)) @ conv.output_weight[kind] + conv.output_bias[kind]
        share = conv.skip[kind].sigmoid()
        own = x[i] if conv.root is None else x[i] @ conv.root[kind]
        out.append(share * heard + (1 - share) * own)
    return torch.stack(out) if out else x.new_zeros(0, conv.output_weight.shape[1])


SLOW = {"rgcn": slow_rgcn, "compgcn": slow_compgcn, "rgat": slow_rgat, "hgt": slow_hgt}


def tensors(num_nodes, edges):
    torch.manual_seed(0)
    x = torch.randn(num_nodes, IN, dtype=torch.double, requires_grad=True)
    ends = torch.tensor([[s for s, _, _ in edges], [t for _, t, _ in edges]], dtype=torch.long)
    kinds = torch.tensor([r for _, _, r in edges], dtype=torch.long)
    return x, ends.reshape(2, -1), kinds


def assert_equal(conv, graph, slow, wanted=()):
    """Outputs and gradients of a convolution and its slow form are equal in double precision."""
    x = graph[0]
    wanted, results = [x, *conv.parameters(), *wanted], []
    for out in (conv(*graph), slow(x)):
        assert len(out) == len(x), "no node vanishes"
        probe = torch.linspace(-1, 1, out.numel(), dtype=torch.double).view_as(out)
        grads = torch.autograd.grad((out * probe).sum() + 0 * x.sum(), wanted, allow_unused=True)
        zeros = map(torch.zeros_like, wanted)
        filled = [zero if grad is None else grad for grad, zero in zip(grads, zeros, strict=True)]
        results.append([out, *filled])
    for fast, reference in zip(*results, strict=True):
        assert fast.shape == reference.shape
        torch.testing.assert_close(fast, reference, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", CONVS)
class TestEveryConvolution:
    @pytest.mark.parametrize("graph", GRAPHS)
    def test_equals_the_slow_form(self, name, graph):
        num_nodes, edges = GRAPHS[graph]
        x, edge_index, edge_type = tensors(num_nodes, edges)
        conv = CONVS[name](IN, OUT, RELATIONS).double()
        slow = functools.partial(SLOW[name], conv, edges=edges)
        assert_equal(conv, (x, edge_index, edge_type), slow)

    @pytest.mark.parametrize(
        ("edge_index", "edge_type", "message"),
        [
            (torch.zeros(2, 1), torch.zeros(1, dtype=torch.long), "torch.float32"),
            (torch.zeros(1, 2, dtype=torch.long), torch.zeros(2, dtype=torch.long), r"\[1, 2\]"),
            (torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, dtype=torch.long), r"\[3\]"),
            (torch.tensor([[0], [9]]), torch.tensor([0]), r"edge_index: ids 0 to 9 .*\[0, 2\)"),
            (torch.tensor([[0], [1]]), torch.tensor([-1]), r"edge_type: ids -1"),
        ],
    )
    def test_bad_edges(self, name, edge_index, edge_type, message):
        with pytest.raises(ValueError, match=message):
            CONVS[name](IN, OUT, RELATIONS)(torch.zeros(2, IN), edge_index, edge_type)

    @pytest.mark.parametrize("x", [torch.zeros(2, IN + 1), torch.zeros(2, IN).long()])
    def test_bad_features(self, name, x):
        with pytest.raises(ValueError, match=rf"x: torch.* given, float \[N, {IN}\]"):
            CONVS[name](IN, OUT, RELATIONS)(x, *tensors(2, [])[1:])

    def test_features_that_are_no_numbers(self, name):
        x = torch.zeros(3, IN)
        x[1, 2] = torch.nan
        with pytest.raises(ValueError, match="x: NaN in 1 of 3 rows, the first is row 1"):
            CONVS[name](IN, OUT, RELATIONS)(x, *tensors(3, [])[1:])
        x[1, 2] = torch.inf
        CONVS[name](IN, OUT, RELATIONS)(x, *tensors(3, [])[1:])

    def test_inference_mode(self, name):
        conv = CONVS[name](IN, OUT, RELATIONS).double()
        expected = conv(*tensors(*GRAPHS["random"]))
        with torch.inference_mode():
            torch.testing.assert_close(conv(*tensors(*GRAPHS["random"])), expected.detach())

    def test_autocast_sums_in_full_precision(self, name):
        conv = CONVS[name](IN, OUT, RELATIONS)
        x, *edges = tensors(*GRAPHS["random"])
        expected = conv(x.float(), *edges)
        with torch.autocast("cpu", torch.bfloat16):
            out = conv(x.float().bfloat16(), *edges)
            out.float().sum().backward()
        torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)
        assert x.grad.isfinite().all()

    def test_pickles_after_use(self, name):
        conv = CONVS[name](IN, OUT, RELATIONS).double()
        graph = tensors(*GRAPHS["random"])
        expected = conv(*graph)
        torch.testing.assert_close(pickle.loads(pickle.dumps(conv))(*graph), expected)

    def test_a_closed_gate_changes_nothing(self, name):
        layer = GatedResidual(CONVS[name](IN, IN, RELATIONS).double())
        x, edge_index, edge_type = tensors(*GRAPHS["random"])
        out = layer(x, edge_index, edge_type)
        assert torch.equal(out, x)
        out.square().sum().backward()
        assert layer.gate.grad != 0, "training can open it"
        with pytest.raises(ValueError, match="equal shapes expected"):
            GatedResidual(CONVS[name](IN, OUT, RELATIONS).double())(x, edge_index, edge_type)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options", [{}, {"num_bases": 3}, {"num_blocks": 2}, {"aggr": "add"}, {"root_weight": False}]
)
def test_rgcn_equals_pyg(options, dtype):
    torch.manual_seed(0)
    theirs = PyGRGCNConv(8, 6, 7, **options).to(dtype)
    ours = RGCNConv(8, 6, 7, **options).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(60, 8, dtype=dtype, requires_grad=True)
    edge_index, edge_type = torch.randint(60, (2, 400)), torch.randint(7, (400,))
    probe = torch.randn(60, 6, dtype=dtype)
    pairs = []
    for conv in (ours, theirs):
        out = conv(x, edge_index, edge_type)
        pairs.append([out, *torch.autograd.grad((out * probe).sum(), [x, *conv.parameters()])])
    assert_close_to_peak(pairs, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rgat_equals_pyg(dtype):
    torch.manual_seed(0)
    theirs = PyGRGATConv(8, 6, 7, num_bases=3, bias=False).to(dtype)
    ours = RGATConv(8, 6, 7, num_bases=3, bias=False).to(dtype)
    with torch.no_grad():
        ours.basis.copy_(theirs.basis)
        ours.comp.copy_(theirs.att)
        ours.query.copy_(theirs.q.T)
        ours.key.copy_(theirs.k.T)
        ours.root.weight.zero_()
    x = torch.randn(60, 8, dtype=dtype, requires_grad=True)
    edge_index, edge_type = torch.randint(60, (2, 400)), torch.randint(7, (400,))
    probe = torch.randn(60, 6, dtype=dtype)
    pairs = []
    for conv in (ours, theirs):
        out = conv(x, edge_index, edge_type)
        basis, comp = (conv.basis, conv.comp if conv is ours else conv.att)
        pairs.append([out, *torch.autograd.grad((out * probe).sum(), [x, basis, comp])])
    assert_close_to_peak(pairs, dtype)


def assert_close_to_peak(pairs, dtype):
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    for mine, reference in zip(*pairs, strict=True):
        assert (mine - reference).abs().max() <= tolerance * reference.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("heads", [1, 3])
def test_hgt_equals_pyg_and_keeps_every_type(dtype, heads):
    """Type "c" only sends: PyG's layer has no output for it."""
    torch.manual_seed(0)
    sizes = {"a": 20, "b": 15, "c": 5}
    keys = [("a", "r", "b"), ("b", "s", "a"), ("a", "t", "a"), ("c", "u", "b")]
    theirs = PyGHGTConv(6, 6, (list(sizes), keys), heads=heads).to(dtype)
    ours = HGTConv(6, 6, len(keys), len(sizes), heads=heads).to(dtype)
    copy_hgt(theirs, ours, list(sizes), keys)
    x = {k: torch.randn(n, 6, dtype=dtype, requires_grad=True) for k, n in sizes.items()}
    edges = {
        k: torch.stack([torch.randint(sizes[end], (40,)) for end in (k[0], k[2])]) for k in keys
    }
    expected = theirs(x, edges)
    assert "c" not in expected
    first = {"a": 0, "b": 20, "c": 35}
    shifted = [edges[k] + torch.tensor([[first[k[0]]], [first[k[2]]]]) for k in keys]
    node_type = torch.arange(3).repeat_interleave(torch.tensor(list(sizes.values())))
    out = ours(
        torch.cat(list(x.values())), torch.cat(shifted, dim=1),
        torch.arange(4).repeat_interleave(40), node_type,
    )  # fmt: skip
    assert len(out) == 40
    pairs = []
    for found in (out[:35], torch.cat([expected["a"], expected["b"]])):
        probe = torch.linspace(-1, 1, found.numel(), dtype=dtype).view_as(found)
        grads = torch.autograd.grad((found * probe).sum(), list(x.values()), retain_graph=True)
        pairs.append([found, *grads])
    assert_close_to_peak(pairs, dtype)
    share = ours.skip[2].sigmoid()
    torch.testing.assert_close(out[35:], share * ours.output_bias[2] + (1 - share) * x["c"])


@torch.no_grad()
def copy_hgt(theirs, ours, kinds, keys):
    for number, kind in enumerate(kinds):
        for name, layer in (("input", theirs.kqv_lin), ("output", theirs.out_lin)):
            getattr(ours, f"{name}_weight")[number] = layer.lins[kind].weight.T
            getattr(ours, f"{name}_bias")[number] = layer.lins[kind].bias
        ours.skip[number] = theirs.skip[kind].item()
    for number, key in enumerate(keys):
        rows = torch.arange(ours.heads) * len(keys) + number
        ours.key_weight[number] = theirs.k_rel.weight[rows]
        ours.value_weight[number] = theirs.v_rel.weight[rows]
        torch.nn.init.uniform_(theirs.p_rel["__".join(key)], 0.5, 1.5)
        ours.prior[number] = theirs.p_rel["__".join(key)][0]


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("out_channels", [IN, OUT])
def test_hgt_with_node_types_equals_the_slow_form(heads, out_channels):
    for num_nodes, edges in GRAPHS.values():
        conv = HGTConv(IN, out_channels, RELATIONS, 3, heads=heads).double()
        node_type = torch.arange(num_nodes) % 2  # the third type has no node
        slow = functools.partial(slow_hgt, conv, edges=edges, node_type=node_type)
        assert_equal(conv, (*tensors(num_nodes, edges), node_type), slow)


def test_hgt_refuses_what_does_not_fit():
    graph = tensors(*GRAPHS["random"])
    conv = HGTConv(IN, OUT, RELATIONS, 2).double()
    for node_type, message in (
        (torch.zeros(9), "node_type: torch.float32"),
        (torch.zeros(8, dtype=torch.long), r"\[8\] given, long \[9\]"),
        (torch.full((9,), 2), r"ids 2 to 2 given, \[0, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            conv(*graph, node_type)
    with pytest.raises(ValueError, match="out_channels: 6 given, a multiple of 4"):
        HGTConv(IN, OUT, RELATIONS, heads=4)


def test_rgcn_refuses_what_does_not_fit():
    for options, message in (
        ({"num_bases": 2, "num_blocks": 2}, "choose one"),
        ({"num_blocks": 5}, "multiples of"),
        ({"aggr": "max"}, "'mean' or 'add'"),
    ):
        with pytest.raises(ValueError, match=message):
            RGCNConv(4, 6, 3, **options)


def test_correlation_is_the_sum_it_says():
    torch.manual_seed(0)
    for width in (1, 4, 5):
        h, z = torch.randn(3, width), torch.randn(3, width)
        expected = torch.stack(
            [sum(h[:, i] * z[:, (i + k) % width] for i in range(width)) for k in range(width)], 1
        )
        torch.testing.assert_close(compose(h, z, "corr"), expected)


@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize("norm", ["mean", "sym"])
@pytest.mark.parametrize("combine", ["sum", "mean3"])
@pytest.mark.parametrize("dtypes", [edge_kernels.DTYPES, ()], ids=["compiled", "in pairs"])
def test_every_compgcn_equals_the_slow_form(composition, norm, combine, dtypes, monkeypatch):
    monkeypatch.setattr(edge_kernels, "DTYPES", dtypes)
    options = {"composition": composition, "norm": norm, "combine": combine}
    conv = CompGCNConv(IN, OUT, RELATIONS, **options).double()
    for graph in GRAPHS.values():
        x, edge_index, edge_type = tensors(*graph)
        assert_equal(
            conv, (x, edge_index, edge_type), lambda x, e=graph[1]: slow_compgcn(conv, x, e)
        )


@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize(("senders", "receivers"), [(9, 9), (2, 9), (9, 2)])
def test_compgcn_in_many_blocks_equals_the_slow_form(composition, senders, receivers, monkeypatch):
    monkeypatch.setattr("kgclip.nn.composition._ROWS", 4)
    monkeypatch.setattr(edge_kernels, "DTYPES", ())
    edges = [(i % senders, i // 2 % receivers, i % 3) for i in range(54)]
    edges += [(t, s, 5) for s, t, _ in edges[:20]]  # few receivers where there are few senders
    conv = CompGCNConv(IN, OUT, RELATIONS, composition=composition).double()
    graph = tensors(9, edges)
    assert_equal(conv, graph, lambda x: slow_compgcn(conv, x, edges))
    plan = conv._plan(graph[0].detach(), *graph[1:], RELATIONS)
    many_senders = [len(b.taken.index) > len(b.relation) for b in plan.forward + plan.backward]
    many_receivers = [len(b.given.index) > len(b.relation) for b in plan.backward]
    assert any(many_senders)
    assert any(many_receivers)
    assert not all(many_senders)
    assert len(plan.forward) > 3


@pytest.mark.parametrize("composition", edge_kernels.COMPOSITIONS)
@pytest.mark.parametrize("threads", [1, 3])
def test_compiled_sums_are_those_in_pairs(composition, threads, monkeypatch):
    torch.manual_seed(0)
    conv = CompGCNConv(IN, OUT, 100, composition=composition)
    x, grad = torch.randn(500, IN), torch.randn(500, OUT)
    graph = torch.randint(500, (2, 40_000)), torch.randint(100, (40_000,))
    found = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for dtypes in (edge_kernels.DTYPES, ()):
        monkeypatch.setattr(edge_kernels, "DTYPES", dtypes)
        leaf = x.clone().requires_grad_()
        out = conv(leaf, *graph)
        found.append([out, *torch.autograd.grad(out, [leaf, conv.relations], grad)])
    assert isinstance(conv._plan(x, *graph, 100), PairPlan)
    for mine, theirs in zip(*found, strict=True):
        assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_a_compiled_sum_lets_what_is_not_finite_through():
    conv = CompGCNConv(IN, OUT, 2)
    x = torch.ones(3, IN)
    x[0, 0] = torch.inf
    out = conv(x, torch.tensor([[0], [1]]), torch.tensor([0]))
    assert not out[:2].isfinite().any()
    assert out[2].isfinite().all()


def test_a_residual_adds_the_input():
    torch.manual_seed(0)
    plain = CompGCNConv(IN, IN, RELATIONS).double()
    conv = CompGCNConv(IN, IN, RELATIONS, residual=True).double()
    conv.load_state_dict(plain.state_dict())
    graph = tensors(*GRAPHS["random"])
    assert torch.equal(conv(*graph), plain(*graph) + graph[0])
    with pytest.raises(ValueError, match="residual: widths 4 and 6 given"):
        CompGCNConv(IN, OUT, RELATIONS, residual=True)


def test_relations_from_text_need_no_vector_of_their_own():
    conv = CompGCNConv(IN, OUT, relation_channels=5)
    x, edge_index, edge_type = tensors(*GRAPHS["random"])
    assert conv(x.float(), edge_index, edge_type, torch.randn(RELATIONS, 5)).shape == (9, OUT)
    assert conv(x.float(), edge_index, edge_type, torch.randn(100, 5)).shape == (9, OUT)
    with pytest.raises(ValueError, match="missing"):
        conv(x.float(), edge_index, edge_type)
    with pytest.raises(ValueError, match="no relation_channels"):
        CompGCNConv(IN, OUT, 6)(x.float(), edge_index, edge_type, torch.randn(6, 5))
    with pytest.raises(ValueError, match="7 rows given, 6 relations"):
        CompGCNConv(IN, OUT, 6, relation_channels=5)(
            x.float(), edge_index, edge_type, torch.randn(7, 5)
        )
    with pytest.raises(ValueError, match="7 relations given, an even number"):
        CompGCNConv(IN, OUT, 7)(x.float(), edge_index, edge_type)
    with pytest.raises(ValueError, match=r"relation_features: .*\[6, 4\] given"):
        conv(x.float(), edge_index, edge_type, torch.randn(6, 4))
    with pytest.raises(ValueError, match="give num_relations"):
        CompGCNConv(IN, OUT)
    with pytest.raises(ValueError, match="composition: 'add'"):
        CompGCNConv(IN, OUT, 2, composition="add")


def test_the_papers_gate_is_a_compgcn():
    """G2E's gate = mult, mean, sum, identity weights, relations from text alone, no loop."""
    torch.manual_seed(0)
    gate = RelationGateConv(IN, 5).double()
    torch.nn.init.normal_(gate.gate.weight)
    conv = CompGCNConv(IN, IN, relation_channels=5, bias=False).double()
    with torch.no_grad():
        conv.weight[:2] = torch.eye(IN)
        conv.weight[2] = 0
        conv.relation_text.weight.copy_(gate.gate.weight)
        conv.relation_text.bias.fill_(1)
    x, edge_index, edge_type = tensors(*GRAPHS["random"])
    relations = torch.randn(RELATIONS, 5, dtype=torch.double)
    torch.testing.assert_close(
        gate(x, edge_index, edge_type, relations), conv(x, edge_index, edge_type, relations)
    )
