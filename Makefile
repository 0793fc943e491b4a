# kscratch: Kubernetes node images from one cluster file.
# `make image` builds kscratch and a bootable master image; `make test` runs the tests, boots of clusters included;
# what boots longer is in `make boot-all`.

GO       ?= go
OUT      ?= out
ROLE     ?= master
GOFLAGS  := -trimpath -buildvcs=false
PROGRAMS := builder/programs/bin/kscratch-node builder/programs/bin/pause
SOURCES  := $(shell find cmd builder layers ignition images -name '*.go' -o -path '*/initrdfs/*' -type f -o -name '*.yaml' -o -path '*/keys/*') go.mod go.sum

export CGO_ENABLED = 0

.PHONY: build image check test boot boot-all conformance foreign bench lint tools clean

build: bin/kscratch

# What runs on a node must not depend on where or by whom it was built.
builder/programs/bin/%: $(SOURCES)
	GOOS=linux GOARCH=amd64 GOAMD64=v1 $(GO) build $(GOFLAGS) -ldflags '-s -w -buildid=' -o $@ ./cmd/$*

bin/kscratch: $(PROGRAMS) $(SOURCES)
	$(GO) build $(GOFLAGS) -ldflags '-s -w' -o $@ ./cmd/kscratch

image: bin/kscratch
	bin/kscratch image build --role $(ROLE) --output $(OUT) --format raw

# Fast and offline: under two minutes once the modules are there.
check: $(PROGRAMS)
	$(GO) vet ./...
	$(GO) test ./...

# The offline tests again with the foreign judges and the mirror
# (they install on Debian), then the boots.
test: tools foreign boot

foreign: bin/kscratch
	$(GO) vet -tags 'foreign net boot cluster conformance' ./...
	$(GO) test -tags 'foreign net' -timeout 45m ./...

# Boots in QEMU, of the images that the tests build: clusters of two machines
# with both security approaches and all three pod networks, what the first boot
# accepts, network boot. About 50 minutes on two cores without KVM.
# Upstream's end-to-end suite is built first if the content store has none.
boot: bin/kscratch
	$(GO) test -tags cluster -count=1 -timeout 60m ./test/e2e ./test/conformance
	$(GO) test -tags 'boot cluster' -short -count=1 -timeout 80m -v -skip 'TestNode|TestEtcd|TestISO' ./test/boot

# The same, each boot up to a Ready node; CDs; a master alone; three masters. Hours.
boot-all: bin/kscratch
	$(GO) test -tags 'boot cluster' -count=1 -timeout 5h -v ./test/boot

# Upstream's conformance specs; docs/conformance.md is written anew. They run on
# two machines in QEMU, or with `make conformance KUBECONFIG=… SERVER=…` on that
# cluster, which must have the images of test/e2e baked in. The environment's
# KUBECONFIG, which may be anything's, does not count.
SERVER ?= https://127.0.0.1:6443
LIST   ?= focus
conformance: bin/kscratch
ifeq ($(origin KUBECONFIG),command line)
	$(GO) test -tags conformance -count=1 -timeout 0 -v -run TestConformance ./test/conformance -args \
		-kubeconfig $(abspath $(KUBECONFIG)) -server $(SERVER) -list $(LIST) -markdown $(CURDIR)/docs/conformance.md
else
	$(GO) test -tags 'boot cluster' -count=1 -timeout 0 -v -run TestCluster ./test/boot -args \
		-markdown $(CURDIR)/docs/conformance.md
endif

bench: bin/kscratch
	$(GO) test -tags bench -count=1 -timeout 30m -v ./test/bench

lint: $(PROGRAMS)
	test/lint.sh

tools:
	test/tools.sh

clean:
	rm -rf bin $(OUT) $(PROGRAMS)
