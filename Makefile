# darknet-kure: `make help` lists the targets.
#
#   DARKNET=DIR      the Darknet tree to copy (default: Debian's source package)
#   GPU CUDNN OPENCV OPENMP DEBUG ARCH   Darknet's own flags (OPENMP=1 is our default)
#   BLAS=0           Darknet's own matrix product instead of OpenBLAS
#   FIXES=0          only the seam, not the numbered fixes
#   KURE=0           Darknet without the plugin
#   SANITIZE=address,undefined           instrumented build; SANITIZE=thread wants CC=clang
#   BUILD=DIR        where everything goes (default: build)
#   OBJECTS=DIR/obj  what does not depend on Darknet, from a build that has it (the tests' builds for GPUs)
#   V=1              print the commands

BUILD ?= build
DARKNET ?=
GPU ?= 0
CUDNN ?= 0
OPENCV ?= 0
OPENMP ?= 1
DEBUG ?= 0
ARCH ?=
NVCC ?= nvcc
BLAS ?= 1
FIXES ?= 1
KURE ?= 1
SANITIZE ?=
OBJECTS ?= $(BUILD)/obj
PREFIX ?= /usr/local
PYTHON ?= /usr/bin/python3

MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
Q := $(if $(V),,@)

ROOT := $(CURDIR)
TREE := $(BUILD)/darknet-src
SYSROOT := $(ROOT)/build/sysroot

# ---- our own objects -------------------------------------------------------

CFLAGS ?= -O3 -g
OURS := -std=c11 -ffp-contract=off -fno-fast-math -fPIC -Wall -Wextra -Wpedantic -Werror
INCLUDES := -Idarknet-kure/include -Idarknet-kure/math -Idarknet-kure/core -Idarknet-kure/backend
ifeq ($(OPENMP),1)
OURS += -fopenmp
endif
ifneq ($(SANITIZE),)
OURS += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer
endif
ifneq ($(wildcard $(SYSROOT)),)
INCLUDES += -I$(SYSROOT)/usr/include -I$(SYSROOT)/usr/include/$(shell gcc -print-multiarch)
endif
HOST_INCLUDES := -Idarknet-kure/adapter -Idarknet-kure/export -I$(TREE)/include -I$(TREE)/src -DKURE
ifeq ($(GPU),1)
HOST_INCLUDES += -DGPU -I/usr/local/cuda/include
endif
ifeq ($(CUDNN),1)
HOST_INCLUDES += -DCUDNN
endif
ifeq ($(OPENCV),1)
HOST_INCLUDES += -DOPENCV
endif
ifeq ($(FIXES),1)
HOST_INCLUDES += -DKURE_FIXES
endif

