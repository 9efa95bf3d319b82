/*
 * proof.h: what holds for every input, from the actual codes: sums fit into int32; whether pairs
 * of products fit into int16 on x86 without VNNI; whether float32 holds every sum.
 */
#ifndef KURE_EXPORT_PROOF_H
#define KURE_EXPORT_PROOF_H

#include "builder.h"

/* Fills model->proofs. KURE_ERROR_INPUT: a row whose sum could leave int32. */
KURE_CHECKED enum kure_status kure_integer_prove(struct kure_builder *builder);

#endif
