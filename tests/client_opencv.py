"""client_opencv.py FILE [FILE]: in the environment of the clients: OpenCV DNN runs in.npz/x [n][channels][height][width] image by image.

FILE: an ONNX model, or a Darknet cfg and its weights. out.npz: one array [n][...] for each output; `version`."""
import sys

import cv2
import numpy as np

net = cv2.dnn.readNetFromONNX(sys.argv[1]) if len(sys.argv) == 2 else cv2.dnn.readNetFromDarknet(sys.argv[1], sys.argv[2])
names = net.getUnconnectedOutLayersNames()
results = {name: [] for name in names}
for image in np.load("in.npz")["x"]:
    net.setInput(image[None])
    for name, value in zip(names, net.forward(names)):
        results[name].append(value[0])
np.savez("out.npz", version=cv2.__version__, **{name: np.stack(values) for name, values in results.items()})
