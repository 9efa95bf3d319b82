# unit.mk: the unit tests and the benches of the core; the top Makefile includes it
# and defines BUILD, CC, CFLAGS, OURS, INCLUDES, SYSROOT and $(BUILD)/libkure.a.
#
#   make unit      builds tests/unit/test_*.c into $(BUILD)/unit and runs them
#   make fuzz      any bytes to the readers of models, bundles, sidecars and cfgs (tests/fuzz/fuzz.h):
#                  TARGET="model bundle sidecar cfg" ENGINE=libfuzzer FUZZ_SECONDS=600 (each), or
#                  ENGINE=afl; what is found stays in $(BUILD)/fuzz-ENGINE/found
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

$(BUILD)/unit/test_runtime: tests/unit/test_runtime.c tests/fuzz/fuzz_model.c tests/fuzz/fuzz.h tests/unit/check.c tests/unit/check.h $(HEADERS) $(BUILD)/libkure.a $(BUILD)/libkure_runtime.a
	@mkdir -p $(@D)
	$(if $(V),,@echo '  CC   $<')
	$(Q)$(CC) $(OURS) $(CFLAGS) $(INCLUDES) -D_POSIX_C_SOURCE=200809L -DKURE_GOLDEN='"$(CURDIR)/tests/golden"' \
	    tests/unit/test_runtime.c tests/fuzz/fuzz_model.c tests/unit/check.c $(BUILD)/libkure.a $(BUILD)/libkure_runtime.a $(UNIT_LIBRARIES) -o $@

