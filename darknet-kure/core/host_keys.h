/*
 * host_keys.h: the names of Darknet's own cfg keys, so that none is taken for a
 * misspelt one of ours. tests/test_bad_cfg.py compares them with Darknet's parser.
 */
#ifndef KURE_HOST_KEYS_H
#define KURE_HOST_KEYS_H

/* 1: some section of Darknet's has such a key, upper or lower case. */
int kure_is_host_key(const char *name);

/* Edits to the nearest key of [net], or of layers. */
int kure_host_key_distance(int in_net, const char *name);

#endif
