/*
 * host_darknet.h: what the adapter knows of the pjreddie line of Darknet (upstream
 * 61c9d02e): the private structs of its cfg parser. Public ones come from darknet.h,
 * which must be compiled with the same GPU and CUDNN flags as Darknet.
 */
#ifndef KURE_HOST_DARKNET_H
#define KURE_HOST_DARKNET_H

#include "darknet.h"

char *get_layer_string(LAYER_TYPE type); /* src/network.h */

/* src/activations.h */
char *get_activation_string(ACTIVATION a);
void activate_array(float *x, const int n, const ACTIVATION a);
void gradient_array(const float *x, const int n, const ACTIVATION a, float *delta);

/* src/convolutional_layer.h, src/connected_layer.h */
#ifdef GPU
void pull_convolutional_layer(layer l);
void pull_connected_layer(layer l);
void push_convolutional_layer(layer l);
void push_connected_layer(layer l);

/* src/activations.h */
void activate_array_gpu(float *x, int n, ACTIVATION a);
void gradient_array_gpu(float *x, int n, ACTIVATION a, float *delta);
#endif

int yolo_num_detections(layer l, float thresh); /* src/yolo_layer.h */

/* src/list.h */
void list_insert(list *l, void *value);

/* src/parser.c */
struct host_section {
    char *type; /* with brackets */
    list *options;
};

/* src/option_list.h; key and value share one allocation, that of the key */
struct host_option {
    char *key;
    char *val;
    int used;
};

#endif