FUZZ_SOURCES := $(filter-out %_main.c,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_FLAGS := -Idarknet-kure/export -DFUZZ_FOLDER='"$(CURDIR)/tests/fuzz"'
EXPORT_LIBRARIES := -ljansson -lxxhash -lcrypto -lz -lprotobuf-c

$(BUILD)/unit/test_fuzz: tests/unit/test_fuzz.c $(FUZZ_SOURCES) tests/fuzz/fuzz.h tests/unit/check.c tests/unit/check.h $(HEADERS) $(BUILD)/libkure.a
	@mkdir -p $(@D)
	$(if $(V),,@echo '  CC   $<')
	$(Q)$(CC) $(OURS) $(CFLAGS) $(INCLUDES) $(FUZZ_FLAGS) -DKURE_GOLDEN='"$(CURDIR)/tests/golden"' \
	    tests/unit/test_fuzz.c $(FUZZ_SOURCES) tests/unit/check.c $(BUILD)/libkure.a $(UNIT_LIBRARIES) $(EXPORT_LIBRARIES) -o $@

# The .cu files as C++, on the CPU: tests/host/cuda_on_cpu has the cuda_runtime.h.
CUDA_ON_CPU := -std=c++17 $(filter-out -std=%,$(OURS)) -Wno-unknown-pragmas -Wno-maybe-uninitialized -Itests/host/cuda_on_cpu
$(BUILD)/unit/on_cpu_cuda.o: darknet-kure/backend/cuda.cu
$(BUILD)/unit/on_cpu_device.o: tests/unit/device.cu
$(BUILD)/unit/on_cpu_runtime.o: tests/host/cuda_on_cpu/runtime.cpp
$(BUILD)/unit/on_cpu_%.o: $(CUDA_FILES) $(HEADERS) $(wildcard tests/unit/device.* tests/host/cuda_on_cpu/*) $(BUILD)/flags
	@mkdir -p $(@D)
	$(if $(V),,@echo '  C++  $(filter %/$*.cu %/$*.cpp,$^)')
	$(Q)$(CXX) $(CUDA_ON_CPU) $(CFLAGS) $(INCLUDES) -x c++ -c $(firstword $(filter %/$*.cu %/$*.cpp,$^)) -o $@

$(BUILD)/unit/test_cuda: tests/unit/test_cuda.c tests/unit/check.c tests/unit/check.h tests/unit/cuda_twins.h tests/unit/device.h $(BUILD)/unit/on_cpu_cuda.o $(BUILD)/unit/on_cpu_device.o $(BUILD)/unit/on_cpu_runtime.o $(BUILD)/libkure.a
	$(if $(V),,@echo '  CC   $<')
	$(Q)$(CC) $(OURS) $(CFLAGS) $(INCLUDES) -DKURE_GOLDEN='"$(CURDIR)/tests/golden"' \
	    $(filter-out %.h,$^) $(UNIT_LIBRARIES) -lstdc++ -o $@

# The same on a GPU, and how fast: make test-gpu, make bench-gpu.
$(BUILD)/unit/device.o: tests/unit/device.cu tests/unit/device.h $(BUILD)/flags
	@mkdir -p $(@D)
	$(Q)$(NVCC) $(NVCC_FLAGS) $(GPU_ARCH) -c $< -o $@
$(BUILD)/unit/test_cuda_native: tests/unit/test_cuda.c tests/unit/check.c tests/unit/check.h tests/unit/cuda_twins.h tests/unit/device.h $(BUILD)/unit/device.o $(BUILD)/obj/backend/cuda.o $(BUILD)/libkure.a
	$(if $(V),,@echo '  CC   $< (native)')
	$(Q)$(CC) $(OURS) $(CFLAGS) $(INCLUDES) -DKURE_GOLDEN='"$(CURDIR)/tests/golden"' \
	    $(filter-out %.h,$^) $(UNIT_LIBRARIES) -L/usr/local/cuda/lib64 -lcudart -lstdc++ -o $@
$(BUILD)/bench_cuda: tests/bench/bench_cuda.cu $(BUILD)/obj/backend/cuda.o
	$(if $(V),,@echo '  NVCC $<')
	$(Q)$(NVCC) -std=c++17 -O2 $(GPU_ARCH) $(INCLUDES) $^ -o $@

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
	    $(UNIT_LIBRARIES) $(EXPORT_LIBRARIES) -o $@

# ---- fuzzing -----------------------------------------------------------------

FUZZ_SECONDS ?= 600
ENGINE ?= libfuzzer
TARGET ?= model bundle sidecar cfg
FUZZ_BUILD := $(BUILD)/fuzz-$(ENGINE)
FUZZ_COMPILER_libfuzzer := CC=clang SANITIZE=fuzzer-no-link,address,undefined
FUZZ_COMPILER_afl := CC=afl-clang-fast SANITIZE=address,undefined

# Built in $(FUZZ_BUILD), with its compiler.
$(BUILD)/fuzz_%: tests/fuzz/fuzz_main.c tests/fuzz/fuzz_%.c $(FUZZ_SOURCES) tests/fuzz/fuzz.h $(HEADERS) $(BUILD)/libkure.a
	$(if $(V),,@echo '  LD   $@')
	$(Q)$(CC) $(OURS) $(CFLAGS) $(INCLUDES) $(FUZZ_FLAGS) -fsanitize=fuzzer -DFUZZ_TARGET=fuzz_$* tests/fuzz/fuzz_main.c $(FUZZ_SOURCES) $(BUILD)/libkure.a \
	    $(filter-out -lcmocka,$(UNIT_LIBRARIES)) $(EXPORT_LIBRARIES) -o $@

.PHONY: fuzz
fuzz:
	@scripts/setup.sh build fuzz
	@$(if $(FUZZ_COMPILER_$(ENGINE)),,echo "make fuzz ENGINE=$(ENGINE): must be libfuzzer or afl" >&2; exit 1)
	@AFL_QUIET=1 $(MAKE) --no-print-directory BUILD=$(FUZZ_BUILD) $(FUZZ_COMPILER_$(ENGINE)) OPENMP=0 CFLAGS='-O1 -g -fno-sanitize-recover=all' \
	    $(addprefix $(FUZZ_BUILD)/fuzz_,$(TARGET))
	@tests/fuzz/run.sh $(FUZZ_BUILD) $(ENGINE) $(FUZZ_SECONDS) $(TARGET)
