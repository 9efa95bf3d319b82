/*
 * hooks.h: the calls that patches/0001-seam.patch puts into Darknet.
 *
 * include/darknet.h of the patched tree includes this file at its end, so that
 * `network`, `layer` and `list` are known here. With the plugin off the macro
 * kure_seam() of that header turns every call into nothing.
 *
 * Each hook reports a fault of the user's in one sentence on stderr and ends
 * the process with status 1, as Darknet itself does; nothing is half-written.
 */
#ifndef KURE_HOOKS_H
#define KURE_HOOKS_H

#ifdef __cplusplus
extern "C" {
#endif

/* After the cfg text is read and before the layers are counted.
 * sections [in, out]: Darknet's list of sections; ours are unlinked and our
 *                     keys are taken out of the others.
 * file     [in]:      path of the cfg, read a second time for line numbers. */
void kure_cfg_read(list *sections, const char *file);

/* After the network is built from the list that this thread passed last. */
void kure_attach(network *net);

/* From parser.c with patch "check weights files": layers [in] is one past the
 * last layer that the file filled, left [in] the bytes after it. */
void kure_weights_extent(network *net, int layers, size_t left);

/* After a weights file is read into layers start .. cutoff-1. */
void kure_weights_loaded(network *net, const char *file, int start, int cutoff);

/* After `seen` is set to zero by -clear: momentum of an earlier run is dropped. */
void kure_cleared(network *net);

/* Before all weights are saved as `file`: those that are not finite end the process. */
void kure_weights_saving(network *net, const char *file);

/* The file `written` holds all the weights that will be called `file`: the same
 * path, or a temporary one that is renamed next. Writes `file`.kure.new. */
void kure_weights_written(network *net, const char *written, const char *file, int cutoff);

/* `file` has its final name: `file`.kure.new becomes `file`.kure. */
void kure_weights_saved(network *net, const char *file, int cutoff);

/* Once after each update of a training loop: log row, status line, and, after
 * SIGINT or SIGTERM, a checkpoint `backup`/`base`.backup and the end.
 * loss [in]: mean over the images of the update, as Darknet prints it; one that
 *            is not finite ends the process before any of this. */
void kure_iteration(network **nets, int n, float loss, const char *backup, const char *base);

/* 1 where kure_iteration keeps one status line on a terminal, so that the
 * loop's own lines are not wanted. */
int kure_owns_terminal(void);

/* After sync_nets has averaged the weights of n networks. */
void kure_synced(network **nets, int n);

/* Before a network is freed. */
void kure_release(network *net);

/* `darknet kure COMMAND ...`; returns the exit status. */
int kure_command(int argc, char **argv);

#ifdef __cplusplus
}
#endif
#endif
