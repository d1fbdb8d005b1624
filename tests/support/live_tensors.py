"""How many bytes of activations a module keeps alive as it runs."""

import torch

IN_PLACE = {
    torch.ops.aten.batch_norm.default,
    torch.ops.aten.silu.default,
    torch.ops.aten.relu.default,
    torch.ops.aten.relu6.default,
    torch.ops.aten.hardtanh.default,
    torch.ops.aten.gelu.default,
    torch.ops.aten.hardswish.default,
    torch.ops.aten.prelu.default,
}


class _LiveTensors(torch.fx.Interpreter):
    """Runs a graph, forgets every value after its last use, and notes the most bytes of activations alive.

    What is made of weights alone is a constant of a deployed network, no activation.
    """

    def __init__(self, module):
        super().__init__(module)
        self.activations = set()
        for node in module.graph.nodes:
            if node.op == "placeholder" or self.activations & set(node.all_input_nodes):
                self.activations.add(node)
        weights = [*module.parameters(), *module.buffers()]
        self.weights = {tensor.untyped_storage().data_ptr() for tensor in weights}
        self.peak = 0

    def run_node(self, node):
        value = super().run_node(node)
        alive = {}
        replaced = node.args[0] if node.target in IN_PLACE else None
        for other, held in [*self.env.items(), (node, value)]:
            if other in self.activations and other is not replaced and isinstance(held, torch.Tensor):
                storage = held.untyped_storage()
                alive[storage.data_ptr()] = storage.nbytes()
        self.peak = max(self.peak, sum(alive[key] for key in alive.keys() - self.weights))
        return value


def peak_bytes(module, x):
    """The most bytes alive at once, input and output included."""
    module.eval()
    with torch.no_grad():
        live = _LiveTensors(torch.export.export(module, (x,)).module())
        live.run(x)
    return live.peak