CORE := $(wildcard darknet-kure/core/*.c)
BACKEND := $(filter-out %_kernels.c $(if $(filter 1,$(GPU)),%/cuda_absent.c),$(wildcard darknet-kure/backend/*.c))
EXPORT := $(wildcard darknet-kure/export/*.c)
ADAPTER := $(wildcard darknet-kure/adapter/*.c darknet-kure/commands/*.c)
RUNTIME := $(filter-out darknet-kure/runtime/kure_run%,$(wildcard darknet-kure/runtime/*.c))
HEADERS := $(wildcard darknet-kure/*/*.h darknet-kure/*/*.def)

object = $(patsubst darknet-kure/%.c,$(BUILD)/obj/%.o,$(1))
LIBKURE_OBJECTS := $(patsubst darknet-kure/%.c,$(OBJECTS)/%.o,$(CORE) $(BACKEND) $(EXPORT) $(RUNTIME)) $(OBJECTS)/backend/cpu_baseline.o $(OBJECTS)/backend/cpu_avx2.o \
	$(OBJECTS)/backend/cpu_avx512.o $(OBJECTS)/generated/onnx.pb-c.o
ifeq ($(GPU),1)
LIBKURE_OBJECTS += $(BUILD)/obj/backend/cuda.o
endif
# The tests' nvcc, which compiles for the CPU, brings its own runtime.
ON_CPU := $(findstring cuda_on_cpu,$(NVCC))
ifneq ($(ON_CPU),)
LIBKURE_OBJECTS += $(BUILD)/obj/on_cpu_runtime.o $(BUILD)/obj/on_cpu_libraries.o
$(BUILD)/obj/on_cpu_%.o: tests/host/cuda_on_cpu/%.cpp $(wildcard tests/host/cuda_on_cpu/*) $(BUILD)/flags
	@mkdir -p $(@D)
	$(Q)$(CXX) -std=c++17 $(filter-out -std=%,$(OURS)) -Wno-maybe-uninitialized $(CFLAGS) -c $< -o $@
endif

# Rebuilds what depends on the flags when they change.
FLAGS := GPU=$(GPU) CUDNN=$(CUDNN) OPENCV=$(OPENCV) OPENMP=$(OPENMP) DEBUG=$(DEBUG) BLAS=$(BLAS) FIXES=$(FIXES) KURE=$(KURE) SANITIZE=$(SANITIZE) ARCH=$(ARCH) NVCC=$(NVCC) CFLAGS=$(CFLAGS) DARKNET=$(DARKNET)
ifeq ($(filter patch unpatch help clean,$(MAKECMDGOALS)),)
$(shell mkdir -p $(BUILD) && printf '%s\n' '$(FLAGS)' | cmp -s - $(BUILD)/flags || printf '%s\n' '$(FLAGS)' > $(BUILD)/flags)
endif

.PHONY: all
all: $(BUILD)/darknet $(BUILD)/kure-run

$(BUILD)/libkure.a: $(LIBKURE_OBJECTS)
	@rm -f $@
	$(if $(V),,@echo '  AR   $@')
	$(Q)ar rcs $@ $^

$(BUILD)/libkure_adapter.a: $(call object,$(ADAPTER))
	@rm -f $@
	$(if $(V),,@echo '  AR   $@')
	$(Q)ar rcs $@ $^

$(call object,$(CORE) $(BACKEND) $(EXPORT)): $(BUILD)/obj/%.o: darknet-kure/%.c $(HEADERS) $(BUILD)/flags | check-tools
	@mkdir -p $(@D)
	$(if $(V),,@echo '  CC   $<')
	$(Q)$(CC) $(OURS) $(CFLAGS) $(INCLUDES) -c $< -o $@

ISA_baseline :=
ISA_avx2 := -mavx2
ISA_avx512 := -mavx512f -mavx512dq -mavx512vl -mprefer-vector-width=512
$(BUILD)/obj/backend/cpu_%.o: darknet-kure/backend/cpu_kernels.c $(HEADERS) $(BUILD)/flags | check-tools
	@mkdir -p $(@D)
	$(if $(V),,@echo '  CC   $< ($*)')
	$(Q)$(CC) $(OURS) $(CFLAGS) $(INCLUDES) $(ISA_$*) -DKURE_ISA=$* -c $< -o $@

# The GPUs of this list that nvcc knows, as patches/0022 has it for Darknet's own kernels.
GPU_KNOWN = $(patsubst compute_%,%,$(shell $(NVCC) --list-gpu-arch 2>/dev/null))
GPU_CHOSEN = $(or $(filter $(GPU_KNOWN),50 52 60 61 70 75 80 86 89 90),52)
GPU_ARCH = $(or $(ARCH),$(foreach kind,$(GPU_CHOSEN),-gencode arch=compute_$(kind),code=sm_$(kind)) \
	-gencode arch=compute_$(lastword $(GPU_CHOSEN)),code=compute_$(lastword $(GPU_CHOSEN)))
# --fmad=false and IEEE division and roots, nvcc's own choice: the CPU's bits.
comma := ,
NVCC_FLAGS = -std=c++17 -O3 --fmad=false -Xcompiler -fPIC,-Wall,-Wextra $(foreach kind,$(subst $(comma), ,$(SANITIZE)),-Xcompiler -fsanitize=$(kind))
CUDA_FILES := $(wildcard darknet-kure/backend/*.cu darknet-kure/backend/*.cuh)
$(BUILD)/obj/backend/cuda.o: $(CUDA_FILES) $(HEADERS) $(BUILD)/flags
	@mkdir -p $(@D)
	@command -v $(NVCC) >/dev/null || { echo "GPU=1 needs nvcc of the CUDA toolkit in PATH" >&2; exit 1; }
	$(if $(V),,@echo '  NVCC darknet-kure/backend/cuda.cu')
	$(Q)$(NVCC) $(NVCC_FLAGS) $(GPU_ARCH) $(INCLUDES) -c darknet-kure/backend/cuda.cu -o $@

$(call object,$(ADAPTER)): $(BUILD)/obj/%.o: darknet-kure/%.c $(HEADERS) $(BUILD)/flags $(TREE)/.kure-patches
	@mkdir -p $(@D)
	$(if $(V),,@echo '  CC   $<')
	$(Q)$(CC) $(OURS) $(CFLAGS) $(INCLUDES) $(HOST_INCLUDES) -c $< -o $@

# ---- export: code made of files ---------------------------------------------------

# The ONNX schema as C, made of the package's own file.
ONNX_PROTO := $(firstword $(wildcard $(SYSROOT)/usr/include/onnx/onnx.proto) /usr/include/onnx/onnx.proto)
$(BUILD)/generated/onnx.pb-c.c: $(wildcard $(ONNX_PROTO)) | check-tools
	@mkdir -p $(@D)
	$(if $(V),,@echo '  GEN  $@')
	$(Q). scripts/sysroot.sh && PATH="$(SYSROOT)/usr/bin:$$PATH" protoc-c -I$(dir $(ONNX_PROTO)) --c_out=$(@D) $(ONNX_PROTO)
$(BUILD)/generated/onnx.pb-c.h: $(BUILD)/generated/onnx.pb-c.c ;

$(BUILD)/obj/generated/%.o: $(BUILD)/generated/%.c
	@mkdir -p $(@D)
	$(if $(V),,@echo '  CC   $<')
	$(Q)$(CC) $(OURS) $(CFLAGS) $(INCLUDES) -c $< -o $@

# Files that a bundle's C source consists of, as arrays of bytes.
$(BUILD)/generated/c_files.h: darknet-kure/export/c_layers.h darknet-kure/math/kure_intmath.h
	@mkdir -p $(@D)
	$(if $(V),,@echo '  GEN  $@')
	$(Q)for file in $^; do \
	    echo "static const unsigned char $$(basename $$file .h)[] = {"; od -An -v -tu1 $$file | sed 's/ *\([0-9][0-9]*\)/\1,/g'; echo '};'; \
	done > $@

$(call object,$(EXPORT)): $(BUILD)/generated/onnx.pb-c.h $(BUILD)/generated/c_files.h
$(call object,$(EXPORT)): INCLUDES += -I$(BUILD)/generated

# ---- the integer runtime ----------------------------------------------------

# C99 for any device; kure-run alone knows files, on a POSIX system.
RUNTIME_FLAGS := -std=c99 $(filter-out -std=% -fopenmp,$(OURS)) -Idarknet-kure/include -Idarknet-kure/math
KURE_RUN := $(call object,$(wildcard darknet-kure/runtime/kure_run*.c))
$(KURE_RUN): RUNTIME_FLAGS += -D_POSIX_C_SOURCE=200809L

$(call object,$(RUNTIME)) $(KURE_RUN): $(BUILD)/obj/%.o: darknet-kure/%.c $(HEADERS) $(BUILD)/flags | check-tools
	@mkdir -p $(@D)
	$(if $(V),,@echo '  CC   $<')
	$(Q)$(CC) $(RUNTIME_FLAGS) $(CFLAGS) -c $< -o $@

$(BUILD)/libkure_runtime.a: $(call object,$(RUNTIME))
	@rm -f $@
	$(if $(V),,@echo '  AR   $@')
	$(Q)ar rcs $@ $^

$(BUILD)/kure-run: $(KURE_RUN) $(BUILD)/libkure_runtime.a
	$(if $(V),,@echo '  LD   $@')
	$(Q)$(CC) $(RUNTIME_FLAGS) $(CFLAGS) $^ -o $@

# ---- Darknet ---------------------------------------------------------------

$(TREE)/.kure-patches: $(wildcard patches/*.patch) scripts/get_darknet.sh scripts/apply_patches.sh $(BUILD)/flags | check-tools
	@echo "Darknet: $(if $(DARKNET),a copy of $(DARKNET),Debian's source package)"
	@rm -rf $(TREE)
	@scripts/get_darknet.sh $(TREE) $(DARKNET)
	@scripts/apply_patches.sh --fixes $(FIXES) --blas $(BLAS) $(TREE)

DARKNET_FLAGS = GPU=$(GPU) CUDNN=$(CUDNN) OPENCV=$(OPENCV) OPENMP=$(OPENMP) DEBUG=$(DEBUG) $(if $(ARCH),ARCH='$(ARCH)') NVCC='$(NVCC)' $(if $(filter command,$(origin CC)),CC='$(CC)') \
	KURE_MK=$(ROOT)/darknet-kure/host.mk KURE=$(KURE) KURE_BUILD=$(abspath $(BUILD)) KURE_SYSROOT=$(SYSROOT) BLAS=$(BLAS) SANITIZE=$(SANITIZE)

$(BUILD)/darknet: $(TREE)/.kure-patches $(if $(filter 1,$(KURE)),$(BUILD)/libkure.a $(BUILD)/libkure_adapter.a)
	@mkdir -p $(TREE)/obj
	@rm -f $(TREE)/darknet
	@echo '  MAKE Darknet (output: $(BUILD)/darknet.log)'
	+@env -u MAKEFLAGS -u CFLAGS -u CC $(MAKE) --no-print-directory -j$(shell nproc) -C $(TREE) darknet $(DARKNET_FLAGS) > $(BUILD)/darknet.log 2>&1 || { tail -n 20 $(BUILD)/darknet.log; exit 1; }
	@cp $(TREE)/darknet $@
	@echo 'Built $@. Next: make demo, or $@ kure --help'

# The host tests' program: Darknet driven from a fixed source of data.
$(BUILD)/harness: tests/host/harness.c $(BUILD)/darknet | $(if $(filter 0,$(GPU)),$(BUILD)/kure-run $(BUILD)/libkure_runtime_test.so $(BUILD)/libkure_export_test.so)
	@rm -f $(TREE)/harness
	@echo '  MAKE $@'
	+@env -u MAKEFLAGS -u CFLAGS -u CC $(MAKE) --no-print-directory -C $(TREE) harness EXEC=harness EXECOBJA=harness.o \
		VPATH='./src/:$(ROOT)/tests/host' $(DARKNET_FLAGS) > $(BUILD)/harness.log 2>&1 || { tail -n 20 $(BUILD)/harness.log; exit 1; }
	@cp $(TREE)/harness $@

# What to type after `make patch`, with the flags that it was given.
IN_PLACE_FLAGS = OPENMP=$(OPENMP) $(foreach flag,BLAS FIXES,$(if $(filter 0,$($(flag))),$(flag)=0)) $(foreach flag,GPU CUDNN OPENCV,$(if $(filter 1,$($(flag))),$(flag)=1))
LIBRARIES_COMMAND = make -C $(ROOT) BUILD=$(BUILD) $(strip $(IN_PLACE_FLAGS))
IN_PLACE_COMMAND = make -C $(abspath $(DARKNET)) KURE_MK=$(ROOT)/darknet-kure/host.mk KURE_BUILD=$(abspath $(BUILD)) $(strip $(IN_PLACE_FLAGS))

.PHONY: patch unpatch
patch unpatch:
	@test -n "$(DARKNET)" || { echo "make $@ DARKNET=DIR: name the Darknet tree to change" >&2; exit 1; }
	@scripts/apply_patches.sh $(if $(filter unpatch,$@),-R,--fixes $(FIXES) --blas $(BLAS)) $(DARKNET)
ifneq ($(filter patch,$(MAKECMDGOALS)),)
	@echo 'Patched $(DARKNET). To build there, the libraries first:'
	@echo '  $(LIBRARIES_COMMAND)'
	@echo '  $(IN_PLACE_COMMAND)'
else
	@echo '$(DARKNET) is as it was.'
endif

include tests/unit/unit.mk

# ---- what is needed --------------------------------------------------------

.PHONY: check-tools setup
check-tools:
	@scripts/setup.sh --check build $(if $(filter 1,$(BLAS)),blas)

setup:
	@scripts/setup.sh build blas demo test bench

# ---- demo, paper, tests, bench ---------------------------------------------

.PHONY: demo demo-detector paper test test-gpu bench bench-gpu kernels check-patches golden docs install clean help
demo:
	@scripts/setup.sh build blas demo
	@$(MAKE) --no-print-directory all
	@PYTHON=$(PYTHON) scripts/demo.sh

demo-detector:
	@scripts/setup.sh build blas demo
	@$(MAKE) --no-print-directory all
	@PYTHON=$(PYTHON) scripts/demo_detector.sh

paper:
	@scripts/setup.sh build blas demo
	@$(MAKE) --no-print-directory all
	@status=0; for script in paper paper_ablations paper_quantization paper_detector; do $(PYTHON) scripts/$$script.py || status=$$?; [ $$status -lt 128 ] || break; done; exit $$status

test:
	@scripts/setup.sh build blas demo test
	@scripts/setup.sh browser || echo 'Going on without the tests in a browser.'
	@scripts/setup.sh threads || echo 'Going on without the tests under ThreadSanitizer.'
	@$(MAKE) --no-print-directory all
	@BUILD=$(BUILD) PYTHON=$(PYTHON) tests/run.sh

bench:
	@scripts/setup.sh build blas demo test bench
	@$(MAKE) --no-print-directory all
	@PYTHON=$(PYTHON) tests/bench/run.sh

test-gpu:
	@BUILD=$(BUILD) PYTHON=$(PYTHON) ARCH='$(ARCH)' scripts/test_gpu.sh

bench-gpu:
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/gpu GPU=1 $(if $(ARCH),ARCH='$(ARCH)') $(BUILD)/gpu/bench_cuda
	@status=0; $(BUILD)/gpu/bench_cuda || status=1; $(PYTHON) tests/bench/bench_cuda_torch.py $(BUILD)/gpu/bench_cuda || status=1; exit $$status

kernels:
	@$(NVCC) $(NVCC_FLAGS) $(GPU_ARCH) $(INCLUDES) -Xptxas -v -c darknet-kure/backend/cuda.cu -o /dev/null 2>&1 | $(PYTHON) scripts/kernels.py

check-patches:
	@scripts/setup.sh build blas
	@scripts/check_patches.sh

golden:
	@scripts/setup.sh bench
	$(PYTHON) tests/golden/generate.py

docs: all
	@$(PYTHON) scripts/docs.py

ifeq ($(KURE),1)
install: $(BUILD)/darknet $(BUILD)/kure-run
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/lib
	install -m 755 $(BUILD)/darknet $(DESTDIR)$(PREFIX)/bin/darknet-kure
	install -m 644 darknet-kure/include/*.h $(DESTDIR)$(PREFIX)/include
	install -m 755 $(BUILD)/kure-run $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(BUILD)/libkure.a $(BUILD)/libkure_runtime.a $(DESTDIR)$(PREFIX)/lib
else
install:
	@echo "make install KURE=$(KURE): there is no plugin to install" >&2; exit 1
endif

clean:
	rm -rf $(BUILD)

help:
	@sed -n 's/^#H //p' $(firstword $(MAKEFILE_LIST))
#H make                    build/darknet: Debian's Darknet, patched, with the plugin; build/kure-run
#H make demo               the whole story on Fashion-MNIST in under ten minutes: build/demo/report.html
#H make demo-detector      the same of a detector, in AP: build/demo-detector/report.html
#H make test               everything that must hold, from nothing
#H make paper              README's tables, three seeds: the demo, the paper's ablations, quantization-aware training, the detector (hours)
#H make bench              speed, as ratios measured in one run
#H make test-gpu, bench-gpu  on a machine with a GPU and nvcc: the loops, compute-sanitizer, training; bandwidth
#H make kernels            what nvcc says of our kernels: registers, spills; GPU=1 is not needed, nor a GPU
#H make check-patches      patches apply, build and come out, on Debian's tree and upstream's
#H make setup              install every Debian package that the targets above need
#H make patch DARKNET=DIR  apply the patches to your own tree; make unpatch takes them out
#H make fuzz               libFuzzer, or with ENGINE=afl AFL++, on every reader of files: FUZZ_SECONDS=600 each, TARGET="model bundle sidecar cfg"
#H make install PREFIX=    bin/darknet-kure, bin/kure-run, lib/libkure.a, lib/libkure_runtime.a, include/
#H make golden, docs       regenerate golden test values; cfg/README.md from keys.def
#H make clean              remove build/
#H
#H flags: DARKNET=DIR GPU=1 CUDNN=1 OPENCV=1 OPENMP=0 DEBUG=1 ARCH= BLAS=0 FIXES=0
#H        KURE=0 SANITIZE=address,undefined BUILD=DIR
