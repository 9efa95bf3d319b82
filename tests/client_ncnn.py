"""client_ncnn.py FOLDER WINOGRAD: in the environment of the clients: ncnn runs FOLDER/model.param on in.npz/x [n][channels][height][width].

WINOGRAD: 0 or 1. in.npz/names: blobs to extract; out.npz: one array [n][...] for each. A blob of codes comes as int8."""
import sys

import ncnn
import numpy as np

given = np.load("in.npz")
net = ncnn.Net()
net.opt.use_winograd_convolution = sys.argv[2] == "1"
net.opt.num_threads = 1
assert net.load_param(f"{sys.argv[1]}/model.param") == 0 and net.load_model(f"{sys.argv[1]}/model.bin") == 0
results = {str(name): [] for name in given["names"]}
for image in given["x"]:
    run = net.create_extractor()
    run.input("values", ncnn.Mat(np.ascontiguousarray(image)))
    for name in results:
        status, value = run.extract(name)
        assert status == 0, name
        results[name].append(np.array(value))
np.savez("out.npz", **{name: np.stack(values) for name, values in results.items()})
