# MicroVm: `make run` shows a container in a micro-VM, `make test` proves it. `make help` lists the rest.
SHELL        := /bin/bash
.SHELLFLAGS  := -euo pipefail -c
.DEFAULT_GOAL := help
OUT          := $(CURDIR)/out
PREFIX       ?= /usr/local
DESTDIR      ?=
TESTS        ?=
TARGET       ?=
SECONDS      ?= 60
export DOTNET_CLI_TELEMETRY_OPTOUT := 1
export DOTNET_NOLOGO := 1
export MSBUILDDISABLENODEREUSE := 1

.PHONY: help deps build kernel kernel-of-host binaries run test test-long lint lab bench figures fuzz install clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

deps: ## install the Debian packages that building and testing need (as root; nothing is done when all are there)
	@eng/install-deps

kernel: deps ## build both guest kernels (cached by a hash of their inputs)
	@kernel-config/build $(OUT)/libexec/microvm

kernel-of-host: deps
	@kernel-config/build $(OUT)/libexec/microvm host

binaries: deps ## publish the executables and make the agent's image (skipped when no source changed)
	@eng/build-binaries $(OUT)

build: kernel binaries ## guest kernels, binaries and the agent's image, into out/

run: binaries kernel-of-host ## run a container in a micro-VM: the demo bundle; builds only the kernel that this host boots
	@eng/run-demo $(OUT)

test: build ## build and run every test; TESTS=Pattern keeps the test projects whose name matches
	@eng/run-tests $(OUT) "$(TESTS)"

test-long: build ## tests that take hours on a machine of its own: hundreds of rounds of what `make test` does a few times
	@eng/run-tests-long $(OUT)

fuzz: deps ## fuzz by coverage: TARGET=NAME SECONDS=60; without TARGET, list the targets
	@eng/fuzz $(OUT) "$(TARGET)" "$(SECONDS)"

lint: ## check that the code is formatted and named as .editorconfig says
	dotnet build src/MicroVm.Protocol.Generator -v q # the stubs' generator, which the formatter loads but does not build
	dotnet format MicroVm.sln --verify-no-changes

lab: build ## start the lab: a machine with an ordinary KVM, emulated by QEMU (then tests/lab/lab run CMD..., shell, stop)
	@tests/lab/lab start

bench: build ## benchmarks: figures, ratios against QEMU microvm, and plots in out/bench
	@benchmarks/run $(OUT)

figures: build ## sizes, memory when idle, time of a start without its VM: what CI prints
	@eng/figures $(OUT)

install: build ## install into PREFIX (default /usr/local), below DESTDIR when set
	@eng/install $(OUT) "$(DESTDIR)$(PREFIX)"

clean: ## remove what was built here (the kernel cache stays)
	tests/lab/lab stop
	rm -rf $(OUT)
	find src guest-agent tests benchmarks \( -name bin -o -name obj \) -type d -prune -exec rm -rf {} +
