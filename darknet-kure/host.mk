# host.mk: what Darknet's own Makefile needs of us. The seam includes it where
# KURE_MK names it: make KURE_MK=/path/to/darknet-kure/host.mk
#
#   KURE=0      plugin off: only the flags below
#   KURE_BUILD  folder of libkure_adapter.a and libkure.a (default: ../build)
#   BLAS=0      Darknet's own loops for gemm
#   SANITIZE=   e.g. address,undefined

KURE_DIR := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
KURE_BUILD ?= $(KURE_DIR)/../build
KURE_SYSROOT ?= $(KURE_DIR)/../build/sysroot
KURE ?= 1
BLAS ?= 1

ifneq ($(wildcard $(KURE_SYSROOT)),)
KURE_MULTIARCH := $(shell gcc -print-multiarch)
KURE_INCLUDE_FOLDERS := $(KURE_SYSROOT)/usr/include $(addprefix $(KURE_SYSROOT)/usr/include/$(KURE_MULTIARCH),/ /openblas-pthread)
COMMON += $(addprefix -I,$(KURE_INCLUDE_FOLDERS))
KURE_LIBRARY_FOLDERS := $(KURE_SYSROOT)/usr/lib/$(KURE_MULTIARCH) $(KURE_SYSROOT)/usr/lib/$(KURE_MULTIARCH)/openblas-pthread
LDFLAGS += $(foreach d,$(KURE_LIBRARY_FOLDERS),-L$d -Wl,-rpath,$d)
endif

ifneq ($(KURE), 0)
# The libraries know Darknet's structs from the header that they were built with.
ifneq ($(shell cmp include/darknet.h $(KURE_BUILD)/darknet-src/include/darknet.h 2>&1),)
$(error include/darknet.h here is not that of the libraries in $(KURE_BUILD): run the first command that `make patch` printed; where this tree's darknet.h is its own, unpatch it, run `make DARKNET=$(CURDIR)` in $(abspath $(KURE_DIR)/..), and patch it again)
endif
COMMON += -DKURE -I$(KURE_DIR)/adapter
LDFLAGS := $(KURE_BUILD)/libkure_adapter.a $(KURE_BUILD)/libkure.a -ljansson -lxxhash -lnlopt -lcrypto -lz -lprotobuf-c $(LDFLAGS)
darknet: $(KURE_BUILD)/libkure_adapter.a $(KURE_BUILD)/libkure.a
endif

ifeq ($(BLAS), 1)
COMMON += -DKURE_BLAS
LDFLAGS += -lopenblas
endif

ifneq ($(SANITIZE),)
CFLAGS += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer -g
LDFLAGS += -fsanitize=$(SANITIZE)
endif

# The rule above must not become the goal of Darknet's Makefile.
.DEFAULT_GOAL :=
