"""model.qop.onnx in OpenCV DNN: the codes of every output against model_file.run (NumPy)."""
import numpy as np
import pytest

import clients
import integer_model
import model_file
from test_clients_onnx import NETWORKS, images, library, written  # noqa: F401

pytestmark = pytest.mark.clients


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_codes(library, tmp_path, name):  # noqa: F811
    for seed in (1, 2):
        network, outputs = NETWORKS[name](seed, 8)
        path = written(library, "kure_write_onnx_qlinear", network, outputs, tmp_path)
        x, codes = images(network, 8)
        got = clients.run("client_opencv.py", tmp_path, path, x=x)
        want = [model_file.run(network.model(outputs), image) for image in codes]
        for output in outputs:
            t = network.tensors[output]
            have = np.rint(got[f"{t.name}_value"] / t.scale) + t.zero_point
            differ = have.reshape(len(x), *t.shape) != np.stack([values[output] for values in want])
            assert not differ.any(), f"{t.name}: {differ.sum()} of {differ.size} codes differ"


def test_a_relu_of_its_own_zero_point(library, tmp_path):  # noqa: F811
    import export_models
    network = export_models.Network(8, "onnx", (2, 9, 9), symmetric=True)
    network.convolution(5, relu=True)
    network.convolution(4)
    path = written(library, "kure_write_onnx_qlinear", network, [network.last], tmp_path)
    x, codes = images(network, 4)
    got = clients.run("client_opencv.py", tmp_path, path, x=x)["layer_1_value"]
    t = network.tensors[-1]
    want = np.stack([model_file.run(network.model(), image)[-1] for image in codes])
    assert (np.rint(got / t.scale) + t.zero_point == want).all()
