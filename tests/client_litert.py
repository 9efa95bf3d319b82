"""client_litert.py FILE: in the environment of the clients: LiteRT's reference kernels on the int8 images in.npz/x [n][channels][height][width].

out.npz: the codes of every tensor of four dimensions that an operator makes, [n][channels][height][width]; `operators`; `weight_bytes`."""
import sys

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

path = sys.argv[1]
data = open(path, "rb").read()
graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
weights = [t for t in graph.subgraphs[0].tensors if t.name.endswith(b"_weights")]
interpreter = Interpreter(model_path=path, experimental_op_resolver_type=OpResolverType.BUILTIN_REF, experimental_preserve_all_tensors=True, num_threads=1)
interpreter.allocate_tensors()
(given,) = interpreter.get_input_details()
made = {o.outputs[0] for o in graph.subgraphs[0].operators}
tensors = [d for d in interpreter.get_tensor_details() if d["index"] in made and len(d["shape"]) == 4]
results = {d["name"]: [] for d in tensors}
for image in np.load("in.npz")["x"]:
    interpreter.set_tensor(given["index"], image.transpose(1, 2, 0)[None])
    interpreter.invoke()
    for d in tensors:
        results[d["name"]].append(interpreter.get_tensor(d["index"])[0].transpose(2, 0, 1))
names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
np.savez("out.npz", operators=np.array([names[graph.operatorCodes[o.opcodeIndex].builtinCode] for o in graph.subgraphs[0].operators]),
         weight_bytes=sum(len(graph.buffers[t.buffer].data) for t in weights), **{name: np.stack(values) for name, values in results.items()})
