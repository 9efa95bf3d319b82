# unit.mk: the unit tests and the bench of the core, for the top Makefile, which
# defines BUILD, CC, CFLAGS, OURS, INCLUDES, SANITIZE and $(BUILD)/libkure.a.
#
#   make unit          builds and runs every tests/unit/test_*.c
#   make unit-clang    the same built with clang, into $(BUILD)/clang
#
# OURS is -std=c11 -ffp-contract=off -Wall -Wextra -Wpedantic -Werror and, with
# OPENMP=1, -fopenmp, without which test_same_bits skips the thread counts.

UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(wildcard tests/unit/test_*.c))

$(BUILD)/unit/test_%: tests/unit/test_%.c tests/unit/check.c tests/unit/check.h $(HEADERS) $(BUILD)/libkure.a
	@mkdir -p $(@D)
	$(if $(V),,@echo '  CC   $<')
	$(Q)$(CC) $(OURS) $(CFLAGS) $(INCLUDES) -DKURE_GOLDEN='"$(CURDIR)/tests/golden"' \
	    tests/unit/test_$*.c tests/unit/check.c $(BUILD)/libkure.a -lcmocka -lm -o $@

.PHONY: unit
unit: $(UNIT_TESTS)
	@failed=0; for test in $^; do echo "== $$(basename $$test)"; $$test || failed=1; done; exit $$failed

$(BUILD)/bench_kure: tests/bench/bench_kure.c $(BUILD)/libkure.a
	$(if $(V),,@echo '  CC   $<')
	$(Q)$(CC) $(OURS) $(CFLAGS) $(INCLUDES) -D_POSIX_C_SOURCE=200809L $< $(BUILD)/libkure.a -lm -o $@
