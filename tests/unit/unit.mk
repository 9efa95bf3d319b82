# unit.mk: the unit tests and the benches of the core; the top Makefile includes it
# and defines BUILD, CC, CFLAGS, OURS, INCLUDES, SYSROOT and $(BUILD)/libkure.a.
#
#   make unit      builds tests/unit/test_*.c into $(BUILD)/unit and runs them
#   make fuzz      libFuzzer (clang) on the reader of integer models, FUZZ_SECONDS=600; what it
#                  finds beyond tests/fuzz/corpus stays in $(BUILD)/fuzz
#
# One test alone: build/unit/test_NAME; KURE_SEED=N draws other random numbers,
# KURE_ISA=baseline runs on another instruction set. Without OPENMP=1
# test_same_bits skips the comparison of thread counts, and says so.

UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(wildcard tests/unit/test_*.c))
UNIT_LIBRARIES = $(if $(wildcard $(SYSROOT)),-L$(SYSROOT)/usr/lib/$(shell $(CC) -dumpmachine)) -lcmocka -lnlopt -lm

$(BUILD)/unit/test_%: tests/unit/test_%.c tests/unit/check.c tests/unit/check.h $(HEADERS) $(BUILD)/libkure.a
	@mkdir -p $(@D)
	$(if $(V),,@echo '  CC   $<')
	$(Q)$(CC) $(OURS) $(CFLAGS) $(INCLUDES) -DKURE_GOLDEN='"$(CURDIR)/tests/golden"' \
	    tests/unit/test_$*.c tests/unit/check.c $(BUILD)/libkure.a $(UNIT_LIBRARIES) -o $@

$(BUILD)/unit/test_runtime: tests/unit/test_runtime.c tests/fuzz/fuzz_model.c tests/fuzz/fuzz_model.h tests/unit/check.c tests/unit/check.h $(HEADERS) $(BUILD)/libkure.a $(BUILD)/libkure_runtime.a
	@mkdir -p $(@D)
	$(if $(V),,@echo '  CC   $<')
	$(Q)$(CC) $(OURS) $(CFLAGS) $(INCLUDES) -D_POSIX_C_SOURCE=200809L -DKURE_GOLDEN='"$(CURDIR)/tests/golden"' \
	    tests/unit/test_runtime.c tests/fuzz/fuzz_model.c tests/unit/check.c $(BUILD)/libkure.a $(BUILD)/libkure_runtime.a $(UNIT_LIBRARIES) -o $@

.PHONY: unit
unit: $(UNIT_TESTS)
	@failed=0; for test in $^; do echo "== $$(basename $$test)"; $$test || failed=1; done; exit $$failed

$(BUILD)/bench_kure $(BUILD)/bench_quantize: $(BUILD)/bench_%: tests/bench/bench_%.c $(BUILD)/libkure.a
	$(if $(V),,@echo '  CC   $<')
	$(Q)$(CC) $(OURS) $(CFLAGS) $(INCLUDES) -D_POSIX_C_SOURCE=200809L $< $(BUILD)/libkure.a -lm -o $@

# The runtime and its arithmetic for tests/runtime.py.
$(BUILD)/libkure_runtime_test.so: tests/unit/runtime_elements.c $(BUILD)/libkure_runtime.a
	$(if $(V),,@echo '  LD   $@')
	$(Q)$(CC) $(RUNTIME_FLAGS) $(CFLAGS) -shared $< -Wl,--whole-archive $(BUILD)/libkure_runtime.a -Wl,--no-whole-archive -o $@

# The writers of export for tests/integer_model.py.
$(BUILD)/libkure_export_test.so: tests/unit/export_layout.c $(HEADERS) $(BUILD)/libkure.a
	$(if $(V),,@echo '  LD   $@')
	$(Q)$(CC) $(OURS) $(CFLAGS) $(INCLUDES) -Idarknet-kure/export -shared $< -Wl,--whole-archive $(BUILD)/libkure.a -Wl,--no-whole-archive \
	    $(UNIT_LIBRARIES) -ljansson -lxxhash -lcrypto -lz -lprotobuf-c -o $@

# ---- fuzzing -----------------------------------------------------------------

FUZZ_SECONDS ?= 600

$(BUILD)/fuzz_model: tests/fuzz/fuzz_model.c $(RUNTIME) $(HEADERS)
	$(if $(V),,@echo '  CC   $<')
	$(Q)clang -std=c99 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Idarknet-kure/include -Idarknet-kure/math \
	    tests/fuzz/fuzz_model.c $(RUNTIME) -o $@

.PHONY: fuzz
fuzz: $(BUILD)/fuzz_model
	@mkdir -p $(BUILD)/fuzz
	$(BUILD)/fuzz_model -max_len=4096 -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=$(BUILD)/fuzz/ $(BUILD)/fuzz tests/fuzz/corpus
