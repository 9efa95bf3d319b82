"""client_onnxruntime.py MODEL THREADS: in the environment of the clients: runs in.npz/x [n][channels][height][width] image by image.

out.npz: one array for each output of the model, [n][...], and one for each tensor *_quantized that is made on the way, its codes as
int8. `operators`: "Conv 3" ...: what the optimized graph holds, as the model runs
without those outputs. `weight_bytes`: what the weights take. All optimizations are on in every session."""
import collections
import sys

import numpy as np
import onnx
import onnxruntime


def session(model, threads, saved=None):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    if saved:
        options.optimized_model_filepath = saved
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def main():
    path, threads = sys.argv[1], int(sys.argv[2])
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    session(model, threads, "optimized.onnx")
    graph = onnx.load("optimized.onnx").graph
    made = collections.Counter(node.op_type for node in graph.node)
    plain = session(model, threads)
    types = {c.name: c.data_type for c in model.graph.initializer}
    quantized = [name for node in model.graph.node for name in node.output
                 if name.endswith("_quantized") and not name.endswith(("_unlimited_quantized", "_weights_quantized"))]
    kind = onnx.TensorProto.UINT8 if types["input_zero_point"] == onnx.TensorProto.UINT8 else onnx.TensorProto.INT8
    outputs = [output.name for output in model.graph.output]
    for name in quantized:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    observed = session(model, threads)
    x = np.load("in.npz")["x"]
    results = {name: [] for name in outputs + quantized}
    for image in x:
        feed = {model.graph.input[0].name: image[None]}
        for name, value in zip(outputs, plain.run(outputs, feed)):
            results[name].append(value[0])
        for name, value in zip(quantized, observed.run(quantized, feed)):
            results[name].append(value[0])
    for name in quantized:
        codes = np.stack(results[name]).astype(np.int16)
        results[name] = (codes - 128 if kind == onnx.TensorProto.UINT8 else codes).astype(np.int8)
    weight_bytes = sum(len(c.raw_data) for c in model.graph.initializer if c.name.endswith(("_weights_quantized", "_weights_stored")))
    np.savez("out.npz", weight_bytes=weight_bytes, operators=np.array([f"{name} {count}" for name, count in sorted(made.items())]),
             **{name: np.stack(values) if isinstance(values, list) else values for name, values in results.items()})


main()
